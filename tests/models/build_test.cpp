// Models: what layers become, how many parameters they have, and what is said where they do not fit.
#include "models/build.hpp"

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace dtrain::models {
namespace {

Layer conv(std::int64_t filters, std::int64_t kernel) {
  return {{}, Conv2dLayer{filters, {kernel, kernel}}};
}
Layer dense(std::int64_t units) {
  return {{}, DenseLayer{units}};
}
Layer pool() {
  return {{}, MaxPool2dLayer{}};
}
Layer flatten() {
  return {{}, FlattenLayer{}};
}

ModelConfig model(std::vector<std::int64_t> input, std::vector<Layer> layers, Loss loss = Loss::cross_entropy) {
  return {std::move(input), std::move(layers), loss};
}

TEST(Build, CountsTheParametersOfTheMnistNetworks) {
  // As PyTorch counts them.
  EXPECT_EQ(build(model({1, 28, 28}, {flatten(), dense(512), {{}, DropoutLayer{0.2}}, dense(10)}), 8).parameter_count(),
            784 * 512 + 512 + 512 * 10 + 10);
  const Graph cnn = build(
      model({1, 28, 28}, {conv(32, 3), pool(), conv(64, 3), pool(), conv(64, 3), flatten(), dense(64), dense(10)}), 8);
  EXPECT_EQ(cnn.parameter_count(), 320 + 18496 + 36928 + (576 * 64 + 64) + 650);
  EXPECT_EQ(build(model({10}, {dense(1)}, Loss::mean_squared_error), 4).parameter_count(), 11);
}

TEST(Build, NumbersLayersByKindAndDropoutsByOrder) {
  const Graph g = build(model({1, 8, 8}, {conv(4, 3),
                                          conv(4, 3),
                                          flatten(),
                                          {{}, DropoutLayer{0.1}},
                                          {"head", DenseLayer{5}},
                                          {{}, DropoutLayer{0.2}},
                                          dense(2)}),
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
  EXPECT_EQ(g.desc(g.input(InputRole::sample)).layout, Layout::channels_last);
}

TEST(Build, ADenseLayerMayBeFirstOnAnImage) {
  EXPECT_EQ(build(model({1, 28, 28}, {dense(10)}), 2).parameter_count(), 7850);
}

TEST(Build, KnowsTheTarget) {
  EXPECT_EQ(target_shape(model({4}, {dense(3)})), Shape{});
  EXPECT_EQ(target_shape(model({4}, {dense(3)}, Loss::mean_squared_error)), Shape{3});
}

struct Misfit {
  ModelConfig model;
  std::size_t layer;
  std::string message;
};

TEST(Build, SaysWhichLayerDoesNotFitAndWhy) {
  const std::vector<Misfit> table = {
      {model({1, 8, 8}, {conv(4, 3), dense(2)}), 1,
       "layer dense_1: its input has shape [4, 6, 6]; expected [features]; put `- flatten` before it"},
      {model({4}, {dense(3), conv(4, 3)}), 1,
       "layer conv2d_1: its input has shape [3]; expected [channels, height, width]"},
      {model({1, 4, 4}, {conv(4, 5), flatten(), dense(2)}), 0,
       "layer conv2d_1: a kernel of [5, 5] does not fit its input of shape [1, 4, 4]"},
      {model({1, 4, 4}, {pool(), pool(), pool(), flatten(), dense(2)}), 2,
       "layer maxpool2d_3: a window of [2, 2] does not fit its input of shape [1, 1, 1]"},
      {model({1, 4, 4}, {conv(4, 3)}), 1,
       "the loss: the last layer's output has shape [4, 2, 2]; expected [classes]; end with a dense layer"},
      {model({4}, {dense(1)}), 1,
       "the loss: cross_entropy over 1 class; expected at least 2 outputs, or mean_squared_error"},
      {model({4}, {{{}, ReluLayer{}}}), 1,
       "the loss: no layer has parameters to train; expected a dense or conv2d layer"},
      {model({4}, {{"a", DenseLayer{3}}, {"a", DenseLayer{2}}}), 1, "layer \"a\": the name is taken by another layer"},
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
  EXPECT_THROW(build(model({2, 2}, {dense(2)}), 1), ShapeError);
  EXPECT_THROW(build(model({1 << 30, 1 << 30, 1 << 30}, {dense(2)}), 1), ShapeError);
}

}  // namespace
}  // namespace dtrain::models
