// Several losses of one graph on each device: against PyTorch, with weights that differ from step to step, and none.
#include <cmath>
#include <cstring>
#include <fstream>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "runtime/ops/kernels.hpp"
#include "runtime/optim/step_math.hpp"
#include "runtime/optim/update.hpp"
#include "runtime/program/program.hpp"
#include "tests/support/op_table.hpp"
#include "tests/support/reachable_device.hpp"

namespace dtrain {
namespace {

// Against PyTorch in double, over five steps.
constexpr double value_tolerance = 1e-5;
// f32 sums of two contributions, in another order.
constexpr double sum_tolerance = 1e-6;

constexpr std::int64_t samples = 8, length = 5;

/// As tests/golden/make_loss_goldens.py has it.
Graph two_heads(std::int64_t batch) {
  Graph g(batch);
  const auto x = g.add_input(PortUse::input, "x", {DType::f32, Shape{batch, length, 6}});
  const auto labels = g.add_input(PortUse::target, "labels", {DType::u8, Shape{batch, length}});
  const auto target = g.add_input(PortUse::target, "target", {DType::f32, Shape{batch, length, 2}});
  const auto each = g.add_input(PortUse::weight, "each", {DType::f32, Shape{batch, length}});
  const auto whole = g.add_input(PortUse::weight, "whole", {DType::f32, Shape{batch}});
  const auto trunk = g.add("trunk", Dense{.units = 9, .activation = Activation::tanh}, {x});
  g.add_loss("class", SoftmaxCrossEntropy{0, 3}, {g.add("classes", Dense{.units = 7}, {trunk}), labels, each}, 1, true);
  g.add_loss("price", MeanSquaredError{}, {g.add("prices", Dense{.units = 2}, {trunk}), target, whole}, 0.25, true);
  return g;
}

struct StepData {
  std::vector<float> x, target, each, whole;
  std::vector<std::uint8_t> labels;
  explicit StepData(int t) {
    const auto seed = static_cast<std::uint64_t>(140 + t);
    x = test::signed_draws(seed, 0, samples * length * 6);
    target = test::signed_draws(seed, 2, samples * length * 2);
    for (int i = 0; i < samples * length; ++i) {
      labels.push_back(static_cast<std::uint8_t>(test::raw_draw(seed, 1, 0, i) % 7));
      each.push_back(t == 1 || t == 3 ? 0.0f : static_cast<float>((i + t) % 4) * 0.5f);
    }
    for (int i = 0; i < samples; ++i) whole.push_back(t == 3 ? 0.0f : static_cast<float>(i % 3) * 1.25f);
  }
  void put(const InputSlot& slot, std::int64_t first, std::int64_t batch) const {
    const auto part = [&](std::size_t input, const auto& values) {
      const auto each_sample = values.size() / samples;
      std::memcpy(slot.inputs[input].data, values.data() + static_cast<std::size_t>(first) * each_sample,
                  static_cast<std::size_t>(batch) * each_sample * sizeof values[0]);
    };
    part(0, x);
    part(1, labels);
    part(2, target);
    part(3, each);
    part(4, whole);
  }
  std::array<std::uint64_t, 2> weights() const {
    std::array<std::uint64_t, 2> sums{};
    for (std::size_t i = 0; i < each.size(); ++i) sums[0] += labels[i] == 3 ? 0 : weight_units(each[i]);
    for (const float w : whole) sums[1] += length * weight_units(w);
    return sums;
  }
};

double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  return test::relative_error(a, b);
}

class SeveralLosses : public test::OnEachDevice {};
DTRAIN_ON_EACH_DEVICE(SeveralLosses);

TEST_P(SeveralLosses, of_weights_that_change_are_pytorchs) {
  const auto golden = nlohmann::json::parse(std::ifstream("tests/golden/losses.json"));
  for (const int micro_batches : {1, 2, 8}) {
    SCOPED_TRACE(micro_batches);
    const std::int64_t batch = samples / micro_batches;
    const auto device = make_device();
    const auto stream = device->make_stream(StreamUse::compute);
    Program program(*device, two_heads(batch), {});
    const FlatLayout& layout = program.plan().layout;
    EXPECT_EQ(layout.extras, 32u);  // 2 x 5 sums, 3 and 2 x 6 of the tail
    const ParameterStore store(*device, layout);
    initialize(store.params(), layout, program.plan().graph, 5);
    program.pack(store, *stream);
    Optimizer optimizer(*device, {Sgd{.weight_decay = 0.01}}, layout);
    const LossRule rule = program.plan().graph.loss_rule();
    test::Reachable<StepState> memory{1, test::FromDevice<StepState>(*device)};
    StepState& state = memory[0];
    const auto first = StepData(0).weights();
    for (std::size_t k = 0; k < 2; ++k) state.loss_weight[k] = weight_of(first[k]);
    weigh_losses(state, rule);
    NoHooks hooks;
    for (int t = 0; t < 5; ++t) {
      SCOPED_TRACE(t);
      const StepData data(t);
      for (int j = 0; j < micro_batches; ++j) {
        data.put(program.slot(j % 2), j * batch, batch);
        program.run({Mode::train, j == 0, j + 1 == micro_batches}, j % 2, store, state, hooks, *stream);
        stream->synchronize();
      }
      const auto next = StepData(t + 1).weights();
      float* const tail = store.gradients() + layout.tail_begin();
      std::fill_n(tail, StepTail::floats(2), 0.0f);
      for (std::size_t k = 0; k < 2; ++k) split_weight(next[k], tail + 3 + k * weight_limbs);
      state.learning_rate = 0.5f;
      const auto squares = optimizer.block_squares(store, *stream);
      device->kernels().finish_gradients({&state, squares.data(), squares.size(), 0}, *stream);
      optimizer.update(store, 0, layout.param_floats, state, *stream);
      program.pack(store, *stream);
      device->kernels().finish_step({.step = &state, .sums = store.gradients() + layout.state_end(), .losses = rule},
                                    *stream);
      stream->synchronize();
      const auto& expected = golden.at("steps").at(static_cast<std::size_t>(t));
      EXPECT_NEAR(step_loss(state, rule), expected.at("loss").get<double>(), value_tolerance);
      EXPECT_NEAR(static_cast<double>(state.grad_norm), expected.at("norm").get<double>(), value_tolerance);
      for (std::size_t k = 0; k < 2; ++k) {
        EXPECT_EQ(state.ended_weight[k], expected.at("weights").at(k).get<double>());
        EXPECT_EQ(static_cast<double>(state.sums[k * sums_per_loss + weight_sum]), state.ended_weight[k]);
      }
      EXPECT_EQ(state.nonfinite, 0u);
    }
    for (std::size_t p = 0; p < layout.params.size(); ++p) {
      const FlatParam& param = layout.of(static_cast<ParamId>(p));
      const float* at = store.params() + param.offset;
      EXPECT_LE(relative_error({at, at + param.size}, golden.at("params").at(p)), value_tolerance) << param.name;
    }
  }
}

// ---- gradients ------------------------------------------------------------------------------------------------------

/// Of one pass over a model whose output has the chosen losses.
std::vector<float> gradients(Device& device, bool entropy, bool error) {
  Graph g(4);
  const auto x = g.add_input(PortUse::input, "x", {DType::f32, Shape{4, 6}});
  const auto labels = g.add_input(PortUse::target, "labels", {DType::i32, Shape{4}});
  const auto target = g.add_input(PortUse::target, "target", {DType::f32, Shape{4, 3}});
  const auto w = g.add_input(PortUse::weight, "w", {DType::f32, Shape{4}});
  const auto y = g.add("dense", Dense{.units = 3}, {x});
  if (entropy) g.add_loss("entropy", SoftmaxCrossEntropy{}, {y, labels, w});
  if (error) g.add_loss("error", MeanSquaredError{}, {y, target, w});
  const auto stream = device.make_stream(StreamUse::compute);
  Program program(device, std::move(g), {});
  const ParameterStore store(device, program.plan().layout);
  initialize(store.params(), store.layout(), program.plan().graph, 3);
  program.pack(store, *stream);
  const InputSlot& slot = program.slot(0);
  const auto put = [&](std::size_t input, const std::vector<float>& values) {
    std::copy(values.begin(), values.end(), slot.inputs[input].as<float>());
  };
  put(0, test::signed_draws(9, 0, 24));
  for (int i = 0; i < 4; ++i) slot.inputs[1].as<std::int32_t>()[i] = i % 3;
  put(2, test::signed_draws(9, 2, 12));
  put(3, {1, 2, 1, 0.5f});
  test::Reachable<StepState> state{1, test::FromDevice<StepState>(device)};
  if (entropy && error) state[0].loss_seed[1] = 0.5f;
  NoHooks hooks;
  program.run({}, 0, store, state[0], hooks, *stream);
  stream->synchronize();
  return {store.gradients(), store.gradients() + store.layout().param_floats};
}

TEST_P(SeveralLosses, of_one_value_add_up_their_gradients) {
  const auto device = make_device();
  const auto entropy = gradients(*device, true, false), error = gradients(*device, false, true);
  auto expected = entropy;
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += 0.5f * error[i];
  EXPECT_LE(relative_error(gradients(*device, true, true), expected), sum_tolerance);
}

// ---- no loss --------------------------------------------------------------------------------------------------------

TEST_P(SeveralLosses, none_is_needed_where_only_evaluation_is_planned) {
  const auto device = make_device();
  const auto stream = device->make_stream(StreamUse::compute);
  for (const bool parameters : {false, true}) {
    Graph g(3);
    const auto x = g.add_input(PortUse::input, "x", {DType::f32, Shape{3, 4}});
    auto v = g.add("relu", Activate{Activation::relu}, {x});
    if (parameters) v = g.add("dense", Dense{.units = 2}, {v});
    g.add_output("y", v);
    EXPECT_THROW(make_plan(g, {}), ShapeError);
    if (parameters) g.set_update(0, {.frozen = true});
    if (parameters) g.set_update(1, {.frozen = true});
    PlanOptions options;
    options.train = false;
    Program program(*device, std::move(g), options);
    EXPECT_EQ(program.plan().layout.losses, 0u);
    const ParameterStore store(*device, program.plan().layout);
    initialize(store.params(), store.layout(), program.plan().graph, 1);
    program.pack(store, *stream);
    for (int i = 0; i < 12; ++i) program.slot(0).inputs[0].as<float>()[i] = static_cast<float>(i - 6);
    test::Reachable<StepState> state{1, test::FromDevice<StepState>(*device)};
    NoHooks hooks;
    program.run({Mode::evaluate, true, true}, 0, store, state[0], hooks, *stream);
    stream->synchronize();
    if (!parameters)
      for (int i = 0; i < 12; ++i) EXPECT_EQ(program.output(0).as<float>()[i], static_cast<float>(std::max(0, i - 6)));
    else
      EXPECT_EQ(program.output(0).elements(), 6);
  }
}

TEST(Losses, are_at_most_eight_of_names_of_their_own) {
  Graph g(2);
  const auto x = g.add_input(PortUse::input, "x", {DType::f32, Shape{2, 3}});
  const auto y = g.add_input(PortUse::target, "y", {DType::f32, Shape{2, 3}});
  const auto w = g.add_input(PortUse::weight, "w", {DType::f32, Shape{2}});
  const auto v = g.add("dense", Dense{.units = 3}, {x});
  for (std::size_t k = 0; k < max_losses; ++k)
    g.add_loss("loss_" + std::to_string(k), MeanSquaredError{}, {v, y, w}, 0.5, k % 2 == 0);
  EXPECT_EQ(g.loss_rule().counted, 0b01010101u);
  EXPECT_EQ(g.loss_rule().factors[7], 0.5);
  EXPECT_EQ(make_plan(g, {}).layout.extras, 80u);  // 8 x 5 sums, 3 and 4 x 6 of the tail
  try {
    g.add_loss("more", MeanSquaredError{}, {v, y, w});
    FAIL();
  } catch (const ShapeError& e) {
    EXPECT_STREQ(e.what(), "loss more: the model has 8 losses before it; expected at most 8");
  }
}

}  // namespace
}  // namespace dtrain
