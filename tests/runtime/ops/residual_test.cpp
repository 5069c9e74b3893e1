// A small residual network with every kind of node that a vision model has: recomputation, kept states, memory.
#include <cstring>

#include <gtest/gtest.h>

#include "runtime/optim/update.hpp"
#include "runtime/program/program.hpp"
#include "runtime/random/rng.hpp"

namespace dtrain {
namespace {

constexpr std::uint64_t seed = 5;
constexpr std::int64_t batch = 6;

/// Stem, then `blocks` residual blocks with squeeze and excitation, dropout, pooling and a head.
Graph residual_net(int blocks, DType dtype) {
  Graph g(batch);
  const auto x = g.add_input(PortUse::input, "sample", {DType::f32, Shape{batch, 12, 12, 3}});
  const auto y = g.add_input(PortUse::target, "target", {DType::i32, Shape{batch}});
  const auto w = g.add_input(PortUse::weight, "weight", {DType::f32, Shape{batch}});
  auto v = dtype == DType::f32 ? x : g.add("in", Cast{dtype}, {x});
  v = g.add("stem", Conv{.filters = 16, .kernel = {3, 3}, .padding = {1, 1}, .bias = false}, {v});
  v = g.add("stem_norm", BatchNorm{.activation = Activation::relu}, {v});
  for (int b = 0; b < blocks; ++b) {
    const std::string name = "block" + std::to_string(b) + "_";
    auto h = g.add(name + "conv1", Conv{.filters = 16, .kernel = {3, 3}, .padding = {1, 1}, .bias = false}, {v});
    h = g.add(name + "norm1", BatchNorm{}, {h});
    h = g.add(name + "act1", Activate{Activation::silu}, {h});
    auto s = g.add(name + "squeeze", GlobalAveragePool{}, {h});
    s = g.add(name + "gate", Conv{.filters = 16, .activation = Activation::sigmoid}, {s});
    h = g.add(name + "scale", Multiply{}, {h, s});
    h = g.add(name + "conv2", Conv{.filters = 16, .kernel = {3, 3}, .padding = {1, 1}, .bias = false}, {h});
    h = g.add(name + "norm2", BatchNorm{}, {h});
    v = g.add(name + "add", Add{Activation::relu}, {h, v});
  }
  v = g.add("pool", MaxPool{.size = {3, 3}, .stride = {2, 2}, .padding = {1, 1}}, {v});
  v = g.add("both", Concat{}, {v, g.add("half", AveragePool{.size = {1, 1}, .stride = {1, 1}}, {v})});
  v = g.add("mean", GlobalAveragePool{}, {v});
  v = g.add("flat", Flatten{}, {v});
  v = g.add("drop", Dropout{.rate = 0.2, .id = 1}, {v});
  v = g.add("head", Dense{.units = 5}, {v});
  if (dtype != DType::f32) v = g.add("out", Cast{DType::f32}, {v});
  g.add("loss", SoftmaxCrossEntropy{}, {v, y, w});
  return g;
}

struct Net {
  std::unique_ptr<Device> device = make_cpu_device(1);
  std::unique_ptr<Stream> stream = device->make_stream(StreamUse::compute);
  Program program;
  ParameterStore store;
  StepState state;
  NoHooks hooks;
  Net(RecomputePolicy policy, DType dtype, int blocks = 4)
      : program(*device, residual_net(blocks, dtype), options(policy)), store(*device, program.plan().layout) {
    initialize(store.params(), store.layout(), program.plan().graph, seed);
    program.pack(store, *stream);
    state.seed = seed;
  }
  static PlanOptions options(RecomputePolicy policy) {
    PlanOptions o;
    o.recompute = policy;
    return o;
  }
  void run(std::uint64_t first_position, Pass pass = {}) {
    const InputSlot& slot = program.slot(0);
    for (std::int64_t n = 0; n < batch; ++n) {
      const std::uint64_t position = first_position + static_cast<std::uint64_t>(n);
      for (std::int64_t i = 0; i < 3 * 12 * 12; ++i)
        slot.inputs[0].as<float>()[n * 3 * 12 * 12 + i] =
            2 * to_unit(draw4(random_key(seed, Purpose::test), position, 0, static_cast<std::uint32_t>(i)).v[0]) - 1;
      slot.inputs[1].as<std::int32_t>()[n] = static_cast<std::int32_t>(position % 5);
      slot.inputs[2].as<float>()[n] = 1;
      slot.positions.as<std::uint64_t>()[n] = position;
    }
    program.run(pass, 0, store, state, hooks, *stream);
  }
  std::vector<float> gradients() const {
    return {store.gradients(), store.gradients() + store.layout().total_floats()};
  }
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

int count_recomputed(const Plan& plan) {
  int n = 0;
  for (const Step& step : plan.train.steps) n += std::holds_alternative<Recompute>(step);
  return n;
}

class Residual : public testing::TestWithParam<DType> {};

TEST_P(Residual, RecomputationGivesTheSameBitsInLessMemory) {
  Net none(RecomputePolicy::none, GetParam()), light(RecomputePolicy::light, GetParam()),
      block(RecomputePolicy::block, GetParam());
  EXPECT_EQ(count_recomputed(none.program.plan()), 0);
  EXPECT_GT(count_recomputed(light.program.plan()), 8);
  EXPECT_GT(count_recomputed(block.program.plan()), count_recomputed(light.program.plan()));
  const auto activations = [](const Net& net) {
    std::vector<Block> blocks;
    for (const Block& b : net.program.plan().train.blocks)
      if (b.kind != MemoryKind::workspace) blocks.push_back(b);
    return pack_blocks(blocks);
  };
  EXPECT_LT(activations(light), activations(none));
  EXPECT_LT(activations(block), activations(light));
  for (Net* net : {&none, &light, &block}) {
    net->run(0, {Mode::train, true, false});
    net->run(100, {Mode::train, false, true});
  }
  EXPECT_TRUE(same_bits(light.gradients(), none.gradients()));
  EXPECT_TRUE(same_bits(block.gradients(), none.gradients()));
}

TEST_P(Residual, TwoRunsGiveTheSameBits) {
  Net a(RecomputePolicy::none, GetParam()), b(RecomputePolicy::none, GetParam());
  a.run(7);
  b.run(50);
  b.run(7);
  EXPECT_TRUE(same_bits(a.gradients(), b.gradients()));
}

TEST_P(Residual, RunningStatisticsMoveByTheMeanOverMicroBatches) {
  Net one(RecomputePolicy::none, GetParam()), two(RecomputePolicy::none, GetParam());
  Optimizer rule(*one.device, {Sgd{}}, one.store.layout());
  const FlatState& mean = one.store.layout().states.at(0);
  const FlatState& variance = one.store.layout().states.at(1);
  EXPECT_EQ(mean.name, "stem_norm.running_mean");
  EXPECT_EQ(one.store.params()[mean.offset], 0.0f);
  EXPECT_EQ(one.store.params()[variance.offset], 1.0f);
  one.run(0);
  const std::vector<float> first = one.gradients();
  one.run(100);
  const std::vector<float> second = one.gradients();
  two.run(0, {Mode::train, true, false});
  two.run(100, {Mode::train, false, true});
  two.state.micro_batches = 2;
  rule.update_states(two.store, two.state, *two.stream);
  for (const FlatState* s : {&mean, &variance}) {
    for (std::size_t i = s->offset; i < s->offset + s->size; ++i) {
      const float seen = (first[i] + second[i]) / 2;
      EXPECT_FLOAT_EQ(two.store.params()[i], s->initial + 0.1f * (seen - s->initial)) << s->name;
    }
  }
}

TEST_P(Residual, EvaluationReadsTheRunningStatisticsAndLeavesThemAlone) {
  Net net(RecomputePolicy::none, GetParam());
  const std::vector<float> before(net.store.params(), net.store.params() + net.store.layout().total_floats());
  net.run(0, {Mode::evaluate, true, true});
  const float loss = net.store.loss_sums().as<float>()[loss_sum];
  EXPECT_TRUE(same_bits(before, {net.store.params(), net.store.params() + before.size()}));
  for (const FlatState& s : net.store.layout().states)
    for (std::size_t i = 0; i < s.size; ++i) net.store.params()[s.offset + i] += 0.5f;
  net.run(0, {Mode::evaluate, true, true});
  EXPECT_NE(loss, net.store.loss_sums().as<float>()[loss_sum]);
}

TEST(ResidualPlan, BlocksThatAreAliveTogetherDoNotOverlapUnderAnyPolicy) {
  for (const auto policy : {RecomputePolicy::none, RecomputePolicy::light, RecomputePolicy::block}) {
    const Plan plan = make_plan(residual_net(6, DType::bf16), Net::options(policy));
    for (std::size_t i = 0; i < plan.train.blocks.size(); ++i) {
      for (std::size_t j = i + 1; j < plan.train.blocks.size(); ++j) {
        const Block &a = plan.train.blocks[i], &b = plan.train.blocks[j];
        if (a.last < b.first || b.last < a.first) continue;
        EXPECT_TRUE(a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset) << a.name << " and " << b.name;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, Residual, testing::Values(DType::f32, DType::bf16),
                         [](const auto& row) { return std::string(name_of(row.param)); });

}  // namespace
}  // namespace dtrain
