// Models: what layers become, how many parameters they have, and what is said where they do not fit.
#include "models/model/build.hpp"

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace dtrain::models {
namespace {

Layer conv(std::int64_t filters, std::int64_t kernel) {
  return {{}, Conv{filters, {kernel, kernel}}};
}
Layer dense(std::int64_t units) {
  return {{}, Dense{units}};
}
Layer pool() {
  return {{}, MaxPool{}};
}
Layer flatten() {
  return {{}, Flatten{}};
}

/// With a name and what it reads.
Layer at(std::string name, OpSpec op, std::vector<std::string> from = {}) {
  return {std::move(name), std::move(op), 0, std::move(from)};
}

ModelConfig model(std::vector<std::int64_t> input, std::vector<Layer> layers, Loss loss = Loss::cross_entropy) {
  ModelConfig m;
  m.input = std::move(input);
  m.layers = std::move(layers);
  m.loss.kind = loss;
  return m;
}
ModelConfig family(std::vector<std::int64_t> input, Family family) {
  ModelConfig m;
  m.input = std::move(input);
  m.family = std::move(family);
  return m;
}
Graph build(const ModelConfig& config, std::int64_t batch) {
  return models::build(config, batch, DType::f32);
}

std::vector<std::string> node_names(const Graph& graph) {
  std::vector<std::string> names;
  for (const auto& node : graph.nodes()) names.push_back(node.name);
  return names;
}
/// "op(input, input)" of the node of this name.
std::string node(const Graph& graph, const std::string& name) {
  for (const auto& n : graph.nodes()) {
    if (n.name != name) continue;
    std::string text(name_of(n.op));
    for (std::size_t i = 0; i < n.in.size(); ++i)
      text += (i == 0 ? "(" : ", ") + graph.values()[static_cast<std::size_t>(n.in[i])].name;
    return text + ")";
  }
  return "none";
}

TEST(Build, CountsTheParametersOfTheMnistNetworks) {
  // As PyTorch counts them.
  EXPECT_EQ(build(model({1, 28, 28}, {flatten(), dense(512), {{}, Dropout{0.2}}, dense(10)}), 8).parameter_count(),
            784 * 512 + 512 + 512 * 10 + 10);
  const Graph cnn = build(
      model({1, 28, 28}, {conv(32, 3), pool(), conv(64, 3), pool(), conv(64, 3), flatten(), dense(64), dense(10)}), 8);
  EXPECT_EQ(cnn.parameter_count(), 320 + 18496 + 36928 + (576 * 64 + 64) + 650);
  EXPECT_EQ(build(model({10}, {dense(1)}, Loss::mean_squared_error), 4).parameter_count(), 11);
}

TEST(Build, NumbersLayersByKindAndDropoutsByOrder) {
  const Graph g = build(
      model({1, 8, 8},
            {conv(4, 3), conv(4, 3), flatten(), {{}, Dropout{0.1}}, {"head", Dense{5}}, {{}, Dropout{0.2}}, dense(2)}),
      2);
  std::vector<std::string> names;
  std::vector<std::uint32_t> ids;
  for (const auto& node : g.nodes()) {
    names.push_back(node.name);
    if (const auto* dropout = std::get_if<Dropout>(&node.op)) ids.push_back(dropout->id);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"conv2d_1", "conv2d_2", "flatten_1", "dropout_1", "head", "dropout_2",
                                             "dense_2", "loss"}));
  EXPECT_EQ(ids, (std::vector<std::uint32_t>{0, 1}));
  EXPECT_EQ(g.params()[0].name, "conv2d_1.weight");
  EXPECT_EQ(g.desc(g.inputs()[0].value).shape, (Shape{2, 8, 8, 1}));  // channels last
}

TEST(Build, ADenseLayerMayBeFirstOnAnImage) {
  EXPECT_EQ(build(model({1, 28, 28}, {dense(10)}), 2).parameter_count(), 7850);
}

TEST(Build, KnowsTheTarget) {
  const auto target = [](const ModelConfig& config) {
    const Graph g = build(config, 2);
    return g.desc(g.inputs()[g.input_index("target")].value);
  };
  EXPECT_EQ(target(model({4}, {dense(3)})), (TensorDesc{DType::i32, Shape{2}}));
  EXPECT_EQ(target(model({4}, {dense(3)}, Loss::mean_squared_error)), (TensorDesc{DType::f32, Shape{2, 3}}));
  // A label, or values, at each position.
  EXPECT_EQ(target(model({6, 4}, {dense(3)})), (TensorDesc{DType::i32, Shape{2, 6}}));
  EXPECT_EQ(target(model({1, 4, 5}, {conv(3, 1)})), (TensorDesc{DType::i32, Shape{2, 4, 5}}));
  EXPECT_EQ(target(model({1, 4, 5}, {conv(3, 1)}, Loss::mean_squared_error)),
            (TensorDesc{DType::f32, Shape{2, 4, 5, 3}}));
}

struct Misfit {
  ModelConfig model;
  std::size_t layer;
  std::string message;
};

TEST(Build, SaysWhichLayerDoesNotFitAndWhy) {
  const std::vector<Misfit> table = {
      {model({1, 8, 8}, {conv(4, 3), dense(2)}), 1,
       "layer dense_1: its input has shape [4, 6, 6]; expected [features] or [length, channels]: put `- flatten` "
       "before it, or say "
       "per_position: true"},
      {model({4}, {dense(3), conv(4, 3)}), 1,
       "layer conv2d_1: its input has shape [3]; expected [channels, height, width]"},
      {model({1, 4, 4}, {conv(4, 5), flatten(), dense(2)}), 0,
       "layer conv2d_1: a kernel of [5, 5] does not fit its input of shape [1, 4, 4]"},
      {model({1, 4, 4}, {pool(), pool(), pool(), flatten(), dense(2)}), 2,
       "layer maxpool2d_3: a window of [2, 2] does not fit its input of shape [1, 1, 1]"},
      {model({4}, {dense(1)}), 1,
       "the loss: cross_entropy over 1 class; expected at least 2 outputs, or mean_squared_error"},
      {model({4}, {{{}, Activate{}}}), 1,
       "the loss: no layer has parameters to train; expected a dense or conv2d layer"},
      {model({4}, {{"a", Dense{3}}, {"a", Dense{2}}}), 1, "layer \"a\": the name is taken by another layer"},
      {model({4}, {{"input", Dense{3}}, dense(2)}), 0,
       "layer \"input\": input is the model's own name; expected another"},
      // who reads whom
      {model({4}, {at("stem", Dense{3}), at("", Add{}, {"stem", "stemm"}), dense(2)}), 1,
       "layer add_1: from: there is no layer \"stemm\"; expected input or a layer before it; did you mean stem?"},
      {model({4}, {at("a", Dense{3}), at("b", Dense{3}, {"b"})}), 1,
       "layer b: from: it reads itself; expected a layer before it"},
      {model({4}, {at("a", Dense{3}, {"b"}), at("b", Dense{3}, {"input"})}), 0,
       "layer a: from: b comes after it; expected a layer before it"},
      {model({4}, {at("a", Dense{3}, {"c"}), at("b", Dense{3}), at("c", Dense{3})}), 0,
       "layer a: from: c comes after it and reads it: a cycle; expected a layer before it"},
      {model({4}, {at("a", Dense{3}), at("b", Dense{3}), at("c", Dense{3}, {"a"})}), 1,
       "layer b: nothing reads its output; expected its name in the `from` of a later layer"},
      {model({4}, {dense(3), {{}, Add{}}}), 1, "layer add_1: add takes two inputs, not 1; expected from: [a, b]"},
      {model({4}, {dense(3), at("", Concat{}, {"dense_1"}), dense(2)}), 1,
       "layer concat_1: concat takes 2 to 32 inputs, not 1; expected from: [a, b, ...]"},
      {model({4}, {dense(3), at("b", Dense{2}, {"input", "dense_1"})}), 1,
       "layer b (of input, dense_1): dense takes one input, not 2; expected one name in from; add, multiply and concat "
       "join several"},
      {model({4}, {dense(4), at("", Multiply{}, {"dense_1", "dense_1"}), dense(2)}), 1,
       "layer multiply_1: its inputs dense_1 and dense_1 are the same; expected different ones"},
      {model({4}, {dense(4), flatten(), at("", Add{}, {"dense_1", "flatten_1"}), dense(2)}), 2,
       "layer add_1: its inputs dense_1 and flatten_1 are the same; expected different ones"},
      // two shapes
      {model({4}, {dense(3), at("", Add{}, {"dense_1", "input"}), dense(2)}), 1,
       "layer add_1 (of dense_1, input): its inputs have shapes [3] and [4]; expected equal ones"},
      {model({1, 8, 8}, {conv(4, 3), at("b", Conv{2, {3, 3}}, {"input"}), at("", Multiply{}, {"conv2d_1", "b"})}), 2,
       "layer multiply_1 (of conv2d_1, b): its inputs have shapes [4, 6, 6] and [2, 6, 6]; expected equal ones, or "
       "[channels, 1, 1] for the second"},
      {model({1, 8, 8}, {conv(4, 3), at("b", Conv{2, {5, 5}}, {"input"}), at("", Concat{}, {"conv2d_1", "b"})}), 2,
       "layer concat_1 (of conv2d_1, b): its inputs have shapes [4, 6, 6] and [2, 4, 4]; expected equal ones but for "
       "the "
       "channels"},
      {model({2, 3, 3}, {flatten(), at("d", Dense{18}), at("", Add{}, {"flatten_1", "d"}), dense(2)}), 2,
       "layer add_1 (of flatten_1, d): its inputs have shapes [18] and [18], but one is a flattened image; expected "
       "equal ones"},
      // windows and groups
      {model({3, 8, 8}, {at("", Conv{.filters = 4, .kernel = {3, 3}, .groups = 2})}), 0,
       "layer conv2d_1: groups 2 does not divide its input of shape [3, 8, 8] and its 4 filters; expected a divisor of "
       "3 and 4"},
      {model({3, 8, 8}, {at("", Conv{.filters = 4, .kernel = {4, 3}, .padding = {-1, -1}})}), 0,
       "layer conv2d_1: padding: same with a window of [4, 3] would differ on two sides; expected an odd kernel, or "
       "numbers"},
      {model({3, 8, 8}, {at("", Conv{.filters = 4, .kernel = {3, 3}, .dilation = {4, 4}})}), 0,
       "layer conv2d_1: a dilated kernel of [9, 9] does not fit its input of shape [3, 8, 8]"},
      {model({3, 8, 8}, {at("", AveragePool{.size = {3, 3}, .padding = {2, 2}})}), 0,
       "layer avgpool2d_1: padding 2 is more than half of the window 3"},
      // one dimension, three, and the other way
      {model({8, 3}, {at("", Conv{4, {9}, {1}, {0}, true, Activation::none, {1}})}), 0,
       "layer conv1d_1: a kernel of [9] does not fit its input of shape [8, 3]"},
      {model({3, 8, 8}, {at("", Conv{4, {3}, {1}, {0}, true, Activation::none, {1}})}), 0,
       "layer conv1d_1: its input has shape [3, 8, 8]; expected [length, channels]"},
      {model({8, 3}, {at("", AveragePool{.size = {3}, .stride = {0}, .padding = {2}})}), 0,
       "layer avgpool1d_1: padding 2 is more than half of the window 3"},
      {model({1, 2, 8, 8}, {at("", Conv{4, {3, 3, 3}, {1, 1, 1}, {0, 0, 0}, true, Activation::none, {1, 1, 1}})}), 0,
       "layer conv3d_1: a kernel of [3, 3, 3] does not fit its input of shape [1, 2, 8, 8]"},
      {model({3, 8, 8}, {at("", MaxPool{{2, 2, 2}, {0, 0, 0}, {0, 0, 0}})}), 0,
       "layer maxpool3d_1: its input has shape [3, 8, 8]; expected [channels, depth, height, width]"},
      {model({1, 8, 8, 8}, {at("", MaxPool{{8, 8, 8}, {0, 0, 0}, {0, 0, 0}})}), 0,
       "layer maxpool3d_1: a window of [8, 8, 8]; expected at most 256 elements"},
      {model({8, 3}, {at("", ConvTranspose{.filters = 4, .kernel = {2, 2}})}), 0,
       "layer conv2d_transpose_1: its input has shape [8, 3]; expected [channels, height, width]"},
      {model({3, 8, 8},
             {at("", ConvTranspose{.filters = 4, .kernel = {3, 3}, .stride = {2, 2}, .output_padding = {1, 2}})}),
       0, "layer conv2d_transpose_1: output_padding 2 is not smaller than the stride 2"},
      {model({3, 8, 8}, {at("", ConvTranspose{.filters = 4, .kernel = {3, 3}, .padding = {3, 0}})}), 0,
       "layer conv2d_transpose_1: padding 3 is not smaller than the kernel 3"},
      {model({3, 1, 1}, {at("", ConvTranspose{.filters = 4, .kernel = {3, 3}, .padding = {2, 2}})}), 0,
       "layer conv2d_transpose_1: padding [2, 2] leaves nothing of its input of shape [3, 1, 1]"},
      {model({3, 8, 8}, {at("", ConvTranspose{.filters = 4, .kernel = {3, 3}, .groups = 2})}), 0,
       "layer conv2d_transpose_1: groups 2 does not divide its input of shape [3, 8, 8] and its 4 filters; expected a "
       "divisor of 3 and 4"},
      {model({3, 8, 8}, {at("", Upsample{{2, 2, 2}})}), 0,
       "layer upsample3d_1: its input has shape [3, 8, 8]; expected [channels, depth, height, width]"},
      {model({3, 8, 8}, {at("", Upsample{{0, 2}})}), 0, "layer upsample2d_1: a factor of [0, 2]; expected at least 1"},
      {model({3, 1 << 15, 1}, {at("", Upsample{{1 << 30, 1}})}), 0,
       "layer upsample2d_1: a factor of [1073741824, 1] makes its input of shape [3, 32768, 1] too large"},
      {model({3}, {{{}, GlobalAveragePool{}}}), 0,
       "layer global_avgpool_1: its input has shape [3]; expected [channels, height, width], [length, channels] or "
       "[channels, depth, height, width]"},
      {model({2, 3, 3}, {flatten(), {{}, BatchNorm{}}, dense(2)}), 1,
       "layer batch_norm_1: its input of shape [18] is a flattened image; put it before the flatten, or behind a dense "
       "layer"},
  };
  for (const auto& row : table) {
    try {
      build(row.model, 2);
      ADD_FAILURE() << row.message;
    } catch (const LayerError& e) {
      EXPECT_EQ(e.what(), row.message);
      EXPECT_EQ(e.layer(), row.layer) << row.message;
    }
  }
  try {
    build(model({4}, {dense(3), {{}, BatchNorm{}}, dense(2)}), 1);
    ADD_FAILURE() << "a batch norm over one value";
  } catch (const LayerError& e) {
    EXPECT_EQ(e.layer(), 1u);
    EXPECT_EQ(std::string(e.what()),
              "layer batch_norm_1: its input [3] has one value a channel, "
              "which has no variance; expected a micro batch of at least 2");
  }
  EXPECT_THROW(build(model({2, 2, 2, 2, 2}, {dense(2)}), 1), ShapeError);
  EXPECT_THROW(build(model({1 << 30, 1 << 30, 1 << 30}, {dense(2)}), 1), ShapeError);
}

TEST(Build, JoinsBranchesByName) {
  const Graph g = build(
      model({4, 8, 8},
            {at("stem", Conv{.filters = 8, .kernel = {3, 3}, .padding = {-1, -1}}),
             at("left", Conv{.filters = 8, .kernel = {1, 1}}), at("right", MaxPool{{3, 3}, {1, 1}, {1, 1}}, {"stem"}),
             at("sum", Add{Activation::relu}, {"left", "right"}), at("", Concat{}, {"sum", "stem", "input"}),
             at("", GlobalAveragePool{}), flatten(), dense(2)}),
      2);
  EXPECT_EQ(node(g, "stem"), "conv2d(input)");
  EXPECT_EQ(node(g, "right"), "maxpool2d(stem)");
  EXPECT_EQ(node(g, "sum"), "add(left, right)");
  EXPECT_EQ(node(g, "concat_1"), "concat(sum, stem, input)");
  EXPECT_EQ(node(g, "global_avgpool_1"), "global_avgpool(concat_1)");
  EXPECT_EQ(g.params().back().name, "dense_1.bias");
  EXPECT_EQ(g.params()[4].shape, (Shape{2, 20}));  // the dense layer sees 8 + 8 + 4 channels
}

TEST(Build, LayersOfSeriesAndVolumesKeepTheirShapes) {
  const Graph series =
      build(model({20, 3}, {at("c", Conv{8, {5}, {2}, {Conv::same}, true, Activation::none, {1}}),
                            at("u", Upsample{{2}, Upsample::Mode::linear}), at("m", MaxPool{{2}, {0}, {0}}),
                            at("t", ConvTranspose{4, {4}, {2}, {1}, {0}, true, Activation::none, {1}}),
                            at("g", GlobalAveragePool{}), flatten(), dense(2)}),
            2);
  const auto shape = [](const Graph& graph, std::size_t node) { return graph.nodes()[node].shape.out[0].shape; };
  EXPECT_EQ(shape(series, 0), (Shape{2, 10, 8}));
  EXPECT_EQ(shape(series, 1), (Shape{2, 20, 8}));
  EXPECT_EQ(shape(series, 2), (Shape{2, 10, 8}));
  EXPECT_EQ(shape(series, 3), (Shape{2, 20, 4}));
  EXPECT_EQ(shape(series, 4), (Shape{2, 1, 4}));
  EXPECT_EQ(series.params()[0].shape, (Shape{8, 3, 5}));  // as PyTorch has them
  EXPECT_EQ(series.params()[2].shape, (Shape{8, 4, 4}));
  const Graph volumes =
      build(model({2, 6, 8, 8}, {at("c", Conv{4, {3, 3, 3}, {1, 2, 2}, {1, 1, 1}, true, Activation::none, {1, 1, 1}}),
                                 at("a", AveragePool{{2, 2, 2}, {0, 0, 0}, {0, 0, 0}}), at("u", Upsample{{2, 2, 2}}),
                                 flatten(), dense(2)}),
            2);
  EXPECT_EQ(shape(volumes, 0), (Shape{2, 6, 4, 4, 4}));
  EXPECT_EQ(shape(volumes, 1), (Shape{2, 3, 2, 2, 4}));
  EXPECT_EQ(shape(volumes, 2), (Shape{2, 6, 4, 4, 4}));
}

TEST(Build, SameKeepsTheExtentsAndDividesThemByTheStride) {
  for (const std::int64_t kernel : {1, 3, 5}) {
    for (const std::int64_t stride : {1, 2, 3}) {
      const Graph g = build(model({1, 9, 8}, {at("c", Conv{.filters = 1,
                                                           .kernel = {kernel, kernel},
                                                           .stride = {stride, stride},
                                                           .padding = {-1, -1},
                                                           .dilation = {2, 1}}),
                                              flatten(), dense(2)}),
                            1);
      EXPECT_EQ(g.nodes()[0].shape.out[0].shape, (Shape{1, (9 + stride - 1) / stride, (8 + stride - 1) / stride, 1}))
          << kernel << ' ' << stride;
    }
  }
}

TEST(Build, ActivationsThatNoKernelAppliesAreNodesOfTheirOwn) {
  const Graph g =
      build(model({4}, {at("a", Dense{.units = 3, .activation = Activation::tanh}),
                        at("b", Dense{.units = 3, .activation = Activation::gelu}),
                        at("n", BatchNorm{.activation = Activation::silu}), at("", Activate{Activation::silu}),
                        at("", Add{Activation::hard_swish}, {"silu_1", "b"}), at("last", Dense{2}, {"add_1"})}),
            2);
  EXPECT_EQ(node_names(g), (std::vector<std::string>{"a", "b", "b_gelu", "n", "n_silu", "silu_1", "add_1",
                                                     "add_1_hard_swish", "last", "loss"}));
  EXPECT_EQ(std::get<Dense>(g.nodes()[0].op).activation, Activation::tanh);
  EXPECT_EQ(std::get<Dense>(g.nodes()[1].op).activation, Activation::none);
  EXPECT_EQ(node(g, "add_1"), "add(silu_1, b_gelu)");  // a name is what the layer gives, behind its activation
  EXPECT_EQ(node(g, "last"), "dense(add_1_hard_swish)");
}

TEST(Build, GlobalStatisticsAreMomentsThatAreSummedOverRanks) {
  ModelConfig config =
      model({3, 4, 4}, {conv(4, 1), at("n", BatchNorm{.activation = Activation::relu}), flatten(), dense(2)});
  EXPECT_EQ(node(build(config, 2), "n"), "batch_norm(conv2d_1)");
  config.sync_batch_norm = true;
  const Graph g = build(config, 2);
  EXPECT_EQ(node(g, "n_moments"), "batch_moments(conv2d_1)");
  EXPECT_EQ(node(g, "n_sum"), "sum_over_ranks(n_moments)");
  EXPECT_EQ(node(g, "n"), "batch_normalize(conv2d_1, n_sum)");
  EXPECT_EQ(g.params()[2].name, "n.weight");
  EXPECT_EQ(g.states()[0].name, "n.running_mean");
  EXPECT_EQ(std::get<BatchNormalize>(g.nodes()[3].op).activation, Activation::relu);
}

TEST(Build, CastsStandBehindTheInputAndBeforeTheLoss) {
  const ModelConfig config = model({1, 8, 8}, {conv(4, 3), flatten(), dense(3), dense(2)});
  const Graph g = models::build(config, 2, DType::bf16);
  EXPECT_EQ(node(g, "input_cast"), "cast(input)");
  EXPECT_EQ(node(g, "conv2d_1"), "conv2d(input_cast)");
  EXPECT_EQ(node(g, "loss"), "softmax_cross_entropy(dense_2, target, weight)");
  for (const auto& n : g.nodes()) {
    const bool f32 = n.name == "loss";
    EXPECT_EQ(n.shape.out[0].dtype, f32 ? DType::f32 : DType::bf16) << n.name;
    for (const auto& p : n.shape.params) EXPECT_EQ(p.desc.dtype, DType::f32);
  }
  EXPECT_EQ(g.parameter_count(), build(config, 2).parameter_count());
  EXPECT_EQ(models::build(model({1, 4, 4}, {dense(2)}), 2, DType::bf16).nodes()[1].name, "input_flatten");
}

TEST(Build, SmoothsLabels) {
  ModelConfig config = model({4}, {dense(3)});
  config.loss.label_smoothing = 0.1;
  EXPECT_EQ(std::get<SoftmaxCrossEntropy>(build(config, 2).nodes().back().op).label_smoothing, 0.1);
}

/// Behind a head that its loss computes, a cap belongs to it; predictions have both as layers.
TEST(Build, ACapBelongsToTheHeadBeforeIt) {
  ModelConfig config;
  config.inputs = {{"text", {8}, 2000}};
  const auto layers = [](std::int64_t units) {
    return std::vector{at("table", Embedding{.vocabulary = 2000, .channels = 4}), at("head", Dense{.units = units}),
                       at("cap", SoftCap{20})};
  };
  config.layers = layers(2000);
  const Graph g = build(config, 2);
  EXPECT_EQ(node_names(g), (std::vector<std::string>{"table", "head"}));
  const auto& op = std::get<LinearCrossEntropy>(g.nodes().back().op);
  ASSERT_TRUE(op.cap.has_value());
  EXPECT_EQ(op.cap->cap, 20);
  EXPECT_EQ(node_names(models::build(config, 2, DType::f32, {}, BuildFor::prediction)),
            (std::vector<std::string>{"table", "head", "cap"}));
  config.layers = layers(30);  // few classes: ops of their own
  EXPECT_EQ(node_names(build(config, 2)), (std::vector<std::string>{"table", "head", "cap", "loss"}));
  config.layers = layers(2000);
  config.layers.push_back(at("", Activate{Activation::tanh}));  // the cap is not what the loss reads
  EXPECT_EQ(node_names(build(config, 2)), (std::vector<std::string>{"table", "head", "cap", "tanh_1", "loss"}));
}

TEST(Families, HaveThePublishedNumbersOfParameters) {
  const std::vector<std::int64_t> image{3, 224, 224};
  EXPECT_EQ(build(family(image, ResNet{.depth = 18}), 2).parameter_count(), 11'689'512);
  EXPECT_EQ(build(family(image, ResNet{.depth = 34}), 2).parameter_count(), 21'797'672);
  EXPECT_EQ(build(family(image, ResNet{.depth = 50}), 2).parameter_count(), 25'557'032);
  EXPECT_EQ(build(family(image, EfficientNetB0{}), 2).parameter_count(), 5'288'548);
  EXPECT_EQ(build(family({3, 32, 32}, ResNet{18, ResNet::Stem::cifar, false, 10}), 2).parameter_count(), 11'173'962);
  EXPECT_EQ(build(family({1, 28, 28}, Mlp{{512, 256}, Activation::gelu, 0.1, 10}), 2).parameter_count(),
            784 * 512 + 512 + 512 * 256 + 256 + 256 * 10 + 10);
}

TEST(Families, HaveThePublishedExtents) {
  const Graph resnet = build(family({3, 224, 224}, ResNet{.depth = 50}), 1);
  const Graph efficient = build(family({3, 224, 224}, EfficientNetB0{}), 1);
  const auto out = [](const Graph& graph, const std::string& name) {
    for (const auto& n : graph.nodes())
      if (n.name == name) return n.shape.out[0].sample();
    return Shape{};
  };
  EXPECT_EQ(out(resnet, "maxpool"), (Shape{64, 56, 56}));
  EXPECT_EQ(out(resnet, "layer1_2_add"), (Shape{256, 56, 56}));
  EXPECT_EQ(out(resnet, "layer2_0_conv1"), (Shape{128, 56, 56}));  // v1.5: the 3x3 has the stride
  EXPECT_EQ(out(resnet, "layer2_0_conv2"), (Shape{128, 28, 28}));
  EXPECT_EQ(out(resnet, "layer4_2_add"), (Shape{2048, 7, 7}));
  EXPECT_EQ(out(efficient, "stem_conv"), (Shape{32, 112, 112}));
  EXPECT_EQ(out(efficient, "stage3_1_add"), (Shape{40, 28, 28}));
  EXPECT_EQ(out(efficient, "head_conv"), (Shape{1280, 7, 7}));
}

TEST(Families, AResidualBlockIsFused) {
  const Graph g = build(family({3, 32, 32}, ResNet{.depth = 18, .zero_init_residual = true}), 2);
  EXPECT_EQ(node(g, "layer2_0_add"), "add(layer2_0_bn2, layer2_0_downsample_bn)");
  EXPECT_EQ(node(g, "layer2_0_downsample_conv"), "conv2d(layer1_1_add)");
  EXPECT_EQ(node(g, "layer2_1_add"), "add(layer2_1_bn2, layer2_0_add)");
  for (const auto& n : g.nodes()) {
    if (const auto* add = std::get_if<Add>(&n.op)) EXPECT_EQ(add->activation, Activation::relu);
    const auto* norm = std::get_if<BatchNorm>(&n.op);
    if (norm == nullptr) continue;
    const bool last = n.name.ends_with("bn2"), past = n.name.ends_with("downsample_bn");
    EXPECT_EQ(norm->activation, last || past ? Activation::none : Activation::relu) << n.name;
    EXPECT_EQ(norm->initial_weight, last ? 0 : 1) << n.name;
  }
}

TEST(Families, EveryDropoutDrawsForItself) {
  const Graph g = build(family({3, 64, 64}, EfficientNetB0{0.3, 0.2, 10}), 2);
  std::vector<double> rates;
  std::uint32_t next = 0;
  for (const auto& n : g.nodes()) {
    const auto* dropout = std::get_if<Dropout>(&n.op);
    if (dropout == nullptr) continue;
    EXPECT_EQ(dropout->id, next++);
    EXPECT_EQ(dropout->whole_sample, n.name != "dropout");
    rates.push_back(dropout->rate);
  }
  // Blocks 0 to 15, of which nine have a way past them.
  std::vector<double> expected;
  for (const int block : {2, 4, 6, 7, 9, 10, 12, 13, 14}) expected.push_back(0.2 * block / 16);
  expected.push_back(0.3);
  EXPECT_EQ(rates, expected);
}

}  // namespace
}  // namespace dtrain::models
