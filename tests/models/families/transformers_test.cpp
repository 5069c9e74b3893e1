// The transformers as published: their numbers of parameters, and settings that fit no model.
#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "models/model/build.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::models {
namespace {

Graph graph_of(Family family, std::int64_t vocabulary, std::int64_t length = 8, bool segments = false) {
  ModelConfig model;
  model.inputs = {{"text", {length}, vocabulary}};
  if (segments) model.inputs.push_back({"segments", {length}, 2});
  model.family = std::move(family);
  return build(model, 1, DType::f32, {}, BuildFor::training);
}

std::int64_t parameters(const Graph& graph) {
  std::int64_t sum = 0;
  for (const GraphParam& p : graph.params()) sum += p.shape.elements();
  return sum;
}

TEST(Transformers, HaveAsManyParametersAsThePublishedOnes) {
  const std::pair<Gpt::Preset, std::int64_t> gpts[] = {{Gpt::Preset::gpt2, 124'439'808},
                                                       {Gpt::Preset::gpt2_medium, 354'823'168},
                                                       {Gpt::Preset::gpt2_large, 774'030'080},
                                                       {Gpt::Preset::gpt2_xl, 1'557'611'200}};
  for (const auto& [preset, count] : gpts) {
    Gpt net;
    net.preset = preset;
    EXPECT_EQ(parameters(graph_of(net, 50257)), count);
  }
  const std::pair<Llama::Preset, std::int64_t> llamas[] = {{Llama::Preset::p135m, 134'515'008},
                                                           {Llama::Preset::p360m, 361'821'120},
                                                           {Llama::Preset::p1b, 1'235'814'400},
                                                           {Llama::Preset::p8b, 8'030'261'248}};
  for (const auto& [preset, count] : llamas) {
    Llama net;
    net.preset = preset;
    EXPECT_EQ(parameters(graph_of(net, 49152)), count);
  }
}

TEST(Transformers, EncodersHaveAsManyParametersAsThePublishedOnes) {
  constexpr std::int64_t width = 768, pooler = width * (width + 1);
  Bert bert;
  bert.preset = Bert::Preset::base;
  EXPECT_EQ(parameters(graph_of(bert, 30522, 8, true)), 109'514'298);  // BertForMaskedLM of bert-base-uncased
  EXPECT_EQ(parameters(graph_of(bert, 30522)), 109'514'298 - 2 * width) << "one segment is no parameter";
  bert.classes = 2;
  EXPECT_EQ(parameters(graph_of(bert, 30522, 8, true)), 108'891'648 + pooler + 2 * (width + 1));
  bert.preset = Bert::Preset::large;
  bert.classes = 0;
  EXPECT_EQ(parameters(graph_of(bert, 30522, 8, true)), 335'174'458);
  bert.preset = Bert::Preset::minilm;
  bert.sentence = true;
  EXPECT_EQ(parameters(graph_of(bert, 30522, 8, true)), 22'565'376);  // all-MiniLM-L6-v2 without its pooler

  const std::pair<Vit::Preset, std::int64_t> vits[] = {{Vit::Preset::ti16, 5'717'416},
                                                       {Vit::Preset::s16, 22'050'664},
                                                       {Vit::Preset::b16, 86'567'656},
                                                       {Vit::Preset::l16, 304'326'632}};
  for (const auto& [preset, count] : vits) {
    ModelConfig model;
    model.input = {3, 224, 224};
    Vit net;
    net.preset = preset;
    model.family = net;
    EXPECT_EQ(parameters(build(model, 1, DType::f32, {}, BuildFor::training)), count);
  }
}

TEST(Transformers, DocumentsReachEveryAttention) {
  for (const Family& family : {Family(Gpt{}), Family(Llama{}), Family(Bert{.sentence = true})}) {
    ModelConfig model;
    model.inputs = {{"text", {8}, 100}, {"documents", {8}, 8}};
    model.family = family;
    const Graph graph = build(model, 1, DType::f32, {}, BuildFor::prediction);
    std::size_t readers = 0;
    for (const GraphNode& node : graph.nodes())
      readers += node.in.size() == 2 && node.in[1] == graph.inputs()[1].value ? 1 : 0;
    EXPECT_EQ(readers, std::holds_alternative<Bert>(family) ? 13u : 12u) << family_name(family);
  }
}

/// Logits of all positions would be the largest tensor of a language model.
TEST(Transformers, MakeNoLogitsOfAllPositionsInTraining) {
  ModelConfig model;
  model.inputs = {{"text", {8}, 5000}};
  Llama net{.blocks = 2, .heads = 4, .width = 64, .hidden = 96, .vocabulary = 5000};
  model.family = net;
  for (const BuildFor use : {BuildFor::training, BuildFor::prediction}) {
    const Graph graph = build(model, 2, DType::f32, {}, use);
    const bool all = std::any_of(graph.values().begin(), graph.values().end(), [](const GraphValue& value) {
      return !value.desc.is_index() && value.desc.shape == Shape{2, 8, 5000};
    });
    EXPECT_EQ(all, use == BuildFor::prediction);
    // By name, one graph's parameters are the other's.
    EXPECT_EQ(graph.params().size(), build(model, 2, DType::f32).params().size());
    EXPECT_EQ(graph.nodes().back().name, "lm_head");
  }
  // Of a few classes the logits are small.
  net.vocabulary = model.inputs[0].vocabulary = 500;
  model.family = net;
  const Graph few = build(model, 2, DType::f32);
  EXPECT_EQ(few.nodes().back().name, "loss");
}

std::string message_of(const Family& family, std::int64_t vocabulary, std::int64_t length = 8) {
  try {
    graph_of(family, vocabulary, length);
  } catch (const ShapeError& e) {
    return e.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

TEST(Transformers, SettingsThatFitNoModelAreNamed) {
  Gpt heads;
  heads.heads = 7;
  EXPECT_NE(message_of(heads, 100).find("a width of 768 and 7 heads"), std::string::npos);
  Gpt context;
  context.context = 4;
  EXPECT_NE(message_of(context, 100).find("wpe"), std::string::npos) << message_of(context, 100);
  Gpt words;
  words.vocabulary = 50;
  EXPECT_NE(message_of(words, 100).find("its vocabulary is 50, but input text has one of 100"), std::string::npos);
  Bert width;
  width.width = 100;
  EXPECT_NE(message_of(width, 100).find("bert: a width of 100 and 12 heads"), std::string::npos);
  EXPECT_NE(message_of(Vit{}, 100).find("vit: an input of shape [8] and patches of 16 x 16 pixels"), std::string::npos);
  Llama groups;
  groups.kv_heads = 5;
  EXPECT_NE(message_of(groups, 100).find("12 heads and 5 kv_heads"), std::string::npos);
}

}  // namespace
}  // namespace dtrain::models
