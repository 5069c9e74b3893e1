// How parameters start, one by one, against PyTorch's layers and torchvision's networks (tests/golden/inits.json, made
// by make_init_goldens.py).
#include <cmath>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "models/model/build.hpp"

namespace dtrain::models {
namespace {

using Json = nlohmann::json;

Graph of_layer(OpSpec op, const TensorDesc& in) {
  Graph graph(in.batch());
  graph.add("layer", std::move(op), {graph.add_input(PortUse::input, "x", in)});
  return graph;
}
Graph of_family(Family family) {
  ModelConfig config;
  config.input = {3, 64, 64};
  config.family = std::move(family);
  return build(config, 1, DType::f32);
}

Conv conv(std::int64_t filters, Extents kernel, std::int64_t groups = 1) {
  return {.filters = filters,
          .kernel = kernel,
          .stride = Extents::all(kernel.size(), 1),
          .padding = Extents::all(kernel.size(), 0),
          .dilation = Extents::all(kernel.size(), 1),
          .groups = groups};
}

Json inits(const Graph& graph) {
  Json all = Json::array();
  for (const GraphParam& p : graph.params()) {
    const std::vector<std::int64_t> shape(p.shape.extents().begin(), p.shape.extents().end());
    switch (p.init.kind) {
      case Init::Kind::zeros:
        all.push_back({shape, "constant", 0.0});
        break;
      case Init::Kind::ones:
        all.push_back({shape, "constant", 1.0});
        break;
      case Init::Kind::uniform:
        all.push_back({shape, "uniform", p.init.scale});
        break;
      case Init::Kind::normal:
        all.push_back({shape, "normal", p.init.scale});
        break;
    }
  }
  return all;
}

TEST(Init, OfEveryParameterIsThePublishedOne) {
  const Json golden = Json::parse(std::ifstream("tests/golden/inits.json"));
  const TensorDesc series{DType::f32, Shape{1, 20, 6}}, images{DType::f32, Shape{1, 9, 9, 6}},
      volumes{DType::f32, Shape{1, 5, 5, 5, 3}};
  const std::pair<const char*, Graph> all[] = {
      {"dense", of_layer(Dense{.units = 30}, {DType::f32, Shape{1, 20}})},
      {"conv1d", of_layer(conv(8, {5}), series)},
      {"conv2d", of_layer(conv(8, {3, 3}), images)},
      {"grouped conv2d", of_layer(conv(8, {3, 5}, 2), images)},
      {"conv3d", of_layer(conv(4, {2, 2, 2}), volumes)},
      {"conv_transpose2d", of_layer(ConvTranspose{.filters = 8, .kernel = {3, 3}}, images)},
      {"embedding", of_layer(Embedding{.vocabulary = 50, .channels = 12}, {DType::i32, Shape{1, 7}})},
      {"batch_norm", of_layer(BatchNorm{}, images)},
      {"layer_norm", of_layer(LayerNorm{}, series)},
      {"rms_norm", of_layer(RmsNorm{}, series)},
      {"resnet18", of_family(ResNet{.depth = 18, .classes = 10})},
      {"resnet34", of_family(ResNet{.depth = 34})},
      {"resnet50", of_family(ResNet{.depth = 50})},
      {"resnet50 zero_init_residual", of_family(ResNet{.depth = 50, .zero_init_residual = true})},
      {"efficientnet", of_family(EfficientNetB0{.classes = 100})}};
  EXPECT_EQ(std::size(all), golden.size());
  for (const auto& [name, graph] : all) {
    const Json& published = golden.at(name);
    const Json ours = inits(graph);
    ASSERT_EQ(ours.size(), published.size()) << name;
    for (std::size_t i = 0; i < ours.size(); ++i) {
      const std::string where = std::string(name) + ": " + graph.params()[i].name;
      EXPECT_EQ(ours[i][0], published[i][0]) << where;
      EXPECT_EQ(ours[i][1], published[i][1]) << where;
      const double scale = published[i][2];
      EXPECT_NEAR(ours[i][2].get<double>(), scale, 1e-12 * scale) << where;
    }
  }
}

}  // namespace
}  // namespace dtrain::models
