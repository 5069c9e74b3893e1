// A dense layer that its loss computes: steps, memory and gradients beside those of two ops, with a weight that another
// layer shares.
#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/plan/graph_analysis.hpp"
#include "runtime/program/program.hpp"
#include "tests/support/op_table.hpp"
#include "tests/support/reachable_device.hpp"

namespace dtrain {
namespace {

// f32 sums of the same products in other blocks.
constexpr double sum_tolerance = 1e-6;

constexpr std::int64_t length = 7, words = 40, width = 16;

/// A small language model whose head is tied to its embedding, with capped logits or not; `chunk` 0: as ops of their
/// own.
Graph language_model(std::int64_t batch, std::int64_t chunk, std::optional<SoftCap> cap = {}) {
  Graph g(batch);
  const auto tokens = g.add_input(PortUse::input, "tokens", {DType::i32, Shape{batch, length}}, words);
  const auto next = g.add_input(PortUse::target, "next", {DType::i32, Shape{batch, length}}, words);
  const auto each = g.add_input(PortUse::weight, "each", {DType::f32, Shape{batch, length}});
  const auto embedded = g.add("embedding", Embedding{.vocabulary = words, .channels = width}, {tokens});
  const auto hidden = g.add("hidden", Dense{.units = width, .activation = Activation::tanh}, {embedded});
  const Dense head{.units = words, .bias = false};
  const SoftmaxCrossEntropy entropy{.label_smoothing = 0.1, .ignore = 3, .z_loss = 1e-3};
  const std::vector<ParamId> tied{g.nodes()[0].params[0]};
  if (chunk > 0) {
    g.add_loss_layer("loss", "head", LinearCrossEntropy{head, entropy, chunk, cap}, {hidden, next, each}, tied, 1,
                     true);
  } else {
    auto logits = g.add("head", head, {hidden}, tied);
    if (cap) logits = g.add("cap", *cap, {logits});
    g.add_loss("loss", entropy, {logits, next, each}, 1, true);
  }
  return g;
}

void fill(const InputSlot& slot, std::int64_t first, std::int64_t batch) {
  const std::int64_t at = first * length;
  for (std::int64_t i = 0; i < batch * length; ++i) {
    slot.inputs[0].as<std::int32_t>()[i] = static_cast<std::int32_t>(test::raw_draw(5, 0, 0, at + i) % words);
    slot.inputs[1].as<std::int32_t>()[i] = static_cast<std::int32_t>(test::raw_draw(5, 1, 0, at + i) % words);
    slot.inputs[2].as<float>()[i] = static_cast<float>((at + i) % 3);
  }
}

struct Result {
  std::vector<float> gradients, sums, evaluated;
};

class LinearLoss : public test::OnEachDevice {
 protected:
  /// Two micro batches of 4 samples.
  Result run(std::int64_t chunk, std::optional<SoftCap> cap = {}) {
    const auto device = make_device();
    const auto stream = device->make_stream(StreamUse::compute);
    Program program(*device, language_model(4, chunk, cap), {});
    const FlatLayout& layout = program.plan().layout;
    const ParameterStore store(*device, layout);
    initialize(store.params(), layout, program.plan().graph, 5);
    program.pack(store, *stream);
    test::Reachable<StepState> memory{1, test::FromDevice<StepState>(*device)};
    NoHooks hooks;
    const auto sums = [&] {
      const auto* at = store.loss_sums(0).as<float>();
      return std::vector<float>(at, at + loss_sum_count);
    };
    Result result;
    for (int j = 0; j < 2; ++j) {
      fill(program.slot(j), 4 * j, 4);
      program.run({Mode::train, j == 0, j == 1}, j, store, memory[0], hooks, *stream);
      stream->synchronize();
    }
    result.gradients.assign(store.gradients(), store.gradients() + layout.param_floats);
    result.sums = sums();
    fill(program.slot(0), 0, 4);
    program.run({Mode::evaluate, true, true}, 0, store, memory[0], hooks, *stream);
    stream->synchronize();
    result.evaluated = sums();
    return result;
  }
};
DTRAIN_ON_EACH_DEVICE(LinearLoss);

TEST_P(LinearLoss, gives_what_the_layer_and_the_loss_give) {
  const Result apart = run(0);
  ASSERT_GT(apart.sums[weight_sum], 0);
  for (const std::int64_t chunk : {1, 5, 14, 28, 1000}) {
    SCOPED_TRACE(chunk);
    const Result one = run(chunk);
    EXPECT_LE(test::relative_error(one.gradients, apart.gradients), sum_tolerance);
    EXPECT_LE(test::relative_error(one.sums, apart.sums), sum_tolerance);
    EXPECT_LE(test::relative_error(one.evaluated, apart.evaluated), sum_tolerance);
  }
}

TEST_P(LinearLoss, caps_logits_as_the_op_does) {
  const SoftCap cap{0.5};
  const Result apart = run(0, cap);
  EXPECT_GT(test::relative_error(apart.gradients, run(0).gradients), 0.01);
  for (const std::int64_t chunk : {5, 1000}) {
    SCOPED_TRACE(chunk);
    const Result one = run(chunk, cap);
    EXPECT_LE(test::relative_error(one.gradients, apart.gradients), sum_tolerance);
    EXPECT_LE(test::relative_error(one.sums, apart.sums), sum_tolerance);
    EXPECT_LE(test::relative_error(one.evaluated, apart.evaluated), sum_tolerance);
  }
}

TEST(LinearLossPlan, has_one_step_in_training_and_never_all_logits) {
  const Plan plan = make_plan(language_model(64, 16), {});
  const auto head = static_cast<NodeId>(plan.graph.nodes().size()) - 1;
  const auto steps = [&](const PassPlan& pass, auto is) {
    return std::count_if(pass.steps.begin(), pass.steps.end(), is);
  };
  const auto forward = [&](const Step& s) {
    return std::holds_alternative<Forward>(s) && std::get<Forward>(s).node == head;
  };
  EXPECT_EQ(steps(plan.train, forward), 0);
  EXPECT_EQ(steps(plan.train, [&](const Step& s) { return backward_node(s) == head; }), 1);
  EXPECT_EQ(steps(plan.evaluate, forward), 1);
  const std::size_t logits = 64 * length * words * sizeof(float);
  for (const PassPlan* pass : {&plan.train, &plan.evaluate})
    for (const Block& block : pass->blocks) EXPECT_LT(block.bytes, logits) << block.name;
}

TEST(LinearLossPlan, is_forward_where_nothing_before_it_is_trained) {
  Graph g = language_model(4, 16);
  g.set_update(0, {.frozen = true});
  g.set_update(1, {.frozen = true});
  const auto free = g.add("free", Dense{.units = 3}, {g.inputs()[2].value});
  const auto target = g.add_input(PortUse::target, "target", {DType::f32, Shape{4, 3}});
  const auto whole = g.add_input(PortUse::weight, "whole", {DType::f32, Shape{4}});
  g.add_loss("second", MeanSquaredError{}, {free, target, whole});
  for (ParamId p = 0; p < 3; ++p) g.set_update(p, {.frozen = true});
  const Plan plan = make_plan(g, {});
  EXPECT_TRUE(std::any_of(plan.train.steps.begin(), plan.train.steps.end(), [](const Step& s) {
    return std::holds_alternative<Forward>(s) && std::get<Forward>(s).node == 2;
  }));
}

TEST(LinearLossPlan, chunks_are_equal_where_that_is_possible) {
  const auto chunk = [](std::int64_t rows, std::int64_t units) {
    return LinearCrossEntropy{Dense{.units = units}, {}}.chunk_rows({DType::f32, Shape{rows, 768}});
  };
  EXPECT_EQ(chunk(8192, 50257), 1024);  // 7 chunks would do, 8 are equal
  EXPECT_EQ(chunk(8192, 1024), 4096);
  EXPECT_EQ(chunk(100, 50257), 100);
  EXPECT_EQ(chunk(4099, 2048), 2080);  // a prime: a chunk and a rest
  EXPECT_EQ(chunk(1 << 20, 1 << 24), 64);
}

}  // namespace
}  // namespace dtrain
