// Every row of the op table on the CPU device: values and gradients against PyTorch and finite differences, write
// rules, determinism.
#include <cmath>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "runtime/error.hpp"
#include "tests/support/op_table.hpp"

namespace dtrain {
namespace {

using test::OpRow;
using test::OpRun;

/// Against PyTorch in double: sums of at most a few hundred f32 products.
constexpr double value_tolerance = 1e-5;
/// Finite differences of an f32 forward pass, directional, accumulated in double.
constexpr double difference_tolerance = 5e-3;
/// Where a parameter moves many units of a relu, some cross its kink within the step.
constexpr double kink_tolerance = 3e-2;

const nlohmann::json& goldens() {
  static const nlohmann::json json = nlohmann::json::parse(std::ifstream("tests/golden/ops.json"));
  return json;
}

class Ops : public testing::TestWithParam<OpRow> {
 protected:
  std::unique_ptr<Device> device_ = make_cpu_device(1);
  OpRun run_{*device_, GetParam()};
  bool loss() const { return is_loss(GetParam().op); }
  std::size_t params() const { return run_.shape().params.size(); }
};

TEST_P(Ops, value_and_gradients_are_pytorchs) {
  const auto& golden = goldens().at(GetParam().name);
  ASSERT_EQ(golden.at("seed").get<std::uint64_t>(), GetParam().seed);
  run_.forward();
  if (loss()) {
    const auto sums = golden.at("sums").get<std::vector<float>>();
    const auto out = run_.out();
    for (std::size_t i = 0; i < sums.size(); ++i) EXPECT_NEAR(out[i], sums[i], value_tolerance * std::abs(sums[i]));
  } else {
    EXPECT_LE(test::relative_error(run_.out(), golden.at("out")), value_tolerance);
  }
  run_.backward(Write::overwrite, Write::overwrite);
  EXPECT_LE(test::relative_error(run_.grad_in(), golden.at("grad_in")), value_tolerance);
  for (std::size_t p = 0; p < params(); ++p)
    EXPECT_LE(test::relative_error(run_.grad_param(p), golden.at("grad_params").at(p)), value_tolerance) << p;
}

/// The scalar that the gradients belong to: a loss, or the output's product with its gradient.
double scalar(OpRun& run, bool loss) {
  run.forward();
  const auto out = run.out();
  if (loss) return static_cast<double>(out[loss_sum]);
  const auto direction = run.grad_out_values();
  double sum = 0;
  for (std::size_t i = 0; i < out.size(); ++i) sum += static_cast<double>(out[i]) * static_cast<double>(direction[i]);
  return sum;
}

/// Central difference along a drawn direction, against the gradient's product with it.
void expect_difference(OpRun& run, std::vector<float>& values, const std::vector<float>& gradient, bool loss,
                       std::uint64_t seed, double tolerance) {
  constexpr float h = 1e-3f;
  double largest = 0;
  for (std::uint64_t trial = 0; trial < 3; ++trial) {
    // A few elements at a time: less chance of crossing a kink than moving all.
    const auto direction = test::signed_draws(seed, 900 + trial, static_cast<std::int64_t>(values.size()));
    const auto before = values;
    double expected = 0, norm = 0;
    std::vector<bool> moved(values.size());
    for (std::size_t i = trial; i < values.size(); i += 1 + values.size() / 12) {
      expected += static_cast<double>(gradient[i]) * static_cast<double>(direction[i]);
      norm += std::abs(static_cast<double>(gradient[i]) * static_cast<double>(direction[i]));
      moved[i] = true;
    }
    const auto shifted = [&](float by) {
      for (std::size_t i = 0; i < values.size(); ++i)
        if (moved[i]) values[i] = before[i] + by * direction[i];
      const double s = scalar(run, loss);
      values = before;
      return s;
    };
    const double difference = (shifted(h) - shifted(-h)) / (2 * static_cast<double>(h));
    EXPECT_NEAR(difference, expected, tolerance * std::max(norm, 0.2)) << "trial " << trial;
    largest = std::max(largest, norm);
  }
  EXPECT_GT(largest, 0.0) << "the check moved nothing";
}

TEST_P(Ops, gradients_are_those_of_finite_differences) {
  if (std::holds_alternative<MaxPool2d>(GetParam().op))
    for (float& v : run_.x) v *= 8.0f;  // near-equal maxima further apart than the step
  run_.forward();
  run_.backward(Write::overwrite, Write::overwrite);
  const auto grad_in = run_.grad_in();
  std::vector<std::vector<float>> grads;
  for (std::size_t p = 0; p < params(); ++p) grads.push_back(run_.grad_param(p));
  const double tolerance = has_epilogue(GetParam().op) ? kink_tolerance : difference_tolerance;
  expect_difference(run_, run_.x, grad_in, loss(), GetParam().seed, tolerance);
  for (std::size_t p = 0; p < params(); ++p)
    expect_difference(run_, run_.params[p], grads[p], loss(), GetParam().seed, tolerance);
}

TEST_P(Ops, two_runs_give_the_same_bits) {
  std::vector<std::vector<float>> first;
  for (int pass = 0; pass < 2; ++pass) {
    run_.poison();
    run_.forward();
    std::vector<std::vector<float>> seen{run_.out()};
    run_.backward(Write::overwrite, Write::overwrite);
    seen.push_back(run_.grad_in());
    for (std::size_t p = 0; p < params(); ++p) seen.push_back(run_.grad_param(p));
    if (pass == 0) first = seen;
    EXPECT_EQ(first, seen);
  }
}

TEST_P(Ops, accumulating_adds_to_what_is_there) {
  run_.forward();
  run_.backward(Write::overwrite, Write::overwrite);
  auto grad_in = run_.grad_in();
  std::vector<std::vector<float>> grads;
  for (std::size_t p = 0; p < params(); ++p) grads.push_back(run_.grad_param(p));
  run_.set_grads(0.5f);
  run_.backward(Write::accumulate, Write::accumulate);
  const auto plus_half = [](std::vector<float> v) {
    for (float& f : v) f += 0.5f;
    return v;
  };
  EXPECT_LE(test::relative_error(run_.grad_in(), plus_half(grad_in)), 1e-6);
  for (std::size_t p = 0; p < params(); ++p)
    EXPECT_LE(test::relative_error(run_.grad_param(p), plus_half(grads[p])), 1e-6) << p;
}

TEST_P(Ops, slots_of_none_are_left_alone) {
  run_.forward();
  run_.set_grads(7.0f);
  run_.backward_activation();
  const auto all_seven = [](const std::vector<float>& v) {
    return std::all_of(v.begin(), v.end(), [](float f) { return f == 7.0f; });
  };
  run_.backward_only(Write::none, std::vector<Write>(params(), Write::none));
  EXPECT_TRUE(all_seven(run_.grad_in()));
  for (std::size_t one = 0; one < params(); ++one) {
    std::vector<Write> writes(params(), Write::none);
    writes[one] = Write::overwrite;
    run_.set_grads(7.0f);
    run_.backward_only(Write::none, writes);
    EXPECT_TRUE(all_seven(run_.grad_in()));
    for (std::size_t p = 0; p < params(); ++p) EXPECT_EQ(all_seven(run_.grad_param(p)), p != one);
  }
}

TEST_P(Ops, two_threads_agree_with_one) {
  const auto two = make_cpu_device(2);
  OpRun other(*two, GetParam());
  for (OpRun* run : {&run_, &other}) {
    run->forward();
    run->backward(Write::overwrite, Write::overwrite);
  }
  EXPECT_LE(test::relative_error(other.out(), run_.out()), 1e-6);
  EXPECT_LE(test::relative_error(other.grad_in(), run_.grad_in()), 1e-6);
  for (std::size_t p = 0; p < params(); ++p)
    EXPECT_LE(test::relative_error(other.grad_param(p), run_.grad_param(p)), 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Table, Ops, testing::ValuesIn(test::op_table()),
                         [](const auto& instance) { return instance.param.name; });

// ---- what single ops promise ----------------------------------------------------------------------------------------

const OpRow& row(const std::string& name) {
  for (const auto& r : test::op_table())
    if (r.name == name) return r;
  throw BugError("no such row: " + name);
}

class OneOp : public testing::Test {
 protected:
  std::unique_ptr<Device> device_ = make_cpu_device(1);
};

TEST_F(OneOp, losses_of_later_micro_batches_are_added) {
  for (const char* name : {"softmax_cross_entropy", "mean_squared_error"}) {
    OpRun run(*device_, row(name));
    run.forward();
    const auto once = run.out();
    run.forward({Mode::train, false, true});
    const auto twice = run.out();
    for (std::size_t i = 0; i < once.size(); ++i) EXPECT_EQ(twice[i], 2 * once[i]) << name;
  }
}

TEST_F(OneOp, padding_does_not_count_whatever_it_holds) {
  for (const char* name : {"softmax_cross_entropy", "mean_squared_error"}) {
    OpRun run(*device_, row(name));
    run.forward();
    const auto expected = run.out();
    for (std::size_t i = 0; i < run.x.size() / run.weights.size(); ++i) run.x[i] = NAN;  // sample 0 has weight 0
    if (!run.labels.empty()) run.labels[0] = -1000;
    run.forward();
    EXPECT_EQ(run.out(), expected) << name;
    run.backward(Write::overwrite, Write::overwrite);
    EXPECT_EQ(run.grad_in()[0], 0.0f) << name;
  }
}

TEST_F(OneOp, a_label_out_of_range_makes_the_loss_nan) {
  for (const std::int32_t label : {-1, 10, 1 << 30}) {
    OpRun run(*device_, row("softmax_cross_entropy"));
    run.labels[1] = label;
    run.forward();
    EXPECT_TRUE(std::isnan(run.out()[loss_sum])) << label;
    run.backward(Write::overwrite, Write::overwrite);
    EXPECT_TRUE(std::isnan(run.grad_in()[10])) << label;
  }
}

TEST_F(OneOp, cross_entropy_holds_for_large_logits_and_shows_nan) {
  OpRun run(*device_, row("softmax_cross_entropy"));
  for (float& v : run.x) v *= 1e4f;
  run.forward();
  EXPECT_TRUE(std::isfinite(run.out()[loss_sum]));
  run.x[15] = NAN;
  run.forward();
  EXPECT_TRUE(std::isnan(run.out()[loss_sum]));
}

TEST_F(OneOp, nan_passes_pooling_and_relu) {
  OpRun pool(*device_, row("pool")), relu(*device_, row("relu"));
  pool.x[0] = NAN;
  relu.x[0] = NAN;
  pool.forward();
  relu.forward();
  EXPECT_TRUE(std::isnan(pool.out()[0]));
  EXPECT_TRUE(std::isnan(relu.out()[0]));
}

TEST_F(OneOp, equal_maxima_give_the_first_the_gradient) {
  OpRun run(*device_, row("pool"));
  for (float& v : run.x) v = 1.0f;
  run.forward();
  run.backward(Write::overwrite, Write::overwrite);
  const auto grad = run.grad_in();
  EXPECT_EQ(grad[0], run.grad_out_values()[0]);
  EXPECT_EQ(grad[1], 0.0f);
}

TEST_F(OneOp, dropout_is_identity_in_evaluation_and_keeps_its_share) {
  OpRun run(*device_, row("dropout"));
  run.forward({Mode::evaluate, true, true});
  EXPECT_EQ(run.out(), run.x);
  OpRow large = row("dropout");
  large.in.shape = Shape{64, 1001};
  OpRun many(*device_, large);
  for (float& v : many.x) v = 1.0f;
  many.forward();
  double kept = 0;
  for (float v : many.out()) kept += v != 0.0f;
  EXPECT_NEAR(kept / (64 * 1001), 0.7, 4 * std::sqrt(0.21 / (64 * 1001)));
}

TEST_F(OneOp, the_label_among_the_five_largest_logits_counts) {
  OpRun run(*device_, row("softmax_cross_entropy"));
  const std::size_t classes = run.x.size() / run.labels.size();
  for (std::size_t s = 0; s < run.labels.size(); ++s)
    for (std::size_t c = 0; c < classes; ++c) run.x[s * classes + c] = -static_cast<float>(c);
  run.labels = {0, 1, 2, 3, 4, 5, 9};  // in the order of the logits
  run.weights = {1, 1, 1, 1, 1, 1, 1};
  run.forward();
  EXPECT_EQ(run.out()[correct_sum], 1.0f);
  EXPECT_EQ(run.out()[top5_sum], 5.0f);
  for (float& v : run.x) v = 2.0f;  // equal logits count in the order of their classes
  run.forward();
  EXPECT_EQ(run.out()[correct_sum], 1.0f);
  EXPECT_EQ(run.out()[top5_sum], 5.0f);
  run.weights = {0, 0, 0, 0, 1, 1, 1};
  run.forward();
  EXPECT_EQ(run.out()[top5_sum], 1.0f);
}

TEST_F(OneOp, smoothed_labels_share_the_loss_with_the_mean_of_the_logits) {
  OpRow smooth = row("softmax_cross_entropy");
  smooth.op = SoftmaxCrossEntropy{.label_smoothing = 0.1};
  OpRun plain(*device_, row("softmax_cross_entropy")), run(*device_, smooth);
  plain.forward();
  run.forward();
  const std::size_t classes = run.x.size() / run.labels.size();
  double expected = static_cast<double>(plain.out()[loss_sum]);
  for (std::size_t s = 0; s < run.labels.size(); ++s) {
    double mean = 0;
    for (std::size_t c = 0; c < classes; ++c) mean += static_cast<double>(run.x[s * classes + c]) / 10.0;
    const double label = static_cast<double>(run.x[s * classes + static_cast<std::size_t>(run.labels[s])]);
    expected += static_cast<double>(run.weights[s]) * 0.1 * (label - mean);
  }
  EXPECT_NEAR(run.out()[loss_sum], expected, 1e-5 * expected);
}

TEST_F(OneOp, shapes_that_do_not_fit_say_which) {
  const TensorDesc small{DType::f32, Shape{2, 3, 2, 2}, Layout::channels_last, {}};
  try {
    infer(Conv2d{8, {3, 3}, {1, 1}, {0, 0}, true, Activation::none}, {&small, 1});
    FAIL();
  } catch (const ShapeError& e) {
    EXPECT_EQ(e.code(), ExitCode::usage);
    EXPECT_NE(std::string(e.what()).find("[2, 3, 2, 2]"), std::string::npos) << e.what();
  }
  EXPECT_THROW(infer(Linear{8, true, Activation::none}, {&small, 1}), ShapeError);
  EXPECT_THROW(infer(Linear{0, true, Activation::none}, {&row("linear").in, 1}), ShapeError);
  EXPECT_THROW(infer(Dropout{1.0, 0}, {&row("linear").in, 1}), ShapeError);
}

}  // namespace
}  // namespace dtrain
