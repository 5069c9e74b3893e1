// Adapters beside dense layers: what a model with model.lora becomes, what of it is trained, and what is refused.
#include "models/model/lora.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "models/model/build.hpp"
#include "runtime/optim/groups.hpp"
#include "runtime/plan/plan.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::models {
namespace {

ModelConfig small_gpt(std::vector<std::string> targets) {
  Gpt gpt;
  gpt.blocks = 2;
  gpt.heads = 2;
  gpt.width = 32;
  gpt.context = 8;
  gpt.vocabulary = 100;
  ModelConfig model;
  model.inputs = {{"text", {8}, 100}};
  model.family = gpt;
  if (targets.empty()) return model;
  model.lora.rank = 4;
  model.lora.alpha = 6;
  model.lora.targets = std::move(targets);
  return model;
}
Graph graph_of(const ModelConfig& model, BuildFor use = BuildFor::training) {
  return build(model, 2, DType::f32, {}, use);
}
std::vector<std::string> trained_names(const Graph& graph) {
  std::vector<std::string> names;
  for (const GraphParam& p : graph.params())
    if (!p.update.frozen) names.push_back(p.name);
  return names;
}
const GraphNode& node_of(const Graph& graph, const std::string& name) {
  const auto& nodes = graph.nodes();
  const auto at = std::find_if(nodes.begin(), nodes.end(), [&](const GraphNode& n) { return n.name == name; });
  if (at == nodes.end()) throw BugError("no node " + name);
  return *at;
}
std::string value_of(const Graph& graph, const GraphNode& node, std::size_t i) {
  return graph.values()[static_cast<std::size_t>(node.in.at(i))].name;
}
std::string refusal(const ModelConfig& model) {
  try {
    graph_of(model);
  } catch (const ConfigError& e) {
    return e.what();
  }
  return {};
}

TEST(Lora, puts_two_products_beside_each_dense_layer_that_matches) {
  const Graph base = graph_of(small_gpt({})), graph = graph_of(small_gpt({"h_*_attn_c_attn", "h_1_mlp_c_fc"}));
  EXPECT_EQ(trained_names(graph),
            (std::vector<std::string>{"h_0_attn_c_attn.lora_a.weight", "h_0_attn_c_attn.lora_b.weight",
                                      "h_1_attn_c_attn.lora_a.weight", "h_1_attn_c_attn.lora_b.weight",
                                      "h_1_mlp_c_fc.lora_a.weight", "h_1_mlp_c_fc.lora_b.weight"}));
  EXPECT_EQ(graph.frozen_count(), base.parameter_count());
  EXPECT_EQ(graph.parameter_count() - graph.frozen_count(), 2 * 4 * (32 + 96) + 4 * (32 + 128));
  const GraphNode& sum = node_of(graph, "h_0_attn_c_attn.lora");
  EXPECT_EQ(std::get<Add>(sum.op).factor, 1.5);
  EXPECT_EQ(value_of(graph, sum, 0), "h_0_attn_c_attn");
  EXPECT_EQ(value_of(graph, sum, 1), "h_0_attn_c_attn.lora_b");
  EXPECT_EQ(value_of(graph, node_of(graph, "h_0_attn_c_attn.lora_b"), 0), "h_0_attn_c_attn.lora_a");
  EXPECT_EQ(value_of(graph, node_of(graph, "h_0_attn_c_attn.lora_a"), 0), "h_0_ln_1");
  EXPECT_EQ(value_of(graph, node_of(graph, "h_0_attn"), 0), "h_0_attn_c_attn.lora");
  // PEFT's: uniform within 1 / sqrt(features), and zeros.
  for (const GraphParam& p : graph.params()) {
    if (p.name == "h_0_attn_c_attn.lora_a.weight") {
      EXPECT_EQ(p.init.kind, Init::Kind::uniform);
      EXPECT_NEAR(p.init.scale, 1 / std::sqrt(32.0), 1e-12);
      EXPECT_EQ(p.shape, (Shape{4, 32}));
    } else if (p.name == "h_0_attn_c_attn.lora_b.weight") {
      EXPECT_EQ(p.init.kind, Init::Kind::zeros);
      EXPECT_EQ(p.shape, (Shape{96, 4}));
    }
  }
}

TEST(Lora, an_activation_comes_behind_the_sum) {
  const Graph graph = graph_of(small_gpt({"h_0_mlp_c_fc"}));
  EXPECT_EQ(std::get<Dense>(node_of(graph, "h_0_mlp_c_fc").op).activation, Activation::none);
  EXPECT_EQ(value_of(graph, node_of(graph, "h_0_mlp_c_fc.lora_gelu_tanh"), 0), "h_0_mlp_c_fc.lora");
  EXPECT_EQ(value_of(graph, node_of(graph, "h_0_mlp_c_proj"), 0), "h_0_mlp_c_fc.lora_gelu_tanh");
  ModelConfig model;
  model.input = {6};
  model.layers = {{"wide", Dense{.units = 8, .activation = Activation::relu}}, {"last", Dense{.units = 3}}};
  model.lora.rank = 2;
  model.lora.targets = {"*"};
  const Graph mlp = graph_of(model);
  EXPECT_EQ(std::get<Dense>(node_of(mlp, "wide").op).activation, Activation::none);
  EXPECT_EQ(std::get<Add>(node_of(mlp, "wide.lora").op).activation, Activation::relu);
}

TEST(Lora, only_adapters_have_gradients_and_travel) {
  const Plan plan = make_plan(graph_of(small_gpt({"*"})), {});
  std::size_t floats = 0;
  for (const FlatParam& p : plan.layout.trained()) {
    EXPECT_TRUE(is_adapter(p.name)) << p.name;
    floats += (p.size + 15) / 16 * 16;
  }
  EXPECT_EQ(plan.layout.trained().size(), 2u * 4 * 2);  // of 4 dense layers a block; the head is tied
  EXPECT_EQ(plan.layout.param_floats, floats);
  for (const FlatParam& p : plan.layout.frozen()) EXPECT_FALSE(is_adapter(p.name)) << p.name;
}

TEST(Lora, prediction_and_generation_have_the_same_parameters) {
  const ModelConfig model = small_gpt({"h_*"});
  const auto names = [](const Graph& graph) {
    std::vector<std::string> all;
    for (const GraphParam& p : graph.params()) all.push_back(p.name + (p.update.frozen ? " frozen" : ""));
    return all;
  };
  const auto trained = names(graph_of(model));
  EXPECT_EQ(names(graph_of(model, BuildFor::prediction)), trained);
  EXPECT_EQ(names(build_generation(model, 2, DType::f32, {1, 8})), trained);
}

TEST(Lora, dropout_is_of_what_the_adapter_reads) {
  ModelConfig model = small_gpt({"h_0_attn_c_proj"});
  model.lora.dropout = 0.25;
  const Graph graph = graph_of(model);
  EXPECT_EQ(std::get<Dropout>(node_of(graph, "h_0_attn_c_proj.lora_dropout").op).rate, 0.25);
  EXPECT_EQ(value_of(graph, node_of(graph, "h_0_attn_c_proj.lora_a"), 0), "h_0_attn_c_proj.lora_dropout");
  EXPECT_EQ(value_of(graph, node_of(graph, "h_0_attn_c_proj"), 0), "h_0_attn");
}

TEST(Lora, layers_that_are_saved_whole_are_trained) {
  ModelConfig model = small_gpt({"h_0_attn_c_attn"});
  model.lora.modules_to_save = {"ln_?"};
  EXPECT_EQ(trained_names(graph_of(model)),
            (std::vector<std::string>{"h_0_attn_c_attn.lora_a.weight", "h_0_attn_c_attn.lora_b.weight", "ln_f.weight",
                                      "ln_f.bias"}));
}

TEST(Lora, a_head_with_an_adapter_is_a_layer) {
  ModelConfig model;
  model.inputs = {{"text", {8}, 2000}};
  model.layers = {{"table", Embedding{2000, 16}}, {"hidden", Dense{.units = 16}}, {"head", Dense{.units = 2000}}};
  EXPECT_TRUE(std::holds_alternative<LinearCrossEntropy>(node_of(graph_of(model), "head").op));
  model.lora.rank = 2;
  model.lora.targets = {"hidden"};
  EXPECT_TRUE(std::holds_alternative<LinearCrossEntropy>(node_of(graph_of(model), "head").op));
  model.lora.targets = {"head"};
  EXPECT_TRUE(std::holds_alternative<Dense>(node_of(graph_of(model), "head").op));
}

TEST(Lora, groups_set_rates_of_adapters_and_train_nothing_else) {
  Graph graph = graph_of(small_gpt({"h_0_attn_c_attn"}));
  const auto before = trained_names(graph);
  const ParameterGroup groups[] = {{"*", 0.5, {}, false}, {"*.lora_b.*", 16, {}, false}};
  apply_groups(graph, groups);
  EXPECT_EQ(trained_names(graph), before);
  for (const GraphParam& p : graph.params()) {
    if (p.update.frozen) continue;
    EXPECT_EQ(p.update.learning_rate_factor, p.name.ends_with(".lora_b.weight") ? 16 : 0.5) << p.name;
  }
}

TEST(Lora, says_what_does_not_fit) {
  EXPECT_EQ(
      refusal(small_gpt({"h_*_attn_c_attn", "h_0_attn_c_atn"})),
      "model.lora.targets.1: \"h_0_attn_c_atn\" matches no layer; expected dense layers with weights of their own; "
      "did you mean \"h_0_attn_c_attn\"?");
  EXPECT_EQ(refusal(small_gpt({"h_0_ln_1"}))
                .find("model.lora.targets.0: \"h_0_ln_1\" matches h_0_ln_1, which is "
                      "layer_norm; expected dense layers with weights of their own; "),
            0u)
      << refusal(small_gpt({"h_0_ln_1"}));
  EXPECT_EQ(
      refusal(small_gpt({"lm_head"}))
          .find("model.lora.targets.0: \"lm_head\" matches lm_head, which shares its weight with another layer; "),
      0u)
      << refusal(small_gpt({"lm_head"}));
  ModelConfig model = small_gpt({"h_0_attn_c_attn"});
  model.lora.rank = 33;
  EXPECT_EQ(refusal(model),
            "model.lora.rank: 33 for layer h_0_attn_c_attn, whose weight is [96, 32]; expected at most 32");
  model.lora.rank = 32;
  EXPECT_EQ(refusal(model), "");
  model.lora.modules_to_save = {"ln_g"};
  EXPECT_EQ(refusal(model),
            "model.lora.modules_to_save.0: \"ln_g\" matches no layer with parameters; did you mean \"ln_f\"?");
}

TEST(Lora, merging_adds_the_product) {
  std::vector<float> weight{1, 2, 3, 4, 5, 6};  // [2, 3]
  const std::vector<float> a{1, 0, 2, 0, 1, -1}, b{1, 2, 0, 3};
  merge_adapter(weight, a, b, 2, 0.5);
  EXPECT_EQ(weight, (std::vector<float>{1.5f, 3, 3, 4, 6.5f, 4.5f}));
}

}  // namespace
}  // namespace dtrain::models
