// Models of several inputs, outputs and losses: the ports of their graphs, and what is said where names or shapes are
// wrong.
#include "models/model/ports.hpp"

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "models/model/build.hpp"

namespace dtrain::models {
namespace {

Layer layer(std::string name, OpSpec op, std::vector<std::string> from = {}, std::string tie = {}) {
  return {std::move(name), std::move(op), 0, std::move(from), std::move(tie)};
}

ModelLoss loss(std::string name, Loss kind, std::string of, std::string target) {
  ModelLoss l;
  l.name = std::move(name);
  l.kind = kind;
  l.of = std::move(of);
  l.target = std::move(target);
  return l;
}

/// An image and a table, a class and a price.
ModelConfig two_of_each() {
  ModelConfig m;
  m.inputs = {{"image", {1, 4, 4}, 0}, {"table", {3}, 0}};
  m.layers = {layer("a", Dense{5}, {"image"}), layer("b", Dense{5}, {"table"}), layer("both", Concat{}, {"a", "b"}),
              layer("kind", Dense{4}), layer("price", Dense{1}, {"both"})};
  m.outputs = {{"class", "kind"}, {"value", "price"}};
  m.losses = {loss("class", Loss::cross_entropy, "class", "label"),
              loss("cost", Loss::mean_squared_error, "value", "y")};
  m.losses[1].factor = 0.1;
  return m;
}

/// "image input float32 [2, 4, 4, 1]", ...
std::vector<std::string> inputs_of(const Graph& g) {
  std::vector<std::string> out;
  for (const GraphInput& input : g.inputs()) {
    const char* const use[] = {"input", "target", "weight"};
    const TensorDesc& desc = g.desc(input.value);
    out.push_back(input.name + " " + use[static_cast<int>(input.use)] + " " + std::string(name_of(desc.dtype)) + " " +
                  desc.shape.str());
  }
  return out;
}

using Strings = std::vector<std::string>;

TEST(Ports, AreTheInputsOfTheGraphInTheSameOrder) {
  const ModelConfig m = two_of_each();
  const Graph g = build(m, 2, DType::f32);
  EXPECT_EQ(inputs_of(g), (Strings{"image input float32 [2, 4, 4, 1]", "table input float32 [2, 3]",
                                   "label target int32 [2]", "y target float32 [2, 1]", "weight weight float32 [2]"}));
  const Ports ports = ports_of(m);
  ASSERT_EQ(ports.all.size(), g.inputs().size());
  for (std::size_t i = 0; i < ports.all.size(); ++i) {
    EXPECT_EQ(ports.all[i].name, g.inputs()[i].name);
    EXPECT_EQ(ports.all[i].use, g.inputs()[i].use);
  }
  ASSERT_EQ(g.losses().size(), 2u);
  EXPECT_EQ(g.losses()[1].name, "cost");
  EXPECT_EQ(g.losses()[1].factor, 0.1);
  EXPECT_FALSE(g.losses()[0].counted || g.losses()[1].counted);
  ASSERT_EQ(g.outputs().size(), 2u);
  EXPECT_EQ(g.outputs()[1].name, "value");
  EXPECT_EQ(g.inputs()[2].limit, 4);
}

TEST(Ports, APredictionReadsInputsAloneAndGivesFloats) {
  const Graph g = build(two_of_each(), 3, DType::bf16, {}, BuildFor::prediction);
  EXPECT_EQ(inputs_of(g), (Strings{"image input float32 [3, 4, 4, 1]", "table input float32 [3, 3]"}));
  EXPECT_TRUE(g.losses().empty());
  for (const GraphOutput& output : g.outputs()) EXPECT_EQ(g.desc(output.value).dtype, DType::f32);
}

/// Tokens, and a table of them that is the output's weight, too.
ModelConfig tied() {
  ModelConfig m;
  m.inputs = {{"words", {6}, 11}};
  m.layers = {layer("table", Embedding{11, 8}), layer("", Dense{.units = 11, .bias = false}, {}, "table")};
  return m;
}

TEST(Ports, IndexValuesHaveTheTypeThatIsStored) {
  EXPECT_EQ(inputs_of(build(tied(), 2, DType::f32)),
            (Strings{"words input int32 [2, 6]", "target target int32 [2, 6]", "weight weight float32 [2]"}));
  const StoredPorts stored{{{{PortUse::input, "words"}, DType::u8}, {{PortUse::target, "target"}, DType::u16}}, {}};
  const Graph g = build(tied(), 2, DType::f32, stored);
  EXPECT_EQ(inputs_of(g),
            (Strings{"words input uint8 [2, 6]", "target target uint16 [2, 6]", "weight weight float32 [2]"}));
  EXPECT_EQ(g.inputs()[0].limit, 11);
  // Wider than stored where a value of the model, or the ignored label, is no byte.
  ModelConfig wide = tied();
  wide.inputs[0].vocabulary = 300;
  wide.layers = {layer("table", Embedding{300, 8}), layer("", Dense{300})};
  const StoredPorts bytes{{{{PortUse::input, "words"}, DType::u8}, {{PortUse::target, "target"}, DType::u8}}, {}};
  EXPECT_EQ(inputs_of(build(wide, 2, DType::f32, bytes)),
            (Strings{"words input uint16 [2, 6]", "target target uint16 [2, 6]", "weight weight float32 [2]"}));
  ModelConfig negative = tied();
  negative.loss.ignore = -100;
  EXPECT_EQ(inputs_of(build(negative, 2, DType::f32, bytes))[1], "target target int32 [2, 6]");
}

TEST(Ports, AWeightThatIsCalledWeightIsNotTheOneOfLossesWithout) {
  ModelConfig m = two_of_each();
  m.losses[1].weight = "weight";
  const Ports ports = ports_of(m);
  ASSERT_EQ(ports.all.size(), 6u);
  EXPECT_EQ(ports.all[4].name, "weight of samples");
  EXPECT_EQ(ports.all[4].data, "");
  EXPECT_EQ(ports.all[5].name, "weight");
  EXPECT_EQ(ports.all[5].data, "weight");
  EXPECT_EQ(ports.losses[0].weight, 4);
  EXPECT_EQ(ports.losses[1].weight, 5);
}

TEST(Ports, WeightsOfPositionsLieWhereTheirTargetLies) {
  ModelConfig m = tied();
  m.loss.weight = "w";
  EXPECT_EQ(ports_of(m).all.back().target, -1);
  EXPECT_EQ(ports_of(m, {{}, {{PortUse::weight, "w"}}}).all.back().target, 1);
}

TEST(Ports, AnInputMayBeATargetToo) {
  ModelConfig m;
  m.inputs = {{"image", {1, 4, 4}, 0}};
  m.layers = {layer("", Conv{1, {1, 1}})};
  m.losses = {loss("copy", Loss::mean_squared_error, "", "image")};
  EXPECT_EQ(
      inputs_of(build(m, 2, DType::f32)),
      (Strings{"image input float32 [2, 4, 4, 1]", "image target float32 [2, 4, 4, 1]", "weight weight float32 [2]"}));
}

TEST(Ports, TiedLayersShareOneParameter) {
  const Graph g = build(tied(), 2, DType::f32);
  EXPECT_EQ(g.parameter_count(), 11 * 8);
  EXPECT_EQ(g.nodes()[0].params, g.nodes()[1].params);
  // An embedding computes in the model's type.
  EXPECT_EQ(build(tied(), 2, DType::bf16).nodes()[0].shape.out[0].dtype, DType::bf16);
}

TEST(Ports, WeightsAreSharedWhereTheyAreTheSame) {
  ModelConfig m = two_of_each();
  m.losses[0].weight = m.losses[1].weight = "w";
  EXPECT_EQ(inputs_of(build(m, 2, DType::f32)).back(), "w weight float32 [2]");
  EXPECT_TRUE(ports_of(m).losses[0].counted);

  m = tied();
  m.loss.ignore = 255;
  EXPECT_EQ(inputs_of(build(m, 2, DType::f32)).back(), "weight weight float32 [2]");
  EXPECT_TRUE(build(m, 2, DType::f32).losses()[0].counted);
  m.loss.class_weights.assign(11, 0.5);
  EXPECT_EQ(inputs_of(build(m, 2, DType::f32)).back(), "loss.weight weight float32 [2, 6]");
  const Port weight = ports_of(m).all.back();
  EXPECT_EQ(weight.target, 1);
  EXPECT_EQ(weight.class_weights.size(), 11u);

  m = tied();
  m.loss.weight = "w";
  EXPECT_EQ(inputs_of(build(m, 2, DType::f32, {{}, {{PortUse::weight, "w"}}})).back(), "w weight float32 [2, 6]");
  // Rows of different lengths: what lies behind the end weighs nothing.
  EXPECT_EQ(inputs_of(build(tied(), 2, DType::f32, {{}, {{PortUse::target, "target"}}})).back(),
            "loss.weight weight float32 [2, 6]");
}

struct Mistake {
  ModelConfig model;
  std::string message;
};

template <class Change>
ModelConfig with(ModelConfig m, Change change) {
  change(m);
  return m;
}

TEST(Ports, SaysWhatIsWrong) {
  const std::vector<Mistake> table = {
      {with(two_of_each(), [](auto& m) { m.layers[1].from = {"a"}; }),
       "input table: no layer reads it; expected its name in the `from` of a layer"},
      {with(two_of_each(), [](auto& m) { m.layers[1].from = {"tabel"}; }),
       "layer b: from: there is no layer \"tabel\"; expected image, table or a layer before it; did you mean table?"},
      {with(two_of_each(), [](auto& m) { m.outputs[0].layer = "kinds"; }),
       "output class: there is no layer \"kinds\"; did you mean kind?"},
      {with(two_of_each(), [](auto& m) { m.losses[0].of = "clas"; }),
       "loss class: of: there is no output \"clas\"; expected one of class, value; did you mean class?"},
      {with(two_of_each(), [](auto& m) { m.losses[0].of.clear(); }),
       "loss class: of: the model has several outputs; expected one of class, value"},
      {with(two_of_each(), [](auto& m) { m.losses[1].target = "label"; }),
       "loss cost: another loss reads the target label in another way; expected the same kind of loss and the same "
       "`ignore`, or a target of its own"},
      {with(two_of_each(),
            [](auto& m) {
              m.losses[0].class_weights = {1, 2};
            }),
       "loss class: class_weights: 2 weights for 4 classes; expected one a class"},
      {with(two_of_each(), [](auto& m) { m.outputs.pop_back(), m.losses.pop_back(); }),
       "layer price: nothing reads its output; expected its name in the `from` of a later layer, or in model.outputs"},
      {with(two_of_each(),
            [](auto& m) {
              m.losses[1] = loss("two", Loss::cross_entropy, "value", "label");
              m.layers[4].op = Dense{2};
            }),
       "loss two: its output has 2 classes, but another loss reads the target label with 4; expected the same"},
      {with(tied(), [](auto& m) { m.layers[1].op = Dense{.units = 12}; }),
       "layer dense_1: shares table.weight of shape [11, 8] but needs [12, 8]"},
      {with(tied(), [](auto& m) { m.layers[1].tie = "tabel"; }),
       "layer dense_1: tie: there is no layer \"tabel\"; expected words or a layer before it; did you mean table?"},
      {with(tied(), [](auto& m) { m.inputs[0].vocabulary = 12; }),
       "layer table: its vocabulary is 11, but input words has one of 12; expected the same"},
  };
  for (const Mistake& mistake : table) {
    try {
      build(mistake.model, 2, DType::f32);
      ADD_FAILURE() << "no error; expected " << mistake.message;
    } catch (const ShapeError& e) {
      EXPECT_EQ(e.what(), mistake.message);
    }
  }
}

}  // namespace
}  // namespace dtrain::models
