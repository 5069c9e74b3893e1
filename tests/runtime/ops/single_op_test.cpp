// What single ops promise beside their values: sums of several micro batches, padding, ties, NaN, draws, messages.
#include <cmath>
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "runtime/tensor/error.hpp"
#include "tests/support/devices.hpp"
#include "tests/support/op_table.hpp"

namespace dtrain {
namespace {

using test::OpRow;
using test::OpRun;

const OpRow& row(const std::string& name) {
  for (const auto& r : test::op_table())
    if (r.name == name) return r;
  throw BugError("no such row: " + name);
}

class OneOp : public testing::TestWithParam<test::AvailableDevice> {
 protected:
  std::unique_ptr<Device> device_ = GetParam().make();
};
INSTANTIATE_TEST_SUITE_P(Devices, OneOp, testing::ValuesIn(test::available_devices()),
                         [](const auto& instance) { return instance.param.name; });

TEST_P(OneOp, losses_of_later_micro_batches_are_added) {
  for (const char* name : {"softmax_cross_entropy", "mean_squared_error"}) {
    OpRun run(*device_, row(name));
    run.forward();
    const auto once = run.out();
    run.forward({Mode::train, false, true});
    const auto twice = run.out();
    for (std::size_t i = 0; i < once.size(); ++i) EXPECT_EQ(twice[i], 2 * once[i]) << name;
  }
}

TEST_P(OneOp, padding_does_not_count_whatever_it_holds) {
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

TEST_P(OneOp, a_label_out_of_range_makes_the_loss_nan) {
  for (const std::int32_t label : {-1, 10, 1 << 30}) {
    OpRun run(*device_, row("softmax_cross_entropy"));
    run.labels[1] = label;
    run.forward();
    EXPECT_TRUE(std::isnan(run.out()[loss_sum])) << label;
    run.backward(Write::overwrite, Write::overwrite);
    EXPECT_TRUE(std::isnan(run.grad_in()[10])) << label;
  }
}

TEST_P(OneOp, cross_entropy_holds_for_large_logits_and_shows_nan) {
  OpRun run(*device_, row("softmax_cross_entropy"));
  for (float& v : run.x) v *= 1e4f;
  run.forward();
  EXPECT_TRUE(std::isfinite(run.out()[loss_sum]));
  run.x[15] = NAN;
  run.forward();
  EXPECT_TRUE(std::isnan(run.out()[loss_sum]));
}

TEST_P(OneOp, nan_is_not_lost_on_the_way_to_the_loss) {
  for (const char* name : {"pool", "pool_padded", "average_pool", "global_average_pool", "relu", "gelu", "gelu_tanh",
                           "silu", "tanh", "sigmoid", "hard_swish", "gated_silu", "add_relu", "multiply", "concat",
                           "batch_norm_relu", "layer_norm", "cast_to_bf16"}) {
    for (const char* suffix : {"", "_bf16"}) {
      OpRun run(*device_, row(std::string(name) + suffix));
      // Where a window meets it after a number; elsewhere it is the first.
      run.x[std::string(name).find("pool") == std::string::npos ? 0 : 1] = NAN;
      run.forward();
      EXPECT_TRUE(std::isnan(run.out()[0])) << name << suffix;
    }
  }
}

TEST_P(OneOp, equal_maxima_give_the_first_the_gradient) {
  OpRun run(*device_, row("pool"));
  for (float& v : run.x) v = 1.0f;
  run.forward();
  run.backward(Write::overwrite, Write::overwrite);
  const auto grad = run.grad_in();
  EXPECT_EQ(grad[0], run.grad_out[0]);
  EXPECT_EQ(grad[1], 0.0f);
}

TEST_P(OneOp, dropout_is_identity_in_evaluation_and_keeps_its_share) {
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

TEST_P(OneOp, the_label_among_the_five_largest_logits_counts) {
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

TEST_P(OneOp, smoothed_labels_share_the_loss_with_the_mean_of_the_logits) {
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

TEST_P(OneOp, dropped_samples_are_dropped_whole_and_kept_in_their_share) {
  OpRow many = row("dropout_sample");
  many.in.shape = Shape{4000, 2, 1, 1};
  OpRun run(*device_, many);
  for (float& v : run.x) v = 1.0f;
  run.forward();
  const auto out = run.out();
  double kept = 0;
  for (std::size_t i = 0; i < out.size(); i += 2) {
    EXPECT_EQ(out[i], out[i + 1]);
    kept += out[i] != 0.0f;
  }
  EXPECT_NEAR(kept / 4000, 0.6, 4 * std::sqrt(0.24 / 4000));
}

TEST_P(OneOp, both_inputs_may_be_one_value) {
  for (const char* name : {"add", "add_relu", "add_tanh", "multiply"}) {
    OpRun apart(*device_, row(name)), shared(*device_, row(name));
    shared.share({Alias::Kind::grad_over_grad, 0, 0});
    shared.share_input_gradients();
    for (OpRun* run : {&apart, &shared}) {
      run->inputs[1] = run->x;
      run->forward();
      run->backward_activation();
      run->backward_only(run == &apart ? std::vector<Write>{Write::overwrite, Write::overwrite}
                                       : std::vector<Write>{Write::overwrite, Write::accumulate},
                         {});
    }
    auto sum = apart.grad_in(0);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += apart.grad_in(1)[i];
    EXPECT_EQ(shared.grad_in(0), sum) << name;
  }
}

TEST_P(OneOp, shapes_that_do_not_fit_say_which) {
  const TensorDesc small{DType::f32, Shape{2, 2, 2, 3}};
  try {
    infer(Conv{8, {3, 3}, {1, 1}, {0, 0}, true, Activation::none}, {&small, 1});
    FAIL();
  } catch (const ShapeError& e) {
    EXPECT_EQ(e.code(), ExitCode::usage);
    EXPECT_NE(std::string(e.what()).find("[3, 2, 2]"), std::string::npos) << e.what();
  }
  EXPECT_THROW(infer(Dense{8, true, Activation::none}, {&small, 1}), ShapeError);
  EXPECT_THROW(infer(Dense{0, true, Activation::none}, {&row("linear").in, 1}), ShapeError);
  EXPECT_THROW(infer(Dropout{1.0, 0}, {&row("linear").in, 1}), ShapeError);
}

}  // namespace
}  // namespace dtrain
