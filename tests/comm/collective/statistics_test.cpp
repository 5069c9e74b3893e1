// Batch normalization over all ranks: two local ranks compute what one rank does with both their micro batches.
#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "comm/world/local.hpp"
#include "runtime/program/program.hpp"
#include "runtime/random/rng.hpp"

namespace dtrain::comm {
namespace {

constexpr std::uint64_t seed = 3;
// The same sums, cut in two: f32 gradients of a few hundred terms, moments in f64.
constexpr double tolerance = 1e-5;

ValueId global_norm(Graph& g, const std::string& name, ValueId x, Activation activation) {
  const ValueId moments = g.add(name + "_moments", BatchMoments{}, {x});
  const ValueId sums = g.add(name + "_sums", SumOverRanks{}, {moments});
  return g.add(name, BatchNormalize{.activation = activation}, {x, sums});
}

Graph net(std::int64_t batch, bool global) {
  Graph g(batch);
  const auto x = g.add_input(PortUse::input, "sample", {DType::f32, Shape{batch, 8, 8, 2}});
  const auto y = g.add_input(PortUse::target, "target", {DType::i32, Shape{batch}});
  const auto w = g.add_input(PortUse::weight, "weight", {DType::f32, Shape{batch}});
  auto v = g.add("conv1", Conv{.filters = 8, .kernel = {3, 3}, .padding = {1, 1}, .bias = false}, {x});
  v = global ? global_norm(g, "norm1", v, Activation::relu)
             : g.add("norm1", BatchNorm{.activation = Activation::relu}, {v});
  auto h = g.add("conv2", Conv{.filters = 8, .kernel = {3, 3}, .padding = {1, 1}, .bias = false}, {v});
  h = global ? global_norm(g, "norm2", h, Activation::none) : g.add("norm2", BatchNorm{}, {h});
  v = g.add("add", Add{Activation::relu}, {h, v});
  v = g.add("flat", Flatten{}, {g.add("mean", GlobalAveragePool{}, {v})});
  g.add("loss", SoftmaxCrossEntropy{}, {g.add("head", Dense{.units = 4}, {v}), y, w});
  return g;
}

/// Gradients, statistics and loss sums of the samples [first, first + batch).
std::vector<float> gradients(std::int64_t first, std::int64_t batch, bool global, Collective* ranks) {
  const auto device = make_cpu_device(1);
  const auto stream = device->make_stream(StreamUse::compute);
  Program program(*device, net(batch, global), {}, ranks);
  const ParameterStore store(*device, program.plan().layout);
  initialize(store.params(), store.layout(), program.plan().graph, seed);
  program.pack(store, *stream);
  const InputSlot& slot = program.slot(0);
  for (std::int64_t n = 0; n < batch; ++n) {
    const auto position = static_cast<std::uint64_t>(first + n);
    for (std::int64_t i = 0; i < 128; ++i)  // far from zero, where sums of squares lose digits
      slot.inputs[0].as<float>()[n * 128 + i] =
          5 + to_unit(draw4(random_key(seed, Purpose::test), position, 0, static_cast<std::uint32_t>(i)).v[0]);
    slot.inputs[1].as<std::int32_t>()[n] = static_cast<std::int32_t>(position % 4);
    slot.inputs[2].as<float>()[n] = 1;
    slot.positions.as<std::uint64_t>()[n] = position;
  }
  StepState state;
  NoHooks hooks;
  program.run({}, 0, store, state, hooks, *stream);
  return {store.gradients(), store.gradients() + store.layout().total_floats()};
}

double relative_error(const std::vector<float>& a, const std::vector<float>& b, std::size_t begin, std::size_t end) {
  double difference = 0, norm = 0;
  for (std::size_t i = begin; i < end; ++i) {
    difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / norm);
}

TEST(GlobalStatistics, TwoRanksComputeWhatOneDoesWithBothMicroBatches) {
  const FlatLayout layout = make_plan(net(8, true), {}).layout;
  const std::vector<float> one = gradients(0, 8, true, nullptr), micro = gradients(0, 8, false, nullptr);
  std::vector<std::vector<float>> parts(2);
  run_local(2, [&](LocalRank& rank) {
    const auto ranks = rank.make_collective();
    parts[static_cast<std::size_t>(rank.rank())] = gradients(4 * rank.rank(), 4, true, ranks.get());
  });
  std::vector<float> sum = parts[0];
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += parts[1][i];
  EXPECT_LE(relative_error(sum, one, 0, layout.param_floats), tolerance);
  EXPECT_NEAR(sum[layout.state_end() + loss_sum], one[layout.state_end() + loss_sum],
              tolerance * static_cast<double>(one[layout.state_end() + loss_sum]));
  // Each rank saw the statistics of all.
  EXPECT_LE(relative_error(parts[0], one, layout.param_floats, layout.state_end()), tolerance);
  EXPECT_LE(relative_error(parts[1], one, layout.param_floats, layout.state_end()), tolerance);
  // One rank with moments of its own is plain batch normalization.
  EXPECT_LE(relative_error(one, micro, 0, layout.state_end()), tolerance);
  // And the ranks' own statistics would have been others: the test can tell.
  const std::vector<float> alone = gradients(0, 4, true, nullptr);
  EXPECT_GT(relative_error(alone, one, layout.param_floats, layout.state_end()), 100 * tolerance);
}

}  // namespace
}  // namespace dtrain::comm
