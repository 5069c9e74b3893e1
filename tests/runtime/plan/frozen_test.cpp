// Frozen parameters in layouts and plans, and shards of whole parameters.
#include <algorithm>

#include <gtest/gtest.h>

#include "runtime/optim/groups.hpp"
#include "runtime/plan/graph_analysis.hpp"
#include "runtime/plan/plan.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain {
namespace {

Graph cnn(const std::vector<ParameterGroup>& groups = {}) {
  Graph g(4);
  const auto x = g.add_input(PortUse::input, "sample", {DType::f32, Shape{4, 12, 12, 1}});
  const auto y = g.add_input(PortUse::target, "target", {DType::i32, Shape{4}});
  const auto w = g.add_input(PortUse::weight, "weight", {DType::f32, Shape{4}});
  auto v = g.add("conv_1", Conv{.filters = 8, .kernel = {3, 3}}, {x});
  v = g.add("norm_1", BatchNorm{}, {v});
  v = g.add("conv_2", Conv{.filters = 8, .kernel = {3, 3}}, {v});
  v = g.add("norm_2", BatchNorm{}, {v});
  v = g.add("flatten", Flatten{}, {v});
  v = g.add("dense_1", Dense{.units = 16, .activation = Activation::relu}, {v});
  v = g.add("dense_2", Dense{.units = 10}, {v});
  g.add("loss", SoftmaxCrossEntropy{}, {v, y, w});
  apply_groups(g, groups);
  return g;
}

std::vector<std::string> backward_of(const Plan& plan) {
  std::vector<std::string> names;
  for (const Step& step : plan.train.steps)
    if (const NodeId n = backward_node(step); n >= 0) {
      const std::string& name = plan.graph.nodes()[idx(n)].name;
      if (names.empty() || names.back() != name) names.push_back(name);
    }
  return names;
}

std::vector<std::string> names_of(std::span<const FlatParam> params) {
  std::vector<std::string> names;
  for (const FlatParam& p : params) names.push_back(p.name);
  return names;
}

TEST(FrozenLayout, lies_behind_all_that_travels) {
  const FlatLayout all = make_plan(cnn(), {}).layout;
  const FlatLayout layout = make_plan(cnn({{"conv_*", 1, {}, true}, {"norm_1.*", 1, {}, true}}), {}).layout;
  EXPECT_EQ(names_of(layout.trained()), (std::vector<std::string>{"dense_2.weight", "dense_2.bias", "dense_1.weight",
                                                                  "dense_1.bias", "norm_2.weight", "norm_2.bias"}));
  EXPECT_EQ(names_of(layout.frozen()), (std::vector<std::string>{"conv_2.weight", "conv_2.bias", "norm_1.weight",
                                                                 "norm_1.bias", "conv_1.weight", "conv_1.bias"}));
  EXPECT_EQ(layout.params.size(), all.params.size());
  EXPECT_EQ(layout.frozen().front().offset, layout.total_floats());
  EXPECT_EQ(layout.buckets.back().end, layout.total_floats());
  EXPECT_EQ(layout.frozen_floats, 8u * 8 * 9 + 16 + 16 + 16 + 80 + 16);  // 8 * 9 aligned to 16 floats is 80
  EXPECT_EQ(layout.all_floats(), all.total_floats());
  EXPECT_EQ(layout.state_floats, all.state_floats);
  EXPECT_EQ(all.frozen_floats, 0u);
  EXPECT_TRUE(all.frozen().empty());
  for (std::size_t i = 0; i < layout.trained().size(); ++i) EXPECT_EQ(layout.params[i].offset, all.params[i].offset);
}

TEST(FrozenLayout, takes_no_gradients_and_no_state_of_an_optimizer) {
  const Plan all = make_plan(cnn(), {}), plan = make_plan(cnn({{"conv_*", 1, {}, true}, {"norm_*", 1, {}, true}}), {});
  const MemoryUse before = memory_use(all, 2), now = memory_use(plan, 2);
  const std::size_t frozen = plan.layout.frozen_floats * sizeof(float);
  EXPECT_EQ(now.parameters, before.parameters);
  EXPECT_EQ(now.gradients, before.gradients - frozen);
  EXPECT_EQ(now.optimizer, before.optimizer - 2 * frozen);
  EXPECT_LT(now.arena, before.arena);  // no gradients of activations
}

TEST(FrozenPlan, runs_backward_down_to_the_lowest_trained_layer) {
  EXPECT_EQ(backward_of(make_plan(cnn({{"conv_*", 1, {}, true}, {"norm_*", 1, {}, true}}), {})),
            (std::vector<std::string>{"loss", "dense_2", "dense_1"}));
  // Data gradients go through frozen layers.
  const Plan through = make_plan(cnn({{"dense_1.*", 1, {}, true}, {"norm_1.*", 1, {}, true}}), {});
  EXPECT_EQ(backward_of(through),
            (std::vector<std::string>{"loss", "dense_2", "dense_1", "norm_2", "conv_2", "norm_1", "conv_1"}));
  for (const Step& step : through.train.steps)
    if (const auto* p = std::get_if<BackwardParams>(&step))
      EXPECT_NE(through.graph.nodes()[idx(p->node)].name, "dense_1");
  const Analysis analysis(through.graph, true);
  for (NodeId n = 0; n < static_cast<NodeId>(through.graph.nodes().size()); ++n) {
    const std::string& name = through.graph.nodes()[idx(n)].name;
    if (name == "dense_1" || name == "norm_1") EXPECT_FALSE(analysis.use_of(n).params_gradient) << name;
    if (name == "dense_2" || name == "conv_1") EXPECT_TRUE(analysis.use_of(n).params_gradient) << name;
  }
  EXPECT_LT(through.train_flops_per_sample, make_plan(cnn(), {}).train_flops_per_sample);
}

TEST(FrozenPlan, completes_every_bucket_and_asks_for_no_frozen_parameter) {
  PlanOptions options;
  options.buckets = {.bucket_mib = 0.004, .last_bucket_mib = 0.002, .at_least = 1, .smallest_mib = 0.002};
  const Plan plan = make_plan(cnn({{"conv_*", 1, {}, true}, {"dense_1.bias", 1, {}, true}}), options);
  ASSERT_GT(plan.layout.buckets.size(), 2u);
  int ready = 0, needed = 0;
  for (const Step& step : plan.train.steps) {
    if (const auto* b = std::get_if<BucketReady>(&step)) EXPECT_EQ(b->bucket, ready++);
    needed += std::holds_alternative<ParamsNeeded>(step);
  }
  EXPECT_EQ(ready, static_cast<int>(plan.layout.buckets.size()));
  EXPECT_EQ(needed, ready);
}

TEST(FrozenPlan, needs_something_to_train) {
  Graph g = cnn();
  for (ParamId p = 0; p < static_cast<ParamId>(g.params().size()); ++p) g.set_update(p, {.frozen = true});
  EXPECT_THROW(make_plan(g, {}), ShapeError);
}

// ---- shards of whole parameters ------------------------------------------------------------------------------------

std::vector<FlatParam> params_of(const std::vector<std::size_t>& sizes, std::size_t& floats) {
  std::vector<FlatParam> params;
  floats = 0;
  for (const std::size_t size : sizes) {
    params.push_back({static_cast<ParamId>(params.size()), "p", Shape{static_cast<std::int64_t>(size)}, floats, size});
    floats += size;
  }
  return params;
}

std::size_t longest(const std::vector<std::size_t>& cuts) {
  std::size_t most = 0;
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) most = std::max(most, cuts[i + 1] - cuts[i]);
  return most;
}

/// The longest run of the best cut, by trying all.
std::size_t best(const std::vector<std::size_t>& sizes, std::size_t from, int runs) {
  std::size_t sum = 0, least = SIZE_MAX;
  for (std::size_t i = from; i < sizes.size(); ++i) {
    sum += sizes[i];
    if (runs > 1) least = std::min(least, std::max(sum, best(sizes, i + 1, runs - 1)));
  }
  return runs == 1 ? sum : from == sizes.size() ? 0 : least;
}

TEST(WholeShards, are_runs_of_whole_parameters_as_even_as_they_can_be) {
  for (const std::vector<std::size_t>& sizes : std::vector<std::vector<std::size_t>>{{64, 16, 16, 16, 64, 32, 16, 48},
                                                                                     {16},
                                                                                     {160, 16, 16},
                                                                                     {16, 16, 160},
                                                                                     {32, 32, 32, 32},
                                                                                     {16, 2400, 16, 16, 80}})
    for (int ranks : {1, 2, 3, 4, 8}) {
      std::size_t floats = 0;
      const auto params = params_of(sizes, floats);
      const auto cuts = cut_whole_shards(params, floats, ranks);
      ASSERT_EQ(cuts.size(), static_cast<std::size_t>(ranks) + 1);
      EXPECT_EQ(cuts.front(), 0u);
      EXPECT_EQ(cuts.back(), floats);
      EXPECT_TRUE(std::is_sorted(cuts.begin(), cuts.end()));
      for (const std::size_t cut : cuts)
        EXPECT_TRUE(cut == floats ||
                    std::any_of(params.begin(), params.end(), [&](const FlatParam& p) { return p.offset == cut; }));
      EXPECT_EQ(longest(cuts), best(sizes, 0, ranks)) << ranks;
    }
}

TEST(WholeShards, leave_parameters_and_buckets_where_they_are_without_shards) {
  PlanOptions options;
  options.buckets = {.bucket_mib = 0.004, .last_bucket_mib = 0.002, .at_least = 1, .smallest_mib = 0.002};
  const FlatLayout alone = make_plan(cnn(), options).layout;
  options.buckets.whole = true;
  options.buckets.shards = 3;
  const FlatLayout layout = make_plan(cnn(), options).layout;
  EXPECT_EQ(layout.param_floats, alone.param_floats);
  ASSERT_EQ(layout.buckets.size(), alone.buckets.size());
  for (std::size_t p = 0; p < layout.params.size(); ++p) EXPECT_EQ(layout.params[p].offset, alone.params[p].offset);
  std::size_t at = 0, state = 0;
  for (int r = 0; r < 3; ++r) state += optimizer_state_floats(layout, {r, 3});
  EXPECT_EQ(state, layout.param_floats);
  for (int r = 0; r < 3; ++r)  // every float has one owner
    for (std::size_t b = 0; b < layout.buckets.size(); ++b) {
      EXPECT_EQ(layout.buckets[b].end, alone.buckets[b].end);
      const Bucket shard = shard_of(layout, b, {r, 3});
      if (shard.begin == shard.end) continue;
      EXPECT_EQ(shard.begin, at);
      at = shard.end;
    }
  EXPECT_EQ(at, layout.param_floats);
}

}  // namespace
}  // namespace dtrain
