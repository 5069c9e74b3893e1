// Shards of buckets (ZeRO-1): how layouts are cut for them, and that updates and norms by shards are those of the
// whole.
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "runtime/optim/update.hpp"
#include "runtime/plan/plan.hpp"
#include "runtime/tensor/error.hpp"
#include "tests/support/op_table.hpp"
#include "tests/support/reachable_device.hpp"

namespace dtrain {
namespace {

Graph mlp() {
  Graph g(4);
  const auto x = g.add_input(PortUse::input, "sample", {DType::f32, Shape{4, 77}});
  const auto y = g.add_input(PortUse::target, "target", {DType::i32, Shape{4}});
  const auto w = g.add_input(PortUse::weight, "weight", {DType::f32, Shape{4}});
  auto v = g.add("dense_1", Dense{.units = 501}, {x});
  v = g.add("dense_2", Dense{.units = 203}, {v});
  v = g.add("dense_3", Dense{.units = 10}, {v});
  g.add("loss", SoftmaxCrossEntropy{}, {v, y, w});
  return g;
}

Plan plan_for(int shards, bool whole = false) {
  PlanOptions options;
  options.buckets = {
      .bucket_mib = 0.1, .last_bucket_mib = 0.02, .smallest_mib = 0.02, .shards = shards, .whole = whole};
  return make_plan(mlp(), options);
}

TEST(Shards, AreEqualSharesOfWholeNormBlocksAndMoveNoParameter) {
  const Plan whole = plan_for(1);
  for (int ranks : {2, 3, 4, 8}) {
    const Plan plan = plan_for(ranks);
    const FlatLayout& layout = plan.layout;
    ASSERT_EQ(layout.params.size(), whole.layout.params.size());
    for (std::size_t p = 0; p < layout.params.size(); ++p)
      EXPECT_EQ(layout.params[p].offset, whole.layout.params[p].offset);
    EXPECT_LT(layout.param_floats - whole.layout.param_floats, norm_block * static_cast<std::size_t>(ranks));
    EXPECT_GT(layout.buckets.size(), 1u);
    std::size_t at = 0;
    for (std::size_t b = 0; b < layout.buckets.size(); ++b) {
      for (int r = 0; r < ranks; ++r) {
        const Bucket shard = shard_of(layout, b, {r, ranks});
        EXPECT_EQ(shard.begin, at);
        EXPECT_EQ(shard.begin % norm_block, 0u);
        EXPECT_EQ(shard.end - shard.begin, shard_of(layout, b, {0, ranks}).end - shard_of(layout, b, {0, ranks}).begin);
        at = shard.end;
      }
    }
    EXPECT_EQ(at, layout.param_floats);
    EXPECT_EQ(layout.buckets.back().end, layout.total_floats());
    const double shard =
        static_cast<double>(memory_use(plan, 2, ranks).optimizer) / static_cast<double>(memory_use(whole, 2).optimizer);
    EXPECT_NEAR(shard, 1.0 / ranks, 0.03);
  }
}

class ShardUpdates : public test::OnEachDevice {};
DTRAIN_ON_EACH_DEVICE(ShardUpdates);

TEST_P(ShardUpdates, AreBitForBitThoseOfTheWhole) {
  const UpdateRule rules[] = {{Sgd{0.1, 0, 0.01, false}},
                              {Sgd{0.1, 0.9, 0.01, true}},
                              {Adam{0.01, 0.9, 0.999, 1e-8, 0.1}},
                              {AdamW{0.01, 0.9, 0.999, 1e-8, 0.1}}};
  const auto device = make_device();
  const auto stream = device->make_stream(StreamUse::compute);
  for (const UpdateRule& rule : rules) {
    const FlatLayout one = plan_for(1).layout;
    const ParameterStore whole(*device, one);
    Optimizer all(*device, rule, one);
    for (int ranks : {2, 4}) {
      const FlatLayout layout = plan_for(ranks).layout;
      const ParameterStore cut(*device, layout);  // as after the gather: each rank wrote its shards
      std::vector<std::unique_ptr<Optimizer>> optimizers;
      for (int r = 0; r < ranks; ++r) {
        optimizers.push_back(std::make_unique<Optimizer>(*device, rule, layout, Shard{r, ranks}));
        EXPECT_EQ(optimizers.back()->state_floats(), layout.param_floats / static_cast<std::size_t>(ranks));
      }
      Optimizer fresh(*device, rule, one);
      const auto start = test::signed_draws(3, 0, one.param_floats);
      for (const FlatParam& p : one.params)
        for (std::size_t i = p.offset; i < p.offset + p.size; ++i) whole.params()[i] = cut.params()[i] = start[i];
      test::Reachable<StepState> state(1, test::FromDevice<StepState>(*device));
      StepState& step = state[0];
      step.learning_rate = 0.1f;
      step.sum_weight = 3;
      for (std::uint64_t t = 0; t < 3; ++t) {
        step.applied_steps = t;
        const auto draws = test::signed_draws(3, 1 + t, one.param_floats);
        for (const FlatParam& p : one.params)
          for (std::size_t i = p.offset; i < p.offset + p.size; ++i)
            whole.gradients()[i] = cut.gradients()[i] = draws[i];
        // The norm from shards is that of the whole, bit for bit.
        std::vector<double> squares;
        for (auto& o : optimizers) {
          const auto own = o->block_squares(cut, *stream);
          stream->synchronize();
          squares.resize(own.size());
          for (std::size_t i = 0; i < own.size(); ++i) squares[i] += own[i];
        }
        const auto of_whole = fresh.block_squares(whole, *stream);
        stream->synchronize();
        EXPECT_EQ(std::accumulate(squares.begin(), squares.end(), 0.0),
                  std::accumulate(of_whole.begin(), of_whole.end(), 0.0));
        fresh.update(whole, 0, one.param_floats, step, *stream);
        for (std::size_t b = 0; b < layout.buckets.size(); ++b)
          for (auto& o : optimizers) o->update_bucket(cut, b, step, *stream);
        stream->synchronize();
        for (std::size_t i = 0; i < one.param_floats; ++i) ASSERT_EQ(cut.params()[i], whole.params()[i]) << i;
        for (std::size_t i = one.param_floats; i < layout.total_floats(); ++i) ASSERT_EQ(cut.params()[i], 0.0f);
      }
      EXPECT_NE(whole.params()[0], start[0]);
    }
  }
}

TEST_P(ShardUpdates, OfWholeParametersAreBitForBitThoseOfTheWhole) {
  const UpdateRule rules[] = {{Lars{}},
                              {Lars{0.1, 0, 0.01, 0.001, 1e-9, false}},
                              {Lars{0.1, 0.9, 0.01, 0.001, 1e-9, true}},
                              {Lamb{0.01, 0.9, 0.999, 1e-6, 0.1}}};
  const auto device = make_device();
  const auto stream = device->make_stream(StreamUse::compute);
  for (const UpdateRule& rule : rules)
    for (const int ranks : {2, 4, 8}) {  // of six parameters: with 8, some have none
      const FlatLayout one = plan_for(1).layout, layout = plan_for(ranks, true).layout;
      const ParameterStore whole(*device, one), cut(*device, layout);
      Optimizer all(*device, rule, one);
      std::vector<std::unique_ptr<Optimizer>> optimizers;
      std::size_t state = 0;
      for (int r = 0; r < ranks; ++r) {
        optimizers.push_back(std::make_unique<Optimizer>(*device, rule, layout, Shard{r, ranks}));
        state += optimizers.back()->state_floats();
      }
      EXPECT_EQ(state, layout.param_floats);
      const auto start = test::signed_draws(3, 0, one.param_floats);
      for (const FlatParam& p : one.params)
        for (std::size_t i = p.offset; i < p.offset + p.size; ++i) whole.params()[i] = cut.params()[i] = start[i];
      test::Reachable<StepState> step(1, test::FromDevice<StepState>(*device));
      step[0].learning_rate = 0.1f;
      step[0].sum_weight = 3;
      for (std::uint64_t t = 0; t < 3; ++t) {
        step[0].applied_steps = t;
        const auto draws = test::signed_draws(3, 1 + t, one.param_floats);
        for (const FlatParam& p : one.params)
          for (std::size_t i = p.offset; i < p.offset + p.size; ++i)
            whole.gradients()[i] = cut.gradients()[i] = draws[i];
        all.update(whole, 0, one.param_floats, step[0], *stream);
        for (auto& o : optimizers) o->update(cut, 0, layout.param_floats, step[0], *stream);
        // All ranks have all gradients, and so the norm.
        const auto of_whole = all.block_squares(whole, *stream), of_rank = optimizers[0]->block_squares(cut, *stream);
        stream->synchronize();
        EXPECT_EQ(std::accumulate(of_rank.begin(), of_rank.end(), 0.0),
                  std::accumulate(of_whole.begin(), of_whole.end(), 0.0));
        for (std::size_t i = 0; i < one.param_floats; ++i) ASSERT_EQ(cut.params()[i], whole.params()[i]) << i;
      }
      EXPECT_NE(whole.params()[0], start[0]);
    }
}

TEST_P(ShardUpdates, AreRefusedToRulesThatNeedWholeParametersWhereSharesCutThem) {
  const auto device = make_device();
  const FlatLayout layout = plan_for(2).layout;
  EXPECT_THROW(Optimizer(*device, {Lars{}}, layout, {0, 2}), BugError);
  EXPECT_THROW(Optimizer(*device, {Lamb{}}, layout, {1, 2}), BugError);
  const Optimizer alone(*device, {Lamb{}}, plan_for(1).layout, {0, 1});
  EXPECT_FALSE(alone.sharded());
}

}  // namespace
}  // namespace dtrain
