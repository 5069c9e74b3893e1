// Which ports move with an augmented image although no `follow` says so.
#include <cstdint>
#include <string>
#include <vector>

#include "io/hdf5/hdf5_writer.hpp"
#include "models/model/build.hpp"
#include "tests/support/training.hpp"

namespace dtrain::launch {
namespace {

class Follow : public test_training::Training {
 protected:
  /// The loader's ports of a model on images and maps of 8 x 6 pixels and weights of as many, MODEL and DATA.
  std::vector<io::PortOptions> ports(const std::string& model, const std::string& data) const {
    const std::string path = (folder_ / "maps.h5").string();
    {
      io::h5::Writer writer(path);
      const std::vector<std::uint8_t> bytes(4 * 144);
      const std::vector<float> ones(4 * 48, 1);
      const auto put = [&](const char* key, io::StoredType type, std::vector<std::uint64_t> dims, const void* values) {
        writer.write(writer.add(key, type, dims), 0, 4, values);
      };
      put("images", io::StoredType::u8, {4, 3, 8, 6}, bytes.data());
      put("labels", io::StoredType::u8, {4, 8, 6}, bytes.data());
      put("each", io::StoredType::f32, {4, 8, 6}, ones.data());
      writer.commit();
    }
    const LoadedConfig loaded = config("name: follow\nmodel: {layers: [conv2d: {filters: 3, kernel: 1}], " + model +
                                           "}\ndata: {train: " + path + ", " + data +
                                           "}\nbatch: {global: 2}\noptimizer: sgd\ntrain: {steps: 1}\n",
                                       {}, "follow");
    const RunConfig& run = loaded.config;
    const io::Dataset set = open_data(run, run.data.train, DataUse::training, 1);
    const models::StoredPorts stored = stored_ports(set);
    const Graph graph = models::build(run.model, 2, DType::f32, stored);
    check_data(run, graph, stored, set, DataUse::training);
    return loader_options(run, graph, stored, set, DataUse::training).ports;
  }
};

TEST_F(Follow, label_maps_of_the_short_form_follow_the_only_input) {
  const std::string brief = "input: [3, 8, 6], loss: cross_entropy";
  EXPECT_EQ(ports(brief, "augment: [flip]").at(1).follow, 0);
  EXPECT_EQ(ports(brief, "augment: [color_jitter: {brightness: 0.1}]").at(1).follow, -1);
  EXPECT_EQ(ports(brief, "shuffle: false").at(1).follow, -1);
  EXPECT_THROW(ports(brief, "augment: [flip], targets: {target: /labels}"), ConfigError);
  EXPECT_EQ(ports(brief, "augment: [flip], targets: {target: {key: /labels, follow: input}}").at(1).follow, 0);
}

TEST_F(Follow, weights_of_pixels_follow_what_their_target_follows) {
  const std::string named =
      "inputs: {image: [3, 8, 6]}, losses: {pixels: {cross_entropy: {target: map, weight: each}}}";
  const auto made = ports(named,
                          "inputs: {image: {key: /images, augment: [flip]}}, targets: {map: {key: /labels, follow: "
                          "image}}");
  EXPECT_EQ(made.at(1).follow, 0);
  EXPECT_EQ(made.at(2).follow, 0);
}

}  // namespace
}  // namespace dtrain::launch
