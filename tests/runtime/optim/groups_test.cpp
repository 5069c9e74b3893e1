// Groups of parameters by name: which group decides, and what a pattern that fits nothing is told.
#include "runtime/optim/groups.hpp"

#include <vector>

#include <gtest/gtest.h>

#include "runtime/graph/graph.hpp"
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

TEST(ParameterGroups, something_is_left_to_train) {
  EXPECT_EQ(error_of({{"*", 1, {}, true}}), "optimizer.groups: all parameters are frozen; expected some to train");
}

}  // namespace
}  // namespace dtrain
