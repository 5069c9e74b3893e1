#include "runtime/plan/plan.hpp"

#include <map>

#include <gtest/gtest.h>

#include "runtime/plan/graph_analysis.hpp"
#include "runtime/random/rng.hpp"

namespace dtrain {
namespace {

Graph small_cnn(std::int64_t batch) {
  Graph g(batch);
  const auto x = g.add_input(PortUse::input, "sample", {DType::f32, Shape{batch, 12, 12, 1}});
  const auto y = g.add_input(PortUse::target, "target", {DType::i32, Shape{batch}});
  const auto w = g.add_input(PortUse::weight, "weight", {DType::f32, Shape{batch}});
  auto v = g.add("conv2d_1", Conv{.filters = 8, .kernel = {3, 3}, .activation = Activation::relu}, {x});
  v = g.add("maxpool2d_1", MaxPool{}, {v});
  v = g.add("flatten_1", Flatten{}, {v});
  v = g.add("dropout_1", Dropout{.rate = 0.25, .id = 1}, {v});
  v = g.add("dense_1", Dense{.units = 16, .activation = Activation::relu}, {v});
  v = g.add("dense_2", Dense{.units = 10}, {v});
  g.add("loss", SoftmaxCrossEntropy{}, {v, y, w});
  return g;
}

void expect_no_overlap(const std::vector<Block>& blocks, std::size_t arena) {
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    EXPECT_EQ(blocks[i].offset % 64, 0u);
    EXPECT_LE(blocks[i].offset + blocks[i].bytes, arena);
    for (std::size_t j = i + 1; j < blocks.size(); ++j) {
      const Block &a = blocks[i], &b = blocks[j];
      if (a.last < b.first || b.last < a.first) continue;
      EXPECT_TRUE(a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset) << a.name << " and " << b.name;
    }
  }
}

TEST(PackBlocks, NeverOverlapsWhatIsAliveTogether) {
  for (std::uint32_t round = 0; round < 50; ++round) {
    std::vector<Block> blocks;
    for (std::uint32_t i = 0; i < 40; ++i) {
      const Random4 r = draw4(random_key(7, Purpose::test), round, 0, i);
      const int first = static_cast<int>(r.v[0] % 50);
      blocks.push_back(
          {MemoryKind::activation, std::to_string(i), r.v[1] % 5000, first, first + static_cast<int>(r.v[2] % 10), 0});
    }
    const std::size_t arena = pack_blocks(blocks);
    expect_no_overlap(blocks, arena);
    std::size_t sum = 0;
    for (const Block& b : blocks) sum += (b.bytes + 63) / 64 * 64;
    EXPECT_LT(arena, sum);  // sharing happened
  }
}

TEST(CutBuckets, CoversEverythingInOrderWithASmallLastOne) {
  const BucketOptions options{.bucket_mib = 1, .last_bucket_mib = 0.25};
  for (std::size_t total : {16u, 1000u, 70'000u, 262'144u, 1'000'000u, 25'557'032u}) {
    const auto buckets = cut_buckets(total, options);
    std::size_t at = 0;
    for (const Bucket& b : buckets) {
      EXPECT_EQ(b.begin, at);
      EXPECT_GT(b.end, b.begin);
      EXPECT_LE(b.bytes(), (1u << 20) + 4096);
      at = b.end;
    }
    EXPECT_EQ(at, total);
    if (total >= 262'144u) {
      EXPECT_GE(buckets.size(), 4u);
      EXPECT_LE(buckets.back().bytes(), (1u << 18) + 4096);
    }
  }
}

TEST(Plan, OrdersParametersAsBackwardFinishesThem) {
  const Plan plan = make_plan(small_cnn(4), {});
  std::vector<std::string> names;
  for (const auto& p : plan.layout.params) names.push_back(p.name);
  EXPECT_EQ(names, (std::vector<std::string>{"dense_2.weight", "dense_2.bias", "dense_1.weight", "dense_1.bias",
                                             "conv2d_1.weight", "conv2d_1.bias"}));
  for (const auto& p : plan.layout.params) EXPECT_EQ(p.offset % FlatLayout::alignment, 0u);
}

TEST(Plan, EveryBucketIsReadyOnceAndOnlyWhenItsGradientsAreComplete) {
  PlanOptions options;
  options.buckets = {.bucket_mib = 0.004, .last_bucket_mib = 0.004, .at_least = 1, .smallest_mib = 0.004};
  const Plan plan = make_plan(small_cnn(4), options);
  ASSERT_GT(plan.layout.buckets.size(), 2u);
  std::map<ParamId, bool> done;
  int next = 0;
  for (const Step& step : plan.train.steps) {
    if (const NodeId n = params_gradient_node(step); n >= 0)
      for (ParamId id : plan.graph.nodes()[static_cast<std::size_t>(n)].params) done[id] = true;
    if (const auto* r = std::get_if<BucketReady>(&step)) {
      EXPECT_EQ(r->bucket, next++);
      const Bucket& b = plan.layout.buckets[static_cast<std::size_t>(r->bucket)];
      for (const FlatParam& p : plan.layout.params)
        if (p.offset < b.end && p.offset + p.size > b.begin) {
          EXPECT_TRUE(done[p.id]) << p.name;
        }
    }
  }
  EXPECT_EQ(next, static_cast<int>(plan.layout.buckets.size()));
  // The first bucket is on its way before the first convolution's backward begins: that is the overlap.
  std::size_t first_ready = 0, conv = 0;
  for (std::size_t t = 0; t < plan.train.steps.size(); ++t) {
    if (const auto* r = std::get_if<BucketReady>(&plan.train.steps[t]); r && r->bucket == 0) first_ready = t;
    if (const auto* p = std::get_if<BackwardParams>(&plan.train.steps[t]); p && p->node == 0) conv = t;
  }
  EXPECT_LT(first_ready, conv);
}

TEST(Plan, SharesMemoryOnlyWhereNobodyReadsLater) {
  const Plan plan = make_plan(small_cnn(4), {});
  expect_no_overlap(plan.train.blocks, plan.train.arena_bytes);
  expect_no_overlap(plan.evaluate.blocks, plan.evaluate.arena_bytes);
  EXPECT_LT(plan.evaluate.arena_bytes, plan.train.arena_bytes);
  const auto value = [&](const char* name) {
    for (std::size_t v = 0; v < plan.graph.values().size(); ++v)
      if (plan.graph.values()[v].name == name) return v;
    throw BugError(name);
  };
  EXPECT_EQ(plan.train.value[value("flatten_1")], plan.train.value[value("maxpool2d_1")]);  // a view
  EXPECT_EQ(plan.train.value[value("dropout_1")],
            plan.train.value[value("maxpool2d_1")]);  // nobody reads the pool's output later
  EXPECT_NE(plan.train.value[value("conv2d_1")], plan.train.value[value("maxpool2d_1")]);
  EXPECT_EQ(plan.train.gradient[value("sample")], -1);  // nobody wants the gradient of the data
}

TEST(Plan, NamesAnUnusedLayer) {
  Graph g(2);
  const auto x = g.add_input(PortUse::input, "sample", {DType::f32, Shape{2, 4}});
  const auto y = g.add_input(PortUse::target, "target", {DType::f32, Shape{2, 4}});
  const auto w = g.add_input(PortUse::weight, "weight", {DType::f32, Shape{2}});
  g.add("lost", Dense{.units = 3}, {x});
  g.add("loss", MeanSquaredError{}, {g.add("dense", Dense{.units = 4}, {x}), y, w});
  try {
    make_plan(std::move(g), {});
    FAIL() << "expected a ShapeError";
  } catch (const ShapeError& e) {
    EXPECT_STREQ(e.what(), "layer lost: nothing reads its output");
  }
}

/// A trunk with a head that a loss reads, and one that is only an output. `weights`: of that head.
Graph two_heads(bool weights) {
  Graph g(2);
  const auto x = g.add_input(PortUse::input, "sample", {DType::f32, Shape{2, 4}});
  const auto y = g.add_input(PortUse::target, "target", {DType::f32, Shape{2, 3}});
  const auto w = g.add_input(PortUse::weight, "weight", {DType::f32, Shape{2}});
  const auto trunk = g.add("trunk", Dense{.units = 3}, {x});
  const auto scores = g.add("scores", Dense{.units = 3}, {trunk});
  const auto other =
      weights ? g.add("other", Dense{.units = 2}, {trunk}) : g.add("sigmoid", Activate{Activation::sigmoid}, {scores});
  g.add_output("scores", scores);
  g.add_output("other", other);
  g.add_loss("loss", MeanSquaredError{}, {scores, y, w});
  return g;
}

TEST(Plan, WhatNoLossReadsHasNoBackward) {
  const Plan plan = make_plan(two_heads(false), {});
  const auto node = [&](const std::string& name) {
    for (std::size_t n = 0; n < plan.graph.nodes().size(); ++n)
      if (plan.graph.nodes()[n].name == name) return static_cast<NodeId>(n);
    return NodeId{-1};
  };
  int backward = 0, forward = 0;
  for (const Step& step : plan.train.steps) {
    if (backward_node(step) == node("sigmoid")) ++backward;
    if (const auto* f = std::get_if<Forward>(&step)) forward += f->node == node("sigmoid");
  }
  EXPECT_EQ(backward, 0);
  EXPECT_EQ(forward, 1);
  EXPECT_NE(plan.train.gradient[static_cast<std::size_t>(plan.graph.outputs()[0].value)], -1);
}

TEST(Plan, NothingLiesOverAnOutput) {
  // The last step of a prediction could work in place, over the scores that are an output, too.
  Graph g(2);
  const auto scores = g.add("scores", Dense{.units = 3}, {g.add_input(PortUse::input, "x", {DType::f32, Shape{2, 4}})});
  g.add_output("scores", scores);
  g.add_output("chances", g.add("sigmoid", Activate{Activation::sigmoid}, {scores}));
  PlanOptions options;
  options.train = false;
  const Plan plan = make_plan(std::move(g), options);
  const auto place = [&](std::size_t output) {
    return plan.evaluate.value[static_cast<std::size_t>(plan.graph.outputs()[output].value)];
  };
  EXPECT_NE(place(0), place(1));
}

TEST(Plan, NamesALayerThatNoLossCanTrain) {
  try {
    make_plan(two_heads(true), {});
    FAIL() << "expected a ShapeError";
  } catch (const ShapeError& e) {
    EXPECT_STREQ(e.what(),
                 "layer other: no loss reads what it leads to, so that other.weight cannot be trained; give "
                 "its output a loss, or freeze it with optimizer.groups");
  }
  Graph frozen = two_heads(true);
  for (ParamId p = 0; p < static_cast<ParamId>(frozen.params().size()); ++p)
    if (frozen.params()[static_cast<std::size_t>(p)].name.starts_with("other.")) frozen.set_update(p, {.frozen = true});
  EXPECT_NO_THROW(make_plan(std::move(frozen), {}));
}

/// Two norms in a row, so that the gradient of the second's input may lie over that of its output.
Graph two_norms() {
  Graph g(8);
  const auto x = g.add_input(PortUse::input, "sample", {DType::f32, Shape{8, 5}});
  const auto y = g.add_input(PortUse::target, "target", {DType::f32, Shape{8, 4}});
  const auto w = g.add_input(PortUse::weight, "weight", {DType::f32, Shape{8}});
  auto v = g.add("first", Dense{.units = 4}, {x});
  v = g.add("batch", BatchNorm{}, {v});
  v = g.add("layer", LayerNorm{}, {v});
  g.add("loss", MeanSquaredError{}, {v, y, w});
  return g;
}

TEST(Plan, ANormGivesAllItsGradientsInOneStep) {
  const Plan plan = make_plan(two_norms(), {});
  std::vector<NodeId> at_once;
  for (const Step& step : plan.train.steps) {
    if (const auto* b = std::get_if<Backward>(&step)) at_once.push_back(b->node);
    if (const auto* b = std::get_if<BackwardData>(&step)) {
      EXPECT_EQ(b->node, 3);
    }
    if (const auto* b = std::get_if<BackwardParams>(&step)) {
      EXPECT_EQ(b->node, 0);
    }
  }
  EXPECT_EQ(at_once, (std::vector<NodeId>{2, 1}));
}

TEST(Plan, KeepsGradientsApartWhereAKernelAsksForIt) {
  for (const bool apart : {false, true}) {
    PlanOptions options;
    options.needs = [&](NodeId n) { return Needs{0, 0, apart && n == 2}; };
    const Plan plan = make_plan(two_norms(), options);
    const auto gradient_of_output = [&](NodeId n) {
      return plan.train.gradient[idx(plan.graph.nodes()[idx(n)].out[0])];
    };
    EXPECT_EQ(gradient_of_output(2) != gradient_of_output(1), apart);
    EXPECT_EQ(gradient_of_output(1), gradient_of_output(0));
    expect_no_overlap(plan.train.blocks, plan.train.arena_bytes);
  }
}

TEST(Plan, WithoutTrainingNeedsTheMemoryOfEvaluationAlone) {
  PlanOptions options;
  options.train = false;
  const Plan alone = make_plan(small_cnn(4), options), both = make_plan(small_cnn(4), {});
  EXPECT_TRUE(alone.train.steps.empty());
  EXPECT_EQ(alone.arena_bytes(), both.evaluate.arena_bytes);
  EXPECT_LT(alone.arena_bytes(), both.arena_bytes());
  EXPECT_EQ(alone.evaluate.steps.size(), both.evaluate.steps.size());
}

TEST(Plan, TellsAKernelWhichGradientsNobodyWants) {
  Graph g = two_norms();
  {
    const Analysis analysis(g, true);
    EXPECT_FALSE(analysis.use_of(0).input_gradient);  // of the data
    EXPECT_TRUE(analysis.use_of(1).input_gradient);
    EXPECT_FALSE(analysis.use_of(1).input_gradient_added);
  }
  Graph twice(8);
  const auto x = twice.add_input(PortUse::input, "sample", {DType::f32, Shape{8, 5}});
  const auto y = twice.add_input(PortUse::target, "target", {DType::f32, Shape{8, 5}});
  const auto w = twice.add_input(PortUse::weight, "weight", {DType::f32, Shape{8}});
  const auto a = twice.add("a", Dense{.units = 5}, {x});
  const auto b = twice.add("b", Dense{.units = 5}, {a});
  twice.add("loss", MeanSquaredError{}, {twice.add("sum", Add{}, {a, b}), y, w});
  const Analysis analysis(twice, true);
  EXPECT_TRUE(analysis.use_of(1).input_gradient_added);   // the sum, later, leaves its share of a's gradient
  EXPECT_FALSE(analysis.use_of(2).input_gradient_added);  // which is the first to do so
  EXPECT_FALSE(analysis.use_of(3).input_gradient_added);
}

TEST(Plan, KeepsRoomForWhatRecomputationWritesAgain) {
  Graph g(2);
  const auto x = g.add_input(PortUse::input, "sample", {DType::f32, Shape{2, 8, 8, 3}});
  const auto y = g.add_input(PortUse::target, "target", {DType::f32, Shape{2, 4}});
  const auto w = g.add_input(PortUse::weight, "weight", {DType::f32, Shape{2}});
  // No gradient of the data is wanted, so that no step of backward belongs to these two; both write their masks again.
  const auto masked = g.add("dropout", Dropout{.rate = 0.5}, {g.add("pool", MaxPool{}, {x})});
  const auto hidden = g.add("hidden", Dense{.units = 4}, {g.add("flatten", Flatten{}, {masked})});
  g.add("loss", MeanSquaredError{},
        {g.add("out", Dense{.units = 4}, {g.add("gelu", Activate{Activation::gelu}, {hidden})}), y, w});
  PlanOptions options;
  options.recompute = RecomputePolicy::light;
  const Plan plan = make_plan(std::move(g), options);
  int seen = 0;
  for (int t = 0; t < static_cast<int>(plan.train.steps.size()); ++t) {
    const auto* again = std::get_if<Recompute>(&plan.train.steps[static_cast<std::size_t>(t)]);
    if (again == nullptr) continue;
    for (const int block : plan.train.saved[static_cast<std::size_t>(again->node)]) {
      EXPECT_GE(plan.train.blocks[static_cast<std::size_t>(block)].last, t) << again->node;
      ++seen;
    }
  }
  EXPECT_EQ(seen, 2);
}

TEST(Plan, SumsContributionsOfATiedParameterAndAValueReadTwice) {
  Graph g(2);
  const auto x = g.add_input(PortUse::input, "sample", {DType::f32, Shape{2, 4}});
  const auto y = g.add_input(PortUse::target, "target", {DType::f32, Shape{2, 4}});
  const auto w = g.add_input(PortUse::weight, "weight", {DType::f32, Shape{2}});
  const auto a = g.add("first", Dense{.units = 4}, {x});
  const auto b = g.add("second", Dense{.units = 4}, {a}, {0, 1});  // tied to the first
  g.add("loss", MeanSquaredError{}, {b, y, w});
  const Plan plan = make_plan(std::move(g), {});
  EXPECT_EQ(plan.layout.params.size(), 2u);
  EXPECT_EQ(plan.train.param_first[1], (std::vector<bool>{true, true}));
  EXPECT_EQ(plan.train.param_first[0], (std::vector<bool>{false, false}));
}

}  // namespace
}  // namespace dtrain
