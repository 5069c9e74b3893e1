// What the CUDA device's kernels ask of cuBLASLt and cuDNN, and which way they go: with simulated libraries.
#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "tests/runtime/cuda/simulated_device.hpp"

namespace dtrain::test {
namespace {

std::int64_t choices_with(const Device& device, const std::string& text) {
  const AlgorithmChoices choices = device.choices();
  return std::count_if(choices.all().begin(), choices.all().end(),
                       [&](const auto& choice) { return choice.first.find(text) != std::string::npos; });
}

TEST(LibraryChoices, a_first_layer_measures_no_gradient_of_the_data) {
  const TensorDesc images{DType::f32, Shape{2, 4, 64, 64}, Layout::channels_last, {}};
  const Conv2d op{.filters = 8, .kernel = {3, 3}};
  for (const OpUse& use : {OpUse{false, false}, OpUse{true, false}, OpUse{true, true}}) {
    SimulatedDevice device;
    const std::size_t needs = device.prepare(op, {&images, 1}, use)->needs().workspace;
    EXPECT_EQ(choices_with(device, "data_gradient"), use.input_gradient ? 1 : 0);
    EXPECT_EQ(choices_with(device, "weight_gradient"), 1);
    // Room for a gradient that is to be added, only where one is.
    EXPECT_EQ(needs >= images.bytes(), use.input_gradient_added) << needs;
  }
  const TensorDesc features{DType::f32, Shape{4, 6}};
  SimulatedDevice first, later;
  first.prepare(Linear{.units = 3}, {&features, 1}, {false, false});
  later.prepare(Linear{.units = 3}, {&features, 1}, {});
  EXPECT_EQ(first.choices().all().size() + 1, later.choices().all().size());
}

}  // namespace
}  // namespace dtrain::test
