// Weights of a step: loss and gradients are the same however ranks and micro batches share the global batch, and have
// the same bits where they are added in a tree.
#include <cmath>
#include <mutex>
#include <optional>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "comm/collective/reducer.hpp"
#include "comm/world/local.hpp"
#include "runtime/ops/kernels.hpp"
#include "runtime/optim/step_math.hpp"
#include "runtime/optim/update.hpp"
#include "runtime/optim/update_math.hpp"
#include "runtime/program/micro_batch_tree.hpp"
#include "runtime/program/program.hpp"
#include "runtime/program/step_memory.hpp"
#include "runtime/random/rng.hpp"

namespace dtrain::comm {
namespace {

constexpr std::int64_t global = 32, length = 6;
constexpr int steps = 3;
// f32 sums of the same few hundred terms in another order.
constexpr double tolerance = 1e-6;

float draw(std::uint64_t position, std::uint32_t what, std::int64_t i) {
  return to_unit(draw4(random_key(17, Purpose::test), position, what, static_cast<std::uint32_t>(i)).v[0]);
}

struct Split {
  int ranks = 1, micro_batches = 1;
  bool masked = false, tree = false;
  std::int64_t batch() const { return global / (ranks * micro_batches); }
};

Graph model(std::int64_t batch, bool masked) {
  Graph g(batch);
  const auto x = g.add_input(PortUse::input, "x", {DType::f32, Shape{batch, length, 5}});
  const auto labels = g.add_input(PortUse::target, "labels", {DType::u8, Shape{batch, length}});
  const auto target = g.add_input(PortUse::target, "target", {DType::f32, Shape{batch, length, 2}});
  const auto each = g.add_input(PortUse::weight, "each", {DType::f32, Shape{batch, length}});
  const auto whole = g.add_input(PortUse::weight, "whole", {DType::f32, Shape{batch}});
  const auto trunk = g.add("trunk", Dense{.units = 16, .activation = Activation::tanh}, {x});
  SoftmaxCrossEntropy entropy;
  if (masked) entropy.ignore = 6;
  g.add_loss("class", entropy, {g.add("classes", Dense{.units = 7}, {trunk}), labels, each}, 1, masked);
  g.add_loss("price", MeanSquaredError{}, {g.add("prices", Dense{.units = 2}, {trunk}), target, whole}, 0.5, masked);
  return g;
}

float each_weight(std::uint64_t position, std::int64_t i, bool masked) {
  return masked ? static_cast<float>((position * 7 + static_cast<std::uint64_t>(i)) % 5) * 0.3f : 1.0f;
}
float whole_weight(std::uint64_t position, bool masked) {
  return masked ? static_cast<float>(position % 3) * 0.7f : 1.0f;
}
std::uint8_t label(std::uint64_t position, std::int64_t i) {
  return static_cast<std::uint8_t>(draw(position, 1, i) * 7);
}

void fill(const InputSlot& slot, std::uint64_t first, const Split& split) {
  for (std::int64_t n = 0; n < split.batch(); ++n) {
    const std::uint64_t position = first + static_cast<std::uint64_t>(n);
    for (std::int64_t i = 0; i < length * 5; ++i)
      slot.inputs[0].as<float>()[n * length * 5 + i] = 2 * draw(position, 0, i) - 1;
    for (std::int64_t i = 0; i < length * 2; ++i) slot.inputs[2].as<float>()[n * length * 2 + i] = draw(position, 2, i);
    for (std::int64_t i = 0; i < length; ++i) {
      slot.inputs[1].as<std::uint8_t>()[n * length + i] = label(position, i);
      slot.inputs[3].as<float>()[n * length + i] = each_weight(position, i, split.masked);
    }
    slot.inputs[4].as<float>()[n] = whole_weight(position, split.masked);
    slot.positions.as<std::uint64_t>()[n] = position;
  }
}

/// What a rank counts of its share of a step.
std::array<std::uint64_t, 2> weights(std::uint64_t first, std::int64_t count) {
  std::array<std::uint64_t, 2> units{};
  for (std::uint64_t p = first; p < first + static_cast<std::uint64_t>(count); ++p) {
    for (std::int64_t i = 0; i < length; ++i)
      if (label(p, i) != 6) units[0] += weight_units(each_weight(p, i, true));
    units[1] += static_cast<std::uint64_t>(length) * weight_units(whole_weight(p, true));
  }
  return units;
}

struct Seen {
  std::vector<double> losses, weights;
  std::vector<float> gradients;  // of the step's mean, of all steps
  std::vector<float> params;     // at the end
};

Seen train(LocalRank& rank, const Split& split) {
  const auto device = make_cpu_device(1);
  const auto compute = device->make_stream(StreamUse::compute);
  const auto collective = rank.make_collective(Algorithm::fixed_order);
  const auto group = rank.make_group();
  PlanOptions options;
  options.buckets.bucket_mib = 0.001;
  Program program(*device, model(split.batch(), split.masked), options);
  const FlatLayout& layout = program.plan().layout;
  const ParameterStore store(*device, layout);
  initialize(store.params(), layout, program.plan().graph, 2);
  program.pack(store, *compute);
  GradientReducer reducer(*device, *collective, store, {});
  std::optional<MicroBatchTree> tree;
  if (split.tree) tree.emplace(*device, store, split.micro_batches, reducer);
  Optimizer optimizer(*device, {Sgd{}}, layout);
  StepMemory memory(*device);
  const LossRule rule = program.plan().graph.loss_rule();
  const std::int64_t share = global / split.ranks;
  const auto first_of = [&](int step) { return static_cast<std::uint64_t>(step * global + rank.rank() * share); };

  StepState start;
  const auto mine = weights(first_of(0), share);
  for (std::size_t k = 0; k < 2; ++k) {
    std::uint64_t all = 0;
    for (const std::uint64_t theirs : group->all_values(mine[k])) all += theirs;
    start.loss_weight[k] = split.masked ? weight_of(all) : static_cast<double>(global * length);
  }
  weigh_losses(start, rule);
  memory.reset(start, *compute);
  Seen seen;
  for (int step = 0; step < steps; ++step) {
    StepState begin;
    begin.step = static_cast<std::uint64_t>(step);
    begin.learning_rate = 0.3f;
    memory.begin(begin, *compute);
    reducer.begin_step();
    for (int j = 0; j < split.micro_batches; ++j) {
      const bool last = j + 1 == split.micro_batches;
      fill(program.slot(j % 2), first_of(step) + static_cast<std::uint64_t>(j * split.batch()), split);
      float* const tail = store.gradients() + layout.tail_begin();
      const std::size_t counted = split.masked ? 2 : 0;
      if (last) {
        StepTail told;
        const auto next = weights(first_of(step + 1), share);
        for (std::size_t k = 0; k < counted; ++k) split_weight(next[k], told.weights + k * weight_limbs);
        memory.write_tail(told, counted, tail, *compute);
      } else if (tree) {
        device->zero(tail, StepTail::floats(counted) * sizeof(float), *compute);
      }
      if (tree) tree->begin(j);
      program.run({Mode::train, j == 0 || tree, last}, j % 2, store, memory.state(),
                  tree ? static_cast<StepHooks&>(*tree) : reducer, *compute);
      if (tree && !last) tree->keep(*compute);
    }
    reducer.wait_all(*compute);
    StepState& state = memory.state();
    device->kernels().finish_gradients({.step = &state}, *compute);
    for (std::size_t i = 0; i < layout.param_floats; ++i)
      seen.gradients.push_back(store.gradients()[i] * gradient_factor(state));
    optimizer.update(store, 0, layout.param_floats, state, *compute);
    program.pack(store, *compute);
    device->kernels().finish_step({.step = &state, .sums = store.gradients() + layout.state_end(), .losses = rule},
                                  *compute);
    memory.end(*compute);
    const StepState& done = memory.read();
    seen.losses.push_back(step_loss(done, rule));
    for (std::size_t k = 0; k < 2; ++k) seen.weights.push_back(done.ended_weight[k]);
  }
  seen.params.assign(store.params(), store.params() + layout.param_floats);
  return seen;
}

Seen run(const Split& split) {
  std::mutex mutex;
  Seen of_first;
  run_local(split.ranks, [&](LocalRank& rank) {
    Seen seen = train(rank, split);
    const std::lock_guard lock(mutex);
    if (rank.rank() == 0) of_first = std::move(seen);
  });
  return of_first;
}

double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return a.size() == b.size() ? std::sqrt(difference / norm) : HUGE_VAL;
}

TEST(Weights, are_the_same_for_every_split_over_ranks_and_micro_batches) {
  for (const bool masked : {false, true}) {
    const Seen one = run({.masked = masked});
    if (masked) {  // they differ from step to step, and from loss to loss
      EXPECT_NE(one.weights[0], one.weights[2]);
      EXPECT_NE(one.weights[0], one.weights[1]);
    }
    for (const bool tree : {false, true}) {
      for (const int ranks : {1, 2, 4}) {
        for (const int micro_batches : {1, 2, 8}) {
          SCOPED_TRACE(
              fmt::format("{} ranks, {} micro batches, masked {}, tree {}", ranks, micro_batches, masked, tree));
          const Seen seen = run({ranks, micro_batches, masked, tree});
          EXPECT_EQ(seen.weights, one.weights);
          ASSERT_EQ(seen.losses.size(), one.losses.size());
          for (std::size_t s = 0; s < seen.losses.size(); ++s)
            EXPECT_NEAR(seen.losses[s], one.losses[s], tolerance * one.losses[s]);
          EXPECT_LE(relative_error(seen.gradients, one.gradients), tolerance);
        }
      }
    }
  }
}

TEST(Weights, give_the_same_bits_in_a_tree_whoever_computes_a_micro_batch) {
  for (const bool masked : {false, true}) {
    const Seen one = run({1, 8, masked, true});
    for (const int ranks : {2, 4, 8}) {
      SCOPED_TRACE(fmt::format("{} ranks, masked {}", ranks, masked));
      const Seen seen = run({ranks, 8 / ranks, masked, true});
      EXPECT_EQ(seen.weights, one.weights);
      EXPECT_EQ(seen.losses, one.losses);
      EXPECT_EQ(seen.gradients, one.gradients);
      EXPECT_EQ(seen.params, one.params);
    }
  }
}

}  // namespace
}  // namespace dtrain::comm
