#include "io/weights/weights.hpp"

#include <cmath>

#include "io/weights/safetensors.hpp"
#include "tests/io/checkpoint/checkpoint_support.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"

namespace dtrain::test {
namespace {

using io::StartWeights;
using io::testing::message_of;
using Names = std::vector<std::string>;

constexpr auto all = [](const std::string&) { return true; };

/// A model of three tensors that begin as zeros.
struct Model {
  std::vector<float> weight = std::vector<float>(6), bias = std::vector<float>(2), variance = std::vector<float>(3);
  std::vector<io::StateTensor> tensors() {
    return {{"param/dense_1.weight", DType::f32, {2, 3}, weight.data()},
            {"param/dense_1.bias", DType::f32, {2}, bias.data()},
            {"state/norm.running_variance", DType::f32, {3}, variance.data()}};
  }
};

void write_safetensors(const std::string& path, std::vector<io::SafeTensor> tensors, const std::vector<float>& values) {
  io::SafeTensorsWriter writer(path, std::move(tensors), {});
  writer.write(std::as_bytes(std::span(values)));
  writer.commit();
}

TEST(StartWeights, OfPyTorchsNamesAndOfOtherShapes) {
  Scratch scratch;
  const auto path = scratch / "a.safetensors";
  write_safetensors(path,
                    {{"dense_1.weight", "F32", {2, 3}},
                     {"norm.running_var", "F32", {3}},
                     {"dense_1.bias", "F32", {1}},
                     {"head.weight", "F32", {1}}},
                    {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  Model model;
  const auto tensors = model.tensors();
  const auto result = io::load_weights(path, "", tensors, all);
  EXPECT_EQ(result.source, path);
  EXPECT_EQ(result.taken, (Names{"dense_1.weight", "norm.running_var"}));
  EXPECT_EQ(result.other_shape, Names{"dense_1.bias is [1] there and [2] here"});
  EXPECT_EQ(result.unused, Names{"head.weight"});
  EXPECT_TRUE(result.absent.empty());
  EXPECT_EQ(model.weight, (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(model.variance, (std::vector<float>{7, 8, 9}));
  EXPECT_EQ(model.bias, (std::vector<float>{0, 0}));
}

TEST(StartWeights, WhatIsSkippedStaysAsItIs) {
  Scratch scratch;
  const auto path = scratch / "a.safetensors";
  write_safetensors(path, {{"dense_1.weight", "F32", {2, 3}}, {"dense_1.bias", "F32", {2}}}, {1, 2, 3, 4, 5, 6, 7, 8});
  Model model;
  const auto tensors = model.tensors();
  const auto result = io::load_weights(path, "", tensors, [](const auto& name) { return name != "dense_1.weight"; });
  EXPECT_EQ(result.taken, Names{"dense_1.bias"});
  EXPECT_EQ(result.absent, Names{"norm.running_var"});
  EXPECT_TRUE(result.unused.empty()) << "what is skipped is of the model";
  EXPECT_EQ(model.weight, std::vector<float>(6));
  EXPECT_EQ(model.bias, (std::vector<float>{7, 8}));
}

TEST(StartWeights, WhatCannotBeMeantIsAnError) {
  Scratch scratch;
  const auto path = scratch / "a.safetensors";
  Model model;
  const auto tensors = model.tensors();
  write_safetensors(path, {{"fc.weight", "F32", {1}}}, {1});
  const auto text = message_of<DataError>([&] { io::load_weights(path, "", tensors, all); });
  EXPECT_HAS(text, "a.safetensors: has nothing for this model: its tensors are fc.weight; those of the model are");
  write_safetensors(path, {{"dense_1.weight", "F32", {3, 2}}}, {1, 2, 3, 4, 5, 6});
  EXPECT_HAS(message_of<DataError>([&] { io::load_weights(path, "", tensors, all); }),
             "dense_1.weight is [3, 2] there and [2, 3] here");
  write_safetensors(path, {{"dense_1.bias", "F32", {2}}}, {1, NAN});
  EXPECT_HAS(message_of<DataError>([&] { io::load_weights(path, "", tensors, all); }),
             "dense_1.bias has numbers that are not finite");
  EXPECT_THROW(io::load_weights(scratch / "absent", "", tensors, all), CheckpointError);
  write_file(path, "no tensors");
  EXPECT_THROW(io::load_weights(path, "", tensors, all), DataError);
}

/// Each source of one checkpoint gives the same, the moving average where there is one.
TEST(StartWeights, OfCheckpointsAndOfWhatIsMadeOfThem) {
  Scratch scratch;
  const auto directory = scratch / "run/checkpoints";
  SmallState state(7);
  state.add("ema/dense_1.weight", DType::f32, {33, 61}, 57);
  state.add("ema/dense_1.bias", DType::f32, {61}, 57);
  {
    SoloGroup group;
    io::CheckpointWriter writer(group, config_for(directory), "run");
    ASSERT_TRUE(save_and_finish(writer, 7, state).durable);
  }
  io::export_checkpoint(directory, scratch / "a.h5", false);
  io::export_checkpoint(directory, scratch / "a.safetensors", false, io::ExportFormat::safetensors);
  for (const auto& from :
       {scratch / "run", directory, directory + "/step-000000007", scratch / "a.h5", scratch / "a.safetensors"}) {
    std::vector<float> weight(33 * 61), bias(61);
    const std::vector<io::StateTensor> tensors{{"param/dense_1.weight", DType::f32, {33, 61}, weight.data()},
                                               {"param/dense_1.bias", DType::f32, {61}, bias.data()}};
    const auto result = io::load_weights(from, "", tensors, all);
    EXPECT_EQ(result.taken.size(), 2u) << from;
    EXPECT_EQ(std::memcmp(weight.data(), state.entries[8].bytes.data(), state.entries[8].bytes.size()), 0) << from;
    EXPECT_EQ(std::memcmp(bias.data(), state.entries[9].bytes.data(), state.entries[9].bytes.size()), 0) << from;
  }
}

}  // namespace
}  // namespace dtrain::test
