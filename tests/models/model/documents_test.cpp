// The input `documents` of a model: every attention of its family reads it, wherever it stands among the inputs.
#include <variant>

#include <gtest/gtest.h>

#include "models/model/build.hpp"

namespace dtrain::models {
namespace {

void check(Family family, std::size_t attentions) {
  ModelConfig model;
  model.inputs = {{"documents", {8}, 8}, {"text", {8}, 100}};
  model.family = std::move(family);
  const Graph graph = build(model, 2, DType::f32, {}, BuildFor::training);
  std::size_t found = 0;
  for (const GraphNode& node : graph.nodes()) {
    if (!std::holds_alternative<Attention>(node.op)) continue;
    ++found;
    ASSERT_EQ(node.in.size(), 2u);
    EXPECT_EQ(node.in[1], graph.inputs()[0].value);
    EXPECT_EQ(graph.desc(node.in[1]).dtype, DType::i32);
  }
  EXPECT_EQ(found, attentions);
  EXPECT_EQ(graph.inputs()[0].name, "documents");
}

TEST(Documents, AreReadByEveryAttentionOfAFamily) {
  Gpt gpt;
  gpt.blocks = 3;
  gpt.heads = 2;
  gpt.width = 32;
  gpt.context = 8;
  gpt.vocabulary = 100;
  check(gpt, 3);
  Llama llama;
  llama.blocks = 2;
  llama.heads = 2;
  llama.width = 32;
  llama.hidden = 48;
  llama.vocabulary = 100;
  check(llama, 2);
}

}  // namespace
}  // namespace dtrain::models
