// Samples of different lengths that do not fit: targets without positions, weights of other lengths.
#include <utility>
#include <vector>

#include "io/dataset/loader.hpp"
#include "tests/io/dataset/port_batch.hpp"
#include "tests/io/dataset/port_files.hpp"

namespace dtrain::io {
namespace {

using testing::add;
using testing::Folder;
using testing::H5File;
using testing::message_of;
using testing::PortBatch;

constexpr auto label = PortUse::target, weight = PortUse::weight;

/// Four samples of 2, 0, 3 and 1 positions; `other` has one of the third's in the second.
void write(const std::string& path) {
  H5File file(path);
  add(file, "next", {6}, std::vector<std::uint8_t>(6));
  add(file, "weights", {6}, std::vector<float>(6, 1));
  add(file, "starts", {5}, std::vector<std::int32_t>{0, 2, 2, 5, 6});
  add(file, "other", {5}, std::vector<std::int32_t>{0, 2, 3, 5, 6});
}

TEST(RaggedFit, ATargetOfFeaturesIsRefused) {
  const Folder folder;
  write(folder / "a.h5");
  PortBatch ports;
  ports.port(label, "weights", DType::f32, {3}, "weights", "starts");
  ports.port(weight, "ones", DType::f32, {}, "-").target = 0;
  const Dataset set = ports.open({folder / "a.h5"});
  EXPECT_HAS(message_of<ShapeError>([&] { Loader::training(set, ports.of(2)); }),
             "a.h5: /weights has samples of different lengths, but the target weights is [3], without positions, which "
             "the model gives whole; expected a row of 3 a sample");
}

TEST(RaggedFit, WeightsAreAsLongAsTheirTarget) {
  const Folder folder;
  write(folder / "a.h5");
  for (const auto& [starts, same] : {std::pair{"starts", true}, {"other", false}}) {
    PortBatch ports;
    ports.port(label, "next", DType::i32, {3}, "next", "starts").ignore = -1;
    ports.port(weight, "weights", DType::f32, {3}, "weights", starts).target = 0;
    const Dataset set = ports.open({folder / "a.h5"});
    if (same) {
      Loader::training(set, ports.of(2));
      continue;
    }
    EXPECT_HAS(message_of([&] { Loader::training(set, ports.of(2)); }),
               "a.h5: /weights, row 1: it has 1 positions, but /next has 0 there");
  }
}

}  // namespace
}  // namespace dtrain::io
