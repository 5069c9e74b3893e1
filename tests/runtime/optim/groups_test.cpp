// Groups of parameters by name: which group decides, and what a pattern that fits nothing is told.
#include "runtime/optim/groups.hpp"

#include <vector>

#include <gtest/gtest.h>

#include "runtime/graph/graph.hpp"
#include "runtime/plan/plan.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain {
namespace {

Graph model() {
  Graph g(4);
  const auto x = g.add_input(PortUse::input, "sample", {DType::f32, Shape{4, 3}});
  const auto y = g.add_input(PortUse::target, "target", {DType::i32, Shape{4}});
  const auto w = g.add_input(PortUse::weight, "weight", {DType::f32, Shape{4}});
  auto v = g.add("layer1_fc", Dense{.units = 7}, {x});
  v = g.add("layer2_fc", Dense{.units = 7}, {v});
  v = g.add("head", Dense{.units = 5}, {v});
  g.add("loss", SoftmaxCrossEntropy{}, {v, y, w});
  return g;
}

const ParamUpdate& of(const Graph& g, const std::string& name) {
  for (const GraphParam& p : g.params())
    if (p.name == name) return p.update;
  throw BugError(name);
}

std::string error_of(const std::vector<ParameterGroup>& groups) {
  Graph g = model();
  try {
    apply_groups(g, groups);
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "no error";
}

TEST(ParameterGroups, the_last_group_that_matches_decides_with_all_that_it_says) {
  Graph g = model();
  apply_groups(g,
               std::vector<ParameterGroup>{{"*", 1, {}, true}, {"layer[2-9]_*", 0.1, 0.0}, {"head.*"}, {"*.bias", 2}});
  EXPECT_EQ(of(g, "layer1_fc.weight"), (ParamUpdate{true, 1, {}}));
  EXPECT_EQ(of(g, "layer2_fc.weight"), (ParamUpdate{false, 0.1, 0.0}));
  EXPECT_EQ(of(g, "head.weight"), ParamUpdate());
  EXPECT_EQ(of(g, "layer1_fc.bias"), (ParamUpdate{false, 2, {}}));
  EXPECT_EQ(of(g, "head.bias"), (ParamUpdate{false, 2, {}}));
  EXPECT_EQ(g.frozen_count(), 21);
}

TEST(ParameterGroups, without_groups_nothing_changes) {
  Graph g = model();
  apply_groups(g, {});
  for (const GraphParam& p : g.params()) EXPECT_EQ(p.update, ParamUpdate());
}

TEST(ParameterGroups, a_pattern_that_matches_nothing_is_told_the_nearest_name) {
  EXPECT_EQ(error_of({{"head.*"}, {"layr1_fc.weight", 1, {}, true}}),
            "optimizer.groups.1.match: \"layr1_fc.weight\" matches no parameter of the model; did you mean "
            "\"layer1_fc.weight\"?");
  EXPECT_EQ(error_of({{"haed*"}}),
            "optimizer.groups.0.match: \"haed*\" matches no parameter of the model; did you mean \"head.*\"?");
  EXPECT_EQ(error_of({{"encoder.*"}}),
            "optimizer.groups.0.match: \"encoder.*\" matches no parameter of the model; the first parameter is "
            "\"layer1_fc.weight\"; dtrain check lists all layers");
}

Graph with_norms(bool of_all_ranks) {
  Graph g(4);
  auto v = g.add_input(PortUse::input, "sample", {DType::f32, Shape{4, 3}});
  const auto y = g.add_input(PortUse::target, "target", {DType::i32, Shape{4}});
  const auto w = g.add_input(PortUse::weight, "weight", {DType::f32, Shape{4}});
  for (const std::string n : {"1", "2"}) {
    v = g.add("fc" + n, Dense{.units = 5}, {v});
    if (!of_all_ranks) {
      v = g.add("bn" + n, BatchNorm{}, {v});
      continue;
    }
    const auto moments = g.add("bn" + n + "_moments", BatchMoments{}, {v});
    v = g.add("bn" + n, BatchNormalize{}, {v, g.add("bn" + n + "_sum", SumOverRanks{}, {moments})});
  }
  g.add_output("logits", v);
  g.add("loss", SoftmaxCrossEntropy{}, {v, y, w});
  return g;
}

TEST(ParameterGroups, statistics_of_batch_norms_stay_where_their_weight_is_told_so) {
  for (const bool of_all_ranks : {false, true}) {
    Graph g = with_norms(of_all_ranks);
    ParameterGroup frozen{.match = "*1.*", .frozen = true, .frozen_statistics = true};
    apply_groups(g, std::vector<ParameterGroup>{frozen, {"*.bias"}});
    EXPECT_EQ(g.nodes().size(), of_all_ranks ? 7u : 5u);
    for (const GraphNode& node : g.nodes()) {
      const auto* norm = std::get_if<BatchNorm>(&node.op);
      EXPECT_EQ(norm != nullptr && norm->frozen_statistics, node.name == "bn1") << node.name;
      for (const ValueId v : node.out) EXPECT_EQ(g.values().at(static_cast<std::size_t>(v)).name, node.name);
      for (const StateId s : node.states)
        EXPECT_EQ(g.states().at(static_cast<std::size_t>(s)).momentum, node.name == "bn1" ? 0 : 0.1);
    }
    EXPECT_EQ(g.outputs()[0].value, g.nodes().back().in[0]);
    EXPECT_EQ(g.losses()[0].node, static_cast<NodeId>(g.nodes().size()) - 1);
    EXPECT_NO_THROW((void)make_plan(std::move(g), {}));
  }
}

TEST(ParameterGroups, statistics_without_a_batch_norm_are_an_error) {
  for (const char* match : {"fc1.*", "bn1.bias"}) {
    Graph g = with_norms(false);
    try {
      apply_groups(g, std::vector<ParameterGroup>{{.match = match, .frozen_statistics = true}});
      FAIL() << match;
    } catch (const ConfigError& e) {
      EXPECT_NE(std::string(e.what()).find("optimizer.groups.0.statistics: frozen, but "), std::string::npos)
          << e.what();
    }
  }
}

TEST(ParameterGroups, something_is_left_to_train) {
  EXPECT_EQ(error_of({{"*", 1, {}, true}}), "optimizer.groups: all parameters are frozen; expected some to train");
}

}  // namespace
}  // namespace dtrain
