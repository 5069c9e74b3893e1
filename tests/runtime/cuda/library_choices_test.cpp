// What the CUDA device's kernels ask of cuBLASLt and cuDNN, and which way they go: with simulated libraries.
#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "runtime/ops/kernels.hpp"
#include "tests/runtime/cuda/simulated_device.hpp"

namespace dtrain::test {
namespace {

std::int64_t choices_with(Device& device, const std::string& text) {
  const AlgorithmChoices choices = device.kernels().choices();
  return std::count_if(choices.all().begin(), choices.all().end(),
                       [&](const auto& choice) { return choice.first.find(text) != std::string::npos; });
}

TEST(LibraryChoices, a_first_layer_measures_no_gradient_of_the_data) {
  const TensorDesc images{DType::f32, Shape{2, 64, 64, 4}};
  const Conv op{.filters = 8, .kernel = {3, 3}};
  for (const OpUse& use : {OpUse{false, false}, OpUse{true, false}, OpUse{true, true}}) {
    SimulatedDevice device;
    const std::size_t needs = device.kernels().prepare(op, {&images, 1}, use)->needs().workspace;
    EXPECT_EQ(choices_with(device, "data_gradient"), use.input_gradient ? 1 : 0);
    EXPECT_EQ(choices_with(device, "weight_gradient"), 1);
    // Room for a gradient that is to be added, only where one is.
    EXPECT_EQ(needs >= images.bytes(), use.input_gradient_added) << needs;
  }
  const TensorDesc features{DType::f32, Shape{4, 6}};
  SimulatedDevice first, later;
  first.kernels().prepare(Dense{.units = 3}, {&features, 1}, {false, false});
  later.kernels().prepare(Dense{.units = 3}, {&features, 1}, {});
  EXPECT_EQ(first.kernels().choices().all().size() + 1, later.kernels().choices().all().size());
}

TEST(LibraryChoices, who_only_evaluates_measures_nothing_of_training) {
  const TensorDesc in{DType::f32, Shape{3, 6, 6, 8}}, features{DType::f32, Shape{4, 6}};
  const OpUse evaluated{false, false, false};
  SimulatedDevice device;
  for (const OpSpec& op :
       std::vector<OpSpec>{Conv{.filters = 8, .kernel = {3, 3}}, BatchNorm{}, LayerNorm{}, MaxPool{}, AveragePool{}})
    device.kernels().prepare(op, {&in, 1}, evaluated);
  device.kernels().prepare(Dense{.units = 3}, {&features, 1}, evaluated);
  EXPECT_EQ(device.kernels().choices().all().size(), 3u);  // convolution, average pool and product, forward
  EXPECT_EQ(
      choices_with(device, "conv2d forward") + choices_with(device, "average_pool2d") + choices_with(device, "product"),
      3);
}

/// Norms and pools of an even number of channels have two engines with cuDNN here, the first of them wrong.
TEST(LibraryChoices, norms_and_pools_take_an_engine_only_where_it_gives_what_own_kernels_do) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const std::int64_t channels : {7, 8}) {
      const TensorDesc in{dtype, Shape{3, 6, 6, channels}};
      SimulatedDevice device;
      for (const OpSpec& op : std::vector<OpSpec>{BatchNorm{}, BatchNorm{1e-5, 0.1, Activation::relu}, LayerNorm{},
                                                  MaxPool{{3, 3}, {2, 2}, {1, 1}}, AveragePool{{3, 3}, {2, 2}, {1, 1}},
                                                  AveragePool{{3, 3}, {2, 2}, {1, 1}, false}, GlobalAveragePool{}})
        device.kernels().prepare(op, {&in, 1}, {});
      const AlgorithmChoices choices = device.kernels().choices();
      EXPECT_EQ(choices.all().size(), channels == 8 ? 10u : 0u);  // norms have two
      for (const auto& [key, engine] : choices.all()) EXPECT_EQ(engine, "eng1_k2=3") << key;
    }
  }
}

/// Heads of an even size have two engines with cuDNN here, the first of them wrong.
TEST(LibraryChoices, attention_takes_a_fused_graph_where_that_can_express_it) {
  const auto chosen = [](const Attention& op, std::vector<TensorDesc> in, const OpUse& use) {
    SimulatedDevice device;
    device.kernels().prepare(op, in, use);
    const AlgorithmChoices choices = device.kernels().choices();
    for (const auto& [key, engine] : choices.all()) EXPECT_EQ(engine, "eng1_k2=3") << key;
    return choices.all().size();
  };
  const Attention plain{.heads = 2};
  const TensorDesc documents{DType::i32, Shape{2, 9}};
  const OpUse evaluated{false, false, false};
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const TensorDesc in{dtype, Shape{2, 9, 48}};
    EXPECT_EQ(chosen(plain, {in}, {}), 2u);
    EXPECT_EQ(chosen({.heads = 4, .kv_heads = 2, .causal = false, .window = 3, .rotary = Rotary{}}, {in}, {}), 2u);
    EXPECT_EQ(chosen(plain, {in}, evaluated), 1u);
    EXPECT_EQ(chosen(plain, {{dtype, Shape{1, 60, 48}}}, {}), 2u);  // long sums, and none infinite
    EXPECT_EQ(chosen(plain, {{dtype, Shape{2, 9, 30}}}, {}), 0u);   // no engine for heads of 5 channels
    EXPECT_EQ(chosen(plain, {in, documents}, {}), 0u);
    EXPECT_EQ(chosen({.heads = 2, .dropout = 0.1}, {in}, {}), 0u);
    EXPECT_EQ(chosen({.heads = 2, .dropout = 0.1}, {in}, evaluated), 1u);
  }
  EXPECT_EQ(chosen(plain, {{DType::f32, Shape{2, 9, 48}}}, {}), 0u);
}

TEST(LibraryChoices, a_norm_without_a_gradient_to_give_has_no_graph_for_it) {
  const TensorDesc in{DType::f32, Shape{6, 8}};
  SimulatedDevice device;
  const auto first = device.kernels().prepare(BatchNorm{}, {&in, 1}, {false, false});
  EXPECT_FALSE(first->needs().gradients_apart);
  EXPECT_EQ(choices_with(device, "backward"), 0);
  EXPECT_EQ(choices_with(device, "forward"), 1);
  EXPECT_TRUE(device.kernels().prepare(BatchNorm{}, {&in, 1}, {})->needs().gradients_apart);
  EXPECT_EQ(choices_with(device, "backward"), 1);
  EXPECT_EQ(choices_with(device, " added"), 1);
  device.kernels().prepare(BatchNorm{}, {&in, 1}, {true, false});
  EXPECT_EQ(choices_with(device, "backward"), 2);  // without the pass that adds
}

TEST(LibraryChoices, norms_that_are_to_be_ours_ask_no_library) {
  const TensorDesc in{DType::f32, Shape{6, 8}};
  SimulatedDevice device(CudaOptions{.own_norms = true});
  for (const OpSpec& op : std::vector<OpSpec>{BatchNorm{}, LayerNorm{}})
    EXPECT_FALSE(device.kernels().prepare(op, {&in, 1}, {})->needs().gradients_apart);
  EXPECT_TRUE(device.kernels().choices().all().empty());
}

TEST(LibraryChoices, an_earlier_choice_of_own_kernels_stays) {
  const TensorDesc in{DType::f32, Shape{6, 8}};
  SimulatedDevice device;
  device.kernels().prepare(LayerNorm{}, {&in, 1}, {});
  const AlgorithmChoices measured = device.kernels().choices();
  AlgorithmChoices own;
  for (const auto& [key, engine] : measured.all()) own.set(key, "own");
  SimulatedDevice again;
  again.kernels().use(own);
  EXPECT_FALSE(again.kernels().prepare(LayerNorm{}, {&in, 1}, {})->needs().gradients_apart);
  EXPECT_EQ(again.kernels().choices(), own);
}

}  // namespace
}  // namespace dtrain::test
