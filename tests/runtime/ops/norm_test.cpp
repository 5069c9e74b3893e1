// What norms promise beyond their rows of the op table: running statistics, evaluation, recomputation, moments over
// ranks, and sums that hold for large and for offset inputs.
#include <cmath>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "runtime/ops/kernels.hpp"
#include "runtime/optim/optimizer.hpp"
#include "runtime/plan/plan.hpp"
#include "tests/support/op_table.hpp"
#include "tests/support/reachable_device.hpp"

namespace dtrain {
namespace {

using test::OpRow;
using test::OpRun;

constexpr Pass first_of_two{Mode::train, true, false}, second_of_two{Mode::train, false, true};
constexpr Pass evaluation{Mode::evaluate, true, true};

OpRow row(const std::string& name) {
  for (const auto& r : test::op_table())
    if (r.name == name) return r;
  throw BugError("no such row: " + name);
}
TensorDesc image(std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w) {
  return {DType::f32, Shape{n, h, w, c}};
}

class Norms : public testing::TestWithParam<std::tuple<test::AvailableDevice, std::string>> {
 protected:
  std::unique_ptr<Device> device_ = std::make_unique<test::ReachableDevice>(std::get<0>(GetParam()).make());
  std::string name_ = std::get<1>(GetParam());
  OpRow row_ = row(name_);
  OpRun run_{*device_, row_};
  bool bf16() const { return row_.in.dtype == DType::bf16; }

  /// Two micro batches as in the golden files; the moments of the second are the other's and its own.
  void two_micro_batches() {
    run_.forward(first_of_two);
    const auto first = run_.x;
    run_.x = test::signed_draws(row_.seed, 50, row_.in.elements());
    if (bf16()) run_.x = test::rounded_to(DType::bf16, run_.x);
    if (!run_.moments.empty()) {
      const auto channels = static_cast<std::size_t>(row_.in.channels());
      const std::size_t pixels = run_.x.size() / channels / static_cast<std::size_t>(row_.in.batch());
      for (std::size_t i = 0; i < run_.x.size(); ++i) {
        const std::size_t c = i / pixels % channels;
        const auto before = static_cast<double>(first[i]), now = static_cast<double>(run_.x[i]);
        run_.moments[c] += now - before;
        run_.moments[channels + c] += now * now - before * before;
      }
    }
    run_.forward(second_of_two);
  }
};

TEST_P(Norms, statistics_of_two_micro_batches_are_pytorchs) {
  const auto golden = nlohmann::json::parse(std::ifstream("tests/golden/ops.json")).at(name_);
  two_micro_batches();
  for (std::size_t s = 0; s < 2; ++s)
    EXPECT_LE(test::relative_error(run_.state_sum(s), golden.at("statistics").at(s)), 1e-5) << s;

  // One update a step: the running statistics move towards the mean of the micro batches'.
  const std::size_t channels = run_.state[0].size();
  FlatLayout layout;
  layout.states.push_back({0, "running_mean", row_.in.shape, 0, channels, 0.0f, 0.1});
  layout.states.push_back({1, "running_variance", row_.in.shape, channels, channels, 1.0f, 0.1});
  const test::FromDevice<float> floats(*device_);
  test::Reachable<float> running(floats), sums(floats);
  for (std::size_t s = 0; s < 2; ++s) {
    running.insert(running.end(), run_.state[s].begin(), run_.state[s].end());
    const auto sum = run_.state_sum(s);
    sums.insert(sums.end(), sum.begin(), sum.end());
  }
  const auto before = running;
  test::Reachable<StepState> step(1, test::FromDevice<StepState>(*device_));
  step[0].micro_batches = 2;
  const auto stream = device_->make_stream(StreamUse::compute);
  device_->kernels().update_states({running.data(), sums.data(), &layout, step.data()}, *stream);
  stream->synchronize();
  for (std::size_t i = 0; i < running.size(); ++i) {
    const auto mean = golden.at("statistics").at(i / channels).at(i % channels).get<float>() / 2;
    EXPECT_NEAR(running[i], 0.9f * before[i] + 0.1f * mean, 1e-6f);
  }
}

TEST_P(Norms, evaluation_uses_the_running_statistics) {
  const auto golden = nlohmann::json::parse(std::ifstream("tests/golden/ops.json")).at(name_);
  for (double& m : run_.moments) m = std::nan("");
  run_.forward(evaluation);
  EXPECT_LE(test::relative_error(run_.out(), golden.at("evaluation")), bf16() ? 1e-2 : 1e-5);
  for (float v : run_.state_sum(0)) EXPECT_TRUE(std::isnan(v)) << "evaluation wrote statistics";
}

TEST_P(Norms, recomputation_gives_the_same_bits_and_leaves_the_statistics) {
  run_.forward();
  const auto out = run_.out(), mean = run_.state_sum(0), variance = run_.state_sum(1);
  Pass again = second_of_two;  // what is added would show
  again.recompute = true;
  run_.forward(again);
  EXPECT_EQ(run_.out(), out);
  EXPECT_EQ(run_.state_sum(0), mean);
  EXPECT_EQ(run_.state_sum(1), variance);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, Norms,
    testing::Combine(testing::ValuesIn(test::available_devices()),
                     testing::Values("batch_norm", "batch_norm_relu", "batch_norm_features", "batch_normalize",
                                     "batch_norm_bf16", "batch_norm_relu_bf16", "batch_normalize_bf16")),
    [](const auto& instance) { return std::get<0>(instance.param).name + "_" + std::get<1>(instance.param); });

class FrozenStatistics : public test::OnEachDevice {};
DTRAIN_ON_EACH_DEVICE(FrozenStatistics);

TEST_P(FrozenStatistics, training_is_evaluation_and_gradients_pass_constants) {
  constexpr std::int64_t channels = 19, pixels = 4 * 5 * 7;
  for (const Activation activation : {Activation::none, Activation::relu}) {
    const auto device = make_device();
    const BatchNorm op{.activation = activation, .frozen_statistics = true};
    OpRun run(*device, {"", 71, op, image(4, channels, 5, 7)});
    run.forward(evaluation);
    const auto expected = run.out();
    run.forward(first_of_two);
    EXPECT_EQ(run.out(), expected);
    run.backward(Write::overwrite, Write::overwrite);
    for (std::size_t s = 0; s < 2; ++s)
      for (const float v : run.state_sum(s)) EXPECT_EQ(v, 0.0F);
    EXPECT_EQ(run.shape().state[0].momentum, 0);
    std::vector<float> of_input(run.x.size()), of_weight(channels), of_bias(channels);
    for (std::size_t i = 0; i < run.x.size(); ++i) {
      const std::size_t c = i / (pixels / 4) % channels;
      const float inverse = 1 / std::sqrt(run.state[1][c] + 1e-5F);
      const float g = activation == Activation::relu && expected[i] <= 0 ? 0 : run.grad_out[i];
      of_input[i] = run.params[0][c] * inverse * g;
      of_weight[c] += g * (run.x[i] - run.state[0][c]) * inverse;
      of_bias[c] += g;
    }
    constexpr double tolerance = 1e-5;
    EXPECT_LE(test::relative_error(run.grad_in(), of_input), tolerance);
    EXPECT_LE(test::relative_error(run.grad_param(0), of_weight), tolerance);
    EXPECT_LE(test::relative_error(run.grad_param(1), of_bias), tolerance);
    const auto whole = run.grad_in();
    run.poison();
    run.forward(first_of_two);
    run.backward(Write::overwrite, Write::none);  // where the parameters are frozen, too
    EXPECT_EQ(run.grad_in(), whole);
  }
}

/// A value cut in two along the batch.
std::array<std::vector<float>, 2> halves(const std::vector<float>& v) {
  const auto middle = v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2);
  return {std::vector<float>(v.begin(), middle), std::vector<float>(middle, v.end())};
}

/// `whole` on one rank, and on two as moments -> sum -> normalize.
void expect_two_ranks_equal_one(Device& device, Activation activation) {
  constexpr double tolerance = 1e-6;
  const OpRow whole{"", 70, BatchNorm{1e-5, 0.1, activation}, image(4, 19, 5, 7)};
  OpRun one(device, whole);
  for (std::size_t i = 0; i < one.x.size(); ++i) one.x[i] += 3.0f;  // means that matter
  one.forward();
  one.backward(Write::overwrite, Write::overwrite);

  const TensorDesc half = image(2, 19, 5, 7);
  const OpRow moments_row{"", 70, BatchMoments{}, half};
  const OpRow normalize_row{"", 70, BatchNormalize{1e-5, 0.1, activation}, half};
  std::array<std::unique_ptr<OpRun>, 2> moments, normalize;
  std::vector<double> sums(2 * 19 + 1);
  for (std::size_t r = 0; r < 2; ++r) {
    moments[r] = std::make_unique<OpRun>(device, moments_row);
    moments[r]->x = halves(one.x)[r];
    moments[r]->forward();
    const auto* out = moments[r]->out_tensor().as<double>();
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += out[i];
  }
  EXPECT_EQ(sums.back(), 4 * 5 * 7);
  std::vector<float> moments_gradient(sums.size());
  std::vector<std::vector<float>> param_gradients(2, std::vector<float>(19));
  for (std::size_t r = 0; r < 2; ++r) {
    normalize[r] = std::make_unique<OpRun>(device, normalize_row);
    OpRun& run = *normalize[r];
    run.x = halves(one.x)[r];
    run.grad_out = halves(one.grad_out)[r];
    run.moments = sums;
    run.params = one.params;
    run.forward();
    EXPECT_LE(test::relative_error(run.out(), halves(one.out())[r]), tolerance);
    for (std::size_t s = 0; s < 2; ++s)
      EXPECT_LE(test::relative_error(run.state_sum(s), one.state_sum(s)), tolerance) << s;
    run.backward(Write::overwrite, Write::overwrite);
    const auto gradient = run.grad_in(1);
    for (std::size_t i = 0; i < sums.size(); ++i) moments_gradient[i] += gradient[i];
    for (std::size_t p = 0; p < 2; ++p)
      for (std::size_t c = 0; c < 19; ++c) param_gradients[p][c] += run.grad_param(p)[c];
  }
  for (std::size_t p = 0; p < 2; ++p)
    EXPECT_LE(test::relative_error(param_gradients[p], one.grad_param(p)), tolerance) << p;
  for (std::size_t r = 0; r < 2; ++r) {
    moments[r]->grad_out = moments_gradient;
    moments[r]->backward(Write::overwrite, Write::overwrite);
    auto gradient = normalize[r]->grad_in(0);
    const auto through_moments = moments[r]->grad_in(0);
    for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] += through_moments[i];
    EXPECT_LE(test::relative_error(gradient, halves(one.grad_in(0))[r]), 1e-5);
  }
}

class BatchNormalization : public test::OnEachDevice {};
DTRAIN_ON_EACH_DEVICE(BatchNormalization);

TEST_P(BatchNormalization, of_two_ranks_moments_is_that_of_the_whole_batch) {
  const auto device = make_device();
  for (const Activation activation : {Activation::none, Activation::relu, Activation::tanh})
    expect_two_ranks_equal_one(*device, activation);
}

TEST_P(BatchNormalization, holds_where_the_mean_is_a_thousand_deviations) {
  const auto device = make_device();
  OpRun run(*device, {"", 71, BatchNorm{}, image(8, 3, 64, 64)});
  for (float& v : run.x) v += 1000.0f;
  double mean = 0, square = 0;
  const std::size_t pixels = 64 * 64, sample = 3 * pixels;
  for (std::size_t n = 0; n < 8; ++n)
    for (std::size_t i = 0; i < pixels; ++i) mean += static_cast<double>(run.x[n * sample + i]) / (8 * pixels);
  for (std::size_t n = 0; n < 8; ++n)
    for (std::size_t i = 0; i < pixels; ++i)
      square += std::pow(static_cast<double>(run.x[n * sample + i]) - mean, 2) / (8 * pixels - 1);
  run.forward();
  EXPECT_NEAR(run.state_sum(0)[0], mean, 1e-4);
  EXPECT_NEAR(run.state_sum(1)[0] / square, 1, 1e-6);
}

class LargeOps : public test::OnEachDevice {};
DTRAIN_ON_EACH_DEVICE(LargeOps);

/// Not of a GPU, which would measure hundreds of graphs of cuDNN for it: what its own kernels need is the simulated
/// device's, and what cuDNN's may is bounded.
class Estimates : public test::OnEachDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, Estimates, testing::ValuesIn([] {
                           std::vector<test::AvailableDevice> found = test::available_devices();
                           std::erase_if(found, [](const auto& device) { return device.name == "cuda"; });
                           return found;
                         }()),
                         [](const auto& instance) { return instance.param.name; });

TEST_P(Estimates, are_no_less_than_what_a_device_needs) {
  const auto device = make_device();
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::int64_t channels : {1, 3, 24, 64, 1001, 1024, 1152, 5000}) {
      for (const std::int64_t pixels : {1, 2, 14, 56}) {
        TensorDesc desc = image(2, channels, pixels, pixels);
        desc.dtype = dtype;
        Graph graph(2);
        const ValueId x = graph.add_input(PortUse::input, "x", desc);
        graph.add("norm", BatchNorm{}, {x});
        const ValueId moments = graph.add("moments", BatchMoments{}, {x});
        graph.add("normalize", BatchNormalize{}, {x, moments});
        graph.add("layer", LayerNorm{}, {x});
        const ValueId pooled = graph.add("pool", GlobalAveragePool{}, {x});
        graph.add("scale", Multiply{}, {x, pooled});
        for (const GraphNode& node : graph.nodes()) {
          std::vector<TensorDesc> in;
          for (ValueId v : node.in) in.push_back(graph.desc(v));
          // The simulated device's graphs are slow: large shapes go by own kernels, of which pools need nothing.
          const bool own = GetParam().name != "cpu" && desc.elements() > 20000;
          if (own && std::holds_alternative<GlobalAveragePool>(node.op)) continue;
          const OpUse use = own ? OpUse{false, false, false} : OpUse{};
          EXPECT_LE(device->kernels().prepare(node.op, in, use)->needs().workspace,
                    estimated_needs(node, use).workspace)
              << node.name << " " << desc.shape.str();
        }
      }
    }
  }
}

/// Rows that fill several tasks, so that threads and chunks matter; other devices than the cpu have runs in their
/// place.
TEST_P(LargeOps, bits_depend_on_no_number_of_threads) {
  const std::vector<OpRow> large{{"batch_norm", 72, BatchNorm{1e-5, 0.1, Activation::relu}, image(3, 67, 17, 23)},
                                 {"batch_moments", 73, BatchMoments{}, image(3, 67, 17, 23)},
                                 {"layer_norm", 74, LayerNorm{}, image(3, 67, 17, 23)},
                                 {"add", 75, Add{Activation::tanh}, image(3, 67, 17, 23), {image(3, 67, 17, 23)}},
                                 {"multiply", 76, Multiply{}, image(3, 67, 17, 23), {image(3, 67, 1, 1)}},
                                 {"concat", 77, Concat{}, image(3, 67, 17, 23), {image(3, 9, 17, 23)}},
                                 {"average_pool", 78, AveragePool{{3, 3}, {2, 2}, {1, 1}}, image(3, 67, 17, 23)},
                                 {"max_pool", 79, MaxPool{{3, 3}, {2, 2}, {1, 1}}, image(3, 67, 17, 23)},
                                 {"global_average_pool", 80, GlobalAveragePool{}, image(3, 67, 17, 23)},
                                 {"gelu", 81, Activate{Activation::gelu}, image(3, 67, 17, 23)},
                                 {"cast", 82, Cast{DType::bf16}, image(3, 67, 17, 23)},
                                 {"dropout", 83, Dropout{0.3, 3}, image(3, 67, 17, 23)}};
  for (const OpRow& each : large) {
    std::vector<std::vector<float>> expected;
    for (const int threads : {1, 2, 3}) {
      auto device = make_device();
      if (device->kind() == DeviceKind::cpu) device = make_cpu_device(threads);
      OpRun run(*device, each);
      run.forward();
      std::vector<std::vector<float>> seen{run.out()};
      run.backward(Write::overwrite, Write::overwrite);
      for (std::size_t i = 0; i < run.differentiable().size(); ++i) seen.push_back(run.grad_in(i));
      for (std::size_t p = 0; p < run.shape().params.size(); ++p) seen.push_back(run.grad_param(p));
      if (expected.empty()) expected = seen;
      EXPECT_TRUE(seen == expected) << each.name << " on " << threads << " threads";
      for (float v : seen.back()) ASSERT_FALSE(std::isnan(v)) << each.name;
    }
  }
}

}  // namespace
}  // namespace dtrain
