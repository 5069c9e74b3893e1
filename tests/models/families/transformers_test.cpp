// The transformers as published: their numbers of parameters, and settings that fit no model.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "models/model/build.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::models {
namespace {

Graph graph_of(Family family, std::int64_t vocabulary, std::int64_t length = 8) {
  ModelConfig model;
  model.inputs = {{"text", {length}, vocabulary}};
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
  Llama groups;
  groups.kv_heads = 5;
  EXPECT_NE(message_of(groups, 100).find("12 heads and 5 kv_heads"), std::string::npos);
}

}  // namespace
}  // namespace dtrain::models
