// What the start of a run and `check` say of data that may not be what was meant.
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "io/hdf5/hdf5_writer.hpp"
#include "models/model/build.hpp"
#include "tests/support/training.hpp"

namespace dtrain::launch {
namespace {

class Warnings : public test_training::Training {
 protected:
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  /// Bytes of images from 0 to 255, and the numbers from 0 to 95, 32 a half.
  void write(const std::string& name, std::uint8_t first = 0) const {
    io::h5::Writer writer(path(name));
    std::vector<std::uint8_t> bytes(32 * 48), labels(32);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(first + i * 7);
    for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::uint8_t>(i % 3);
    const auto put = [&](const std::string& key, const std::vector<std::uint64_t>& dims,
                         const std::vector<std::uint8_t>& values) {
      writer.write(writer.add(key, io::StoredType::u8, dims), 0, 32, values.data());
    };
    put("x_train", {32, 3, 4, 4}, bytes);
    put("y_train", {32}, labels);
    bytes[0] ^= 1;
    put("x_test", {32, 3, 4, 4}, bytes);
    put("y_test", {32}, labels);
    writer.commit();
  }
  std::vector<std::string> warnings(const std::string& data, int classes = 3) const {
    const LoadedConfig loaded =
        config(fmt::format("name: w\nmodel: {{input: [3, 4, 4], layers: [flatten, dense: {{units: {}}}]}}\ndata: "
                           "{{{}}}\nbatch: {{global: 2}}\noptimizer: sgd\ntrain: {{steps: 1}}\n",
                           classes, data),
               {}, "w");
    const RunConfig& run = loaded.config;
    const io::Dataset train = open_data(run, run.data.train, DataUse::training, 1);
    std::optional<io::Dataset> eval;
    if (!run.data.eval.files.empty()) eval.emplace(open_data(run, run.data.eval.files, DataUse::evaluation, 1));
    const models::StoredPorts stored = stored_ports(train);
    return data_warnings(run, models::build(run.model, 2, DType::f32, stored), stored, train, eval ? &*eval : nullptr);
  }
  static constexpr const char* scaled = ", normalize: {scale: 0.0039, mean: 0.5, standard_deviation: 0.25}";
};

TEST_F(Warnings, ValuesFarFromZeroAndOne) {
  write("a.h5");
  const std::string train = "train: " + path("a.h5");
  EXPECT_TRUE(warnings(train + scaled).empty());
  const auto raw = warnings(train);
  ASSERT_EQ(raw.size(), 1u);
  EXPECT_TRUE(raw[0].starts_with("the values of the input have mean 12")) << raw[0];
  EXPECT_NE(raw[0].find(", far from 0 and 1: they are bytes without a scale; set data.normalize to {scale: 0.0039215"),
            std::string::npos)
      << raw[0];
  const auto multiplied = warnings(train + ", normalize: {scale: 255}");
  ASSERT_EQ(multiplied.size(), 1u);
  EXPECT_TRUE(multiplied[0].ends_with("data.normalize.scale multiplies; to divide by 255 write 0.00392156862745098"))
      << multiplied[0];
  const auto shifted = warnings(train + ", normalize: {scale: 0.0039, mean: 100}");
  ASSERT_EQ(shifted.size(), 1u);
  EXPECT_TRUE(shifted[0].ends_with("`dtrain data inspect` prints a line for data.normalize")) << shifted[0];
  const auto unscaled =
      warnings(train + ", normalize: {mean: [0.485, 0.456, 0.406], standard_deviation: [0.229, 0.224, 0.225]}");
  ASSERT_EQ(unscaled.size(), 1u);
  EXPECT_NE(unscaled[0].find("but there is no scale: 0.0039215"), std::string::npos) << unscaled[0];
  EXPECT_EQ(warnings(train + ", normalize: {scale: 0.00001, mean: 0}").size(), 1u) << "scaled twice";
}

TEST_F(Warnings, FarMoreClassesThanLabels) {
  write("a.h5");
  const std::string train = "train: " + path("a.h5") + scaled;
  EXPECT_TRUE(warnings(train, 5).empty());
  const auto texts = warnings(train, 1000);
  ASSERT_EQ(texts.size(), 1u);
  EXPECT_EQ(texts[0],
            path("a.h5") + ": the labels in /y_train go from 0 to 2, and the model has 1000 classes: did you mean 3?");
}

TEST_F(Warnings, WarmUpLongerThanTheRun) {
  RunConfig run;
  run.schedule.warmup_steps = 71;
  EXPECT_EQ(schedule_warning(run, 71), "");
  EXPECT_EQ(schedule_warning(run, 0), "");
  EXPECT_EQ(schedule_warning(run, 70),
            "schedule.warmup_steps is 71, and the run has 70 steps: it ends before the learning rate has risen to its "
            "full value");
}

TEST_F(Warnings, EvaluationOnFilesOfTraining) {
  write("a.h5");
  write("b.h5", 100);
  std::filesystem::create_symlink(path("b.h5"), path("link.h5"));
  EXPECT_TRUE(warnings("train: " + path("a.h5") + ", eval: " + path("a.h5") + scaled).empty()) << "the two halves";
  const auto keyed = [&](const std::string& train, const std::string& eval) {
    return warnings("train: " + train + ", eval: " + eval +
                    ", sample_key: /x_train, target_key: /y_train, normalize: {scale: 0.0039}");
  };
  EXPECT_TRUE(keyed(path("a.h5"), path("b.h5")).empty());
  const auto same = keyed(path("a.h5"), path("a.h5"));
  ASSERT_EQ(same.size(), 1u);
  EXPECT_NE(same[0].find("are the same samples ("), std::string::npos) << same[0];
  const auto both = keyed("['" + path("a.h5") + "', '" + path("b.h5") + "']", path("link.h5"));
  ASSERT_EQ(both.size(), 1u);
  EXPECT_EQ(both[0],
            "data.eval and data.train both read " + path("link.h5") + ": the evaluation tests on samples of training");
}

TEST_F(Warnings, AFileOfTwoPathsIsRefused) {
  write("a.h5");
  std::filesystem::create_hard_link(path("a.h5"), path("b.h5"));
  for (const std::string& other : {path("b.h5"), path("./a.h5")}) {
    try {
      warnings("train: ['" + path("a.h5") + "', '" + other + "']");
      ADD_FAILURE() << other;
    } catch (const DataError& e) {
      EXPECT_EQ(std::string(e.what()),
                other + ": is the same file as " + path("a.h5") + "; each shard may appear once");
    }
  }
}

}  // namespace
}  // namespace dtrain::launch
