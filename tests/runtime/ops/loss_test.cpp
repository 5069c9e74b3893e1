// What losses promise beside their values: labels of any type, weights of samples and positions, ignored labels, seeds,
// more positions than parts of a sum, messages.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "runtime/ops/loss_rows.hpp"
#include "runtime/tensor/error.hpp"
#include "tests/support/devices.hpp"
#include "tests/support/op_table.hpp"

namespace dtrain {
namespace {

using test::OpRow;
using test::OpRun;

class Losses : public testing::TestWithParam<test::AvailableDevice> {
 protected:
  std::unique_ptr<Device> device_ = GetParam().make();
};
INSTANTIATE_TEST_SUITE_P(Devices, Losses, testing::ValuesIn(test::available_devices()),
                         [](const auto& instance) { return instance.param.name; });

TensorDesc values(Shape shape) {
  return {DType::f32, shape, {}};
}
OpRow entropy(SoftmaxCrossEntropy op, Shape logits) {
  return {"entropy", 7, op, values(logits)};
}
OpRow squares(Shape prediction) {
  return {"squares", 8, MeanSquaredError{}, values(prediction)};
}

std::vector<float> both(OpRun& run) {
  run.forward();
  run.backward(Write::overwrite, Write::overwrite);
  auto all = run.out();
  const auto grad = run.grad_in();
  all.insert(all.end(), grad.begin(), grad.end());
  return all;
}

TEST_P(Losses, read_labels_of_any_type) {
  std::vector<std::vector<float>> seen;
  for (const DType type : {DType::i32, DType::u16, DType::u8}) {
    OpRow row = entropy({}, Shape{3, 4, 5, 6});
    row.labels = type;
    OpRun run(*device_, row);
    seen.push_back(both(run));
  }
  EXPECT_EQ(seen[1], seen[0]);
  EXPECT_EQ(seen[2], seen[0]);
}

TEST_P(Losses, take_a_weight_of_a_sample_as_one_of_all_its_positions) {
  for (OpRow row : {entropy({0.1, 2}, Shape{3, 4, 5, 6}), squares(Shape{3, 20, 4})}) {
    OpRun whole(*device_, row);
    row.weighs_positions = true;
    OpRun each(*device_, row);
    for (std::size_t i = 0; i < each.weights.size(); ++i) each.weights[i] = whole.weights[i / 20];
    EXPECT_EQ(both(each), both(whole));
  }
}

TEST_P(Losses, ignored_labels_take_part_in_nothing) {
  OpRow row = entropy({0, 255}, Shape{2, 7, 6});
  row.labels = DType::u8;
  row.weighs_positions = true;
  OpRun run(*device_, row), masked(*device_, row);
  run.weights.assign(14, 1);
  masked.weights.assign(14, 1);
  for (const std::size_t p : {std::size_t{1}, std::size_t{6}, std::size_t{9}}) {
    run.labels[p] = 255;
    for (std::size_t c = 0; c < 6; ++c) run.x[p * 6 + c] = NAN;
    masked.weights[p] = 0;
  }
  const auto sums = both(run);
  EXPECT_EQ(sums, both(masked));
  EXPECT_EQ(sums[weight_sum], 11);
  EXPECT_EQ(sums[position_sum], 11);
  for (std::size_t c = 0; c < 6; ++c) EXPECT_EQ(run.grad_in()[6 + c], 0.0f);
  run.set_grads(3);
  run.backward(Write::accumulate, Write::none);
  EXPECT_EQ(run.grad_in()[6], 3.0f);
  run.labels[0] = 200;  // no class either, but not the one that is ignored
  run.forward();
  EXPECT_TRUE(std::isnan(run.out()[loss_sum]));
  // All of them: sums of nothing.
  run.labels.assign(14, 255);
  for (const float f : both(run)) EXPECT_EQ(f, 0.0f);
}

TEST_P(Losses, weights_scale_the_loss_and_not_what_is_counted) {
  OpRow row = entropy({}, Shape{2, 7, 6});
  OpRun one(*device_, row), four(*device_, row);
  one.weights.assign(2, 1);
  four.weights.assign(2, 4);
  const auto a = both(one), b = both(four);
  for (std::size_t i = 0; i < a.size(); ++i)
    EXPECT_EQ(b[i], (i == correct_sum || i == top5_sum || i == position_sum ? 1.0f : 4.0f) * a[i]) << i;
  EXPECT_EQ(a[position_sum], 14);
}

TEST_P(Losses, gradients_have_the_seed_of_their_loss) {
  for (const OpRow& row : {entropy({0.1, 2}, Shape{3, 9, 6}), squares(Shape{3, 9, 4})}) {
    OpRun run(*device_, row);
    run.step.loss_seed[0] = 7;
    run.step.loss_seed[2] = 1;
    run.loss = 2;
    const auto expected = both(run);
    run.step.loss_scale = 16;
    run.step.loss_seed[2] = 0.125f;
    const auto seen = both(run);
    for (std::size_t i = 0; i < seen.size(); ++i)
      EXPECT_EQ(seen[i], (i < loss_sum_count ? 1.0f : 2.0f) * expected[i]) << i;
    run.step.loss_seed[2] = 0;
    run.backward(Write::overwrite, Write::none);
    for (const float g : run.grad_in()) EXPECT_EQ(g, 0.0f);
  }
}

TEST_P(Losses, add_up_more_positions_than_parts) {
  const std::int64_t length = most_loss_parts / 2 + 1001;
  OpRow row = entropy({}, Shape{2, length, 2});
  row.weighs_positions = true;
  OpRun run(*device_, row);
  run.forward();
  const auto out = run.out();
  double loss = 0, weight = 0, count = 0;
  for (std::size_t p = 0; p < run.labels.size(); ++p) {
    const auto a = static_cast<double>(run.x[2 * p]), b = static_cast<double>(run.x[2 * p + 1]);
    const auto w = static_cast<double>(run.weights[p]);
    loss += w * (std::log(std::exp(a) + std::exp(b)) - (run.labels[p] == 0 ? a : b));
    weight += w;
    count += w > 0;
  }
  EXPECT_NEAR(out[loss_sum], loss, 1e-6 * loss);
  EXPECT_EQ(out[weight_sum], static_cast<float>(weight));
  EXPECT_EQ(out[position_sum], static_cast<float>(count));
  OpRun squared(*device_, squares(Shape{2, length, 1}));
  squared.forward();
  double sum = 0;
  for (std::size_t p = 0; p < squared.x.size(); ++p)
    sum += static_cast<double>(p < squared.x.size() / 2 ? 0 : 1) *
           std::pow(static_cast<double>(squared.x[p] - squared.targets[p]), 2);
  EXPECT_NEAR(squared.out()[loss_sum], sum, 1e-6 * sum);
}

/// Of one row, in float64, and the size of the terms that each gradient is a difference of.
struct Entropy {
  double loss = 0;
  std::vector<double> gradient, terms;
};
Entropy entropy_of(const std::vector<float>& x, std::size_t label, double smoothing) {
  const auto at = [&](std::size_t c) { return static_cast<double>(x[c]); };
  const auto classes = static_cast<double>(x.size()),
             largest = static_cast<double>(*std::max_element(x.begin(), x.end()));
  double others = 0, mean = 0;
  for (std::size_t c = 0; c < x.size(); ++c) {
    if (c != label) others += std::exp(at(c) - largest);
    mean += (at(c) - largest) / classes;
  }
  const double own = at(label) - largest, sum = others + std::exp(own), share = smoothing / classes;
  Entropy result;
  result.loss = (own < 0 ? std::log(sum) : std::log1p(others)) - (1 - smoothing) * own - smoothing * mean;
  for (std::size_t c = 0; c < x.size(); ++c) {
    const double first = c == label ? -others / sum : std::exp(at(c) - largest) / sum;
    const double second = c == label ? smoothing - share : -share;
    result.gradient.push_back(first + second);
    result.terms.push_back(std::abs(first) + std::abs(second));
  }
  return result;
}

TEST_P(Losses, of_classes_have_all_their_digits_wherever_the_logits_lie) {
  // The label's logit is base + own, the others are base + step * (0 to 7); all of them are floats.
  const struct {
    const char* name;
    float base, step, own;
    double smoothing = 0;
  } table[] = {
      {"ordinary", 0, 0.25f, 1},
      {"ordinary, smoothed", 0, 0.25f, 1, 0.1},
      {"equal", 0, 0, 0},
      {"near 1e6", 1e6f, 0.25f, 1},
      {"near 1e6, the label's is the largest", 1e6f, 0.25f, 4},
      {"near 1e6, equal", 1e6f, 0, 0},
      {"near 1e6, smoothed", 1e6f, 0.25f, 1, 0.1},
      {"near -1e6", -1e6f, 0.25f, 1},
      {"near 1e8", 1e8f, 8, 16},
      {"near 1e8, the label's is the largest", 1e8f, 8, 64},
      {"near 1e8, equal", 1e8f, 0, 0},
      {"near 1e8, smoothed", 1e8f, 8, 16, 0.1},
      {"near -1e8", -1e8f, 8, 16},
      {"a loss near 1e-4", 0, 0.125f, 12},
      {"a loss near 1e-9", 0, 0.125f, 24},
      {"a loss near 1e-9, near 1e6", 1e6f, 0.125f, 24},
      {"a loss near 1e-16", 0, 0.125f, 40},
      {"a loss of 40", 0, 0.125f, -40},
      {"a loss near 0, smoothed", 0, 0.125f, 24, 0.1},
  };
  for (const auto& [name, base, step, own, smoothing] : table)
    for (const std::int64_t classes : {10, 35, 1500}) {
      OpRun run(*device_, entropy({smoothing}, Shape{1, classes}));
      run.weights = {1};
      const auto n = static_cast<std::size_t>(classes);
      for (const std::size_t label : {std::size_t{0}, std::size_t{3}, n / 2, n - 1}) {
        for (std::size_t c = 0; c < n; ++c) run.x[c] = base + (c == label ? own : step * static_cast<float>(c % 8));
        run.labels = {static_cast<std::int32_t>(label)};
        const Entropy expected = entropy_of(run.x, label, smoothing);
        const auto seen = both(run);
        EXPECT_NEAR(seen[loss_sum], expected.loss, 1e-6 * expected.loss) << name << ", " << label << " of " << n;
        double worst = 0;  // e^x is bounded at e^-60
        for (std::size_t c = 0; c < n; ++c) {
          const double error = static_cast<double>(seen[loss_sum_count + c]) - expected.gradient[c];
          worst = std::max(worst, std::abs(error) / (expected.terms[c] + 1e-18));
        }
        EXPECT_LT(worst, 1e-6) << name << ", " << label << " of " << n;
      }
    }
}

TEST_P(Losses, of_classes_that_are_shut_out_are_those_of_the_others) {
  OpRun run(*device_, entropy({}, Shape{1, 10})), others(*device_, entropy({}, Shape{1, 8}));
  run.weights = others.weights = {1};
  run.labels = others.labels = {5};
  for (std::size_t c = 0; c < 8; ++c) run.x[c] = others.x[c];
  run.x[8] = run.x[9] = -std::numeric_limits<float>::infinity();
  const auto expected = both(others), seen = both(run);
  EXPECT_NEAR(seen[loss_sum], expected[loss_sum], 1e-6f * expected[loss_sum]);
  for (std::size_t c = 0; c < 10; ++c)
    EXPECT_NEAR(seen[loss_sum_count + c], c < 8 ? expected[loss_sum_count + c] : 0.0f, 1e-6f) << c;
  run.x[8] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(std::isnan(both(run)[loss_sum]));
  EXPECT_TRUE(std::isnan(run.grad_in()[0]));
}

std::string error_of(const OpSpec& op, std::vector<TensorDesc> in) {
  try {
    infer(op, in);
  } catch (const ShapeError& e) {
    return e.what();
  }
  return {};
}

TEST(LossShapes, say_what_does_not_fit) {
  const TensorDesc images = values(Shape{2, 4, 5, 3}), one{DType::f32, Shape{2}};
  const TensorDesc labels{DType::u8, Shape{2, 4, 5}}, each{DType::f32, Shape{2, 4, 5}};
  EXPECT_EQ(error_of(SoftmaxCrossEntropy{}, {images, labels, one}), "");
  EXPECT_EQ(error_of(SoftmaxCrossEntropy{}, {images, labels, each}), "");
  EXPECT_EQ(error_of(SoftmaxCrossEntropy{}, {values(Shape{2, 3}), {DType::u16, Shape{2}}, one}), "");
  EXPECT_EQ(error_of(SoftmaxCrossEntropy{}, {images, {DType::i32, Shape{2}}, one}),
            "the labels are int32, one a sample; expected int32, uint16 or uint8, [4, 5] a sample");
  EXPECT_EQ(error_of(SoftmaxCrossEntropy{}, {values(Shape{2, 3}), {DType::f32, Shape{2}}, one}),
            "the labels are float32, one a sample; expected int32, uint16 or uint8, one a sample");
  EXPECT_EQ(error_of(SoftmaxCrossEntropy{}, {images, labels, {DType::f32, Shape{2, 5, 4}}}),
            "the weights are float32, [5, 4] a sample; expected float32, one a sample or [4, 5] a sample");
  EXPECT_EQ(error_of(MeanSquaredError{}, {values(Shape{2, 3}), values(Shape{2, 3}), {DType::f32, Shape{2, 3}}}),
            "the weights are float32, [3] a sample; expected float32, one a sample");
  EXPECT_EQ(error_of(MeanSquaredError{}, {images, values(Shape{2, 4, 4, 3}), one}),
            "the prediction is [3, 4, 5] and the target [3, 4, 4]; expected equal shapes");
  EXPECT_EQ(error_of(MeanSquaredError{}, {images, {DType::bf16, Shape{2, 4, 5, 3}}, one}),
            "the target is bfloat16; expected float32");
  EXPECT_EQ(error_of(SoftmaxCrossEntropy{}, {labels, labels, one}),
            "its input is uint8; expected float32, bfloat16 or float16: put an embedding before it");
  EXPECT_EQ(error_of(SoftmaxCrossEntropy{1.0}, {images, labels, one}),
            "label smoothing 1; expected 0 <= smoothing < 1");
  TensorDesc flattened = values(Shape{2, 60});
  flattened.flattened = {3, 20};
  EXPECT_EQ(error_of(MeanSquaredError{}, {flattened, flattened, one}),
            "its input is a flattened image; put a dense layer before the loss");
}

}  // namespace
}  // namespace dtrain
