#include "models/families/families.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <variant>

#include <fmt/format.h>

namespace dtrain::models {

namespace {

/// Layers that are added one by one; each `add` returns the name, for the `from` of later ones.
class Layers {
 public:
  std::string add(std::string name, const LayerKind& kind, std::vector<std::string> from = {}) {
    layers_.push_back({name, kind, 0, std::move(from)});
    return name;
  }
  const std::string& last() const { return layers_.back().name; }
  std::vector<Layer> take() { return std::move(layers_); }

 private:
  std::vector<Layer> layers_;
};

/// Normal with the deviation that keeps the variance of gradients through a relu (He et al. 2015, fan out).
Init kaiming(std::int64_t filters, std::int64_t kernel) {
  return {Init::Kind::normal, std::sqrt(2.0 / static_cast<double>(filters * kernel * kernel))};
}

/// A square convolution with half its window as padding.
Conv2dLayer conv(std::int64_t filters, std::int64_t kernel, std::int64_t stride = 1, std::int64_t groups = 1) {
  const std::int64_t padding = kernel / 2;
  return {.filters = filters,
          .kernel = {kernel, kernel},
          .stride = {stride, stride},
          .padding = {padding, padding},
          .bias = false,
          .groups = groups,
          .weight_init = kaiming(filters, kernel)};
}

// ---- mlp -----------------------------------------------------------------------------------------------------------

std::vector<Layer> layers_of(const Mlp& net, std::span<const std::int64_t> input) {
  Layers out;
  if (input.size() > 1) out.add("flatten", FlattenLayer{});
  for (std::size_t i = 0; i < net.widths.size(); ++i) {
    out.add(fmt::format("hidden{}", i + 1), DenseLayer{.units = net.widths[i], .activation = net.activation});
    if (net.dropout > 0) out.add(fmt::format("dropout{}", i + 1), DropoutLayer{net.dropout});
  }
  out.add("classifier", DenseLayer{.units = net.classes});
  return out.take();
}

// ---- resnet --------------------------------------------------------------------------------------------------------

/// Two 3x3 convolutions, or 1x1, 3x3, 1x1 around a bottleneck, and a way past them that is projected where the shape
/// changes.
void add_residual_block(Layers& out, const std::string& name, bool bottleneck, std::int64_t width, std::int64_t stride,
                        bool project, double last_weight) {
  const std::string before = out.last();
  const std::int64_t filters = bottleneck ? 4 * width : width;
  const BatchNormLayer relu{.activation = Activation::relu}, last{.initial_weight = last_weight};
  if (bottleneck) {
    out.add(name + "_conv1", conv(width, 1));
    out.add(name + "_bn1", relu);
    out.add(name + "_conv2", conv(width, 3, stride));
    out.add(name + "_bn2", relu);
    out.add(name + "_conv3", conv(filters, 1));
    out.add(name + "_bn3", last);
  } else {
    out.add(name + "_conv1", conv(width, 3, stride));
    out.add(name + "_bn1", relu);
    out.add(name + "_conv2", conv(filters, 3));
    out.add(name + "_bn2", last);
  }
  const std::string branch = out.last();
  std::string past = before;
  if (project) {
    out.add(name + "_downsample_conv", conv(filters, 1, stride), {before});
    past = out.add(name + "_downsample_bn", BatchNormLayer{});
  }
  out.add(name + "_add", AddLayer{Activation::relu}, {branch, past});
}

std::vector<Layer> layers_of(const ResNet& net, std::span<const std::int64_t> /*input*/) {
  const std::array<int, 4> blocks = net.depth == 18 ? std::array{2, 2, 2, 2} : std::array{3, 4, 6, 3};
  const bool bottleneck = net.depth >= 50;
  Layers out;
  if (net.stem == ResNet::Stem::imagenet) {
    out.add("conv1", conv(64, 7, 2));
    out.add("bn1", BatchNormLayer{.activation = Activation::relu});
    out.add("maxpool", MaxPool2dLayer{{3, 3}, {2, 2}, {1, 1}});
  } else {
    out.add("conv1", conv(64, 3));
    out.add("bn1", BatchNormLayer{.activation = Activation::relu});
  }
  std::int64_t channels = 64;
  for (std::size_t stage = 0; stage < blocks.size(); ++stage) {
    const std::int64_t width = std::int64_t{64} << stage, filters = bottleneck ? 4 * width : width;
    for (int block = 0; block < blocks[stage]; ++block) {
      const std::int64_t stride = stage > 0 && block == 0 ? 2 : 1;
      add_residual_block(out, fmt::format("layer{}_{}", stage + 1, block), bottleneck, width, stride,
                         stride != 1 || channels != filters, net.zero_init_residual ? 0 : 1);
      channels = filters;
    }
  }
  out.add("avgpool", GlobalAveragePoolLayer{});
  out.add("flatten", FlattenLayer{});
  out.add("fc", DenseLayer{.units = net.classes});
  return out.take();
}

// ---- efficientnet --------------------------------------------------------------------------------------------------

/// Blocks of one shape: inverted bottlenecks with squeeze and excitation (Sandler et al. 2018, Hu et al. 2018).
struct Stage {
  std::int64_t expand, kernel, stride, in, out;
  int blocks;
};
constexpr Stage b0_stages[] = {{1, 3, 1, 32, 16, 1},  {6, 3, 2, 16, 24, 2},  {6, 5, 2, 24, 40, 2},
                               {6, 3, 2, 40, 80, 3},  {6, 5, 1, 80, 112, 3}, {6, 5, 2, 112, 192, 4},
                               {6, 3, 1, 192, 320, 1}};

void add_inverted_bottleneck(Layers& out, const std::string& name, const Stage& stage, std::int64_t in,
                             std::int64_t stride, double drop_path) {
  const std::string before = out.last();
  const BatchNormLayer silu{.activation = Activation::silu};
  const std::int64_t wide = in * stage.expand;
  if (stage.expand > 1) {
    out.add(name + "_expand_conv", conv(wide, 1));
    out.add(name + "_expand_bn", silu);
  }
  out.add(name + "_depthwise_conv", conv(wide, stage.kernel, stride, wide));
  const std::string excited = out.add(name + "_depthwise_bn", silu);
  // A quarter of the block's input channels, whatever it was expanded to.
  Conv2dLayer squeeze = conv(std::max<std::int64_t>(1, in / 4), 1), excite = conv(wide, 1);
  squeeze.bias = excite.bias = true;
  squeeze.activation = Activation::silu;
  excite.activation = Activation::sigmoid;
  out.add(name + "_se_pool", GlobalAveragePoolLayer{});
  out.add(name + "_se_fc1", squeeze);
  const std::string scale = out.add(name + "_se_fc2", excite);
  out.add(name + "_se_scale", MultiplyLayer{}, {excited, scale});
  out.add(name + "_project_conv", conv(stage.out, 1));
  out.add(name + "_project_bn", BatchNormLayer{});
  if (stride != 1 || in != stage.out) return;
  if (drop_path > 0) out.add(name + "_drop_path", DropPathLayer{drop_path});
  const std::string branch = out.last();
  out.add(name + "_add", AddLayer{}, {branch, before});
}

std::vector<Layer> layers_of(const EfficientNetB0& net, std::span<const std::int64_t> /*input*/) {
  const BatchNormLayer silu{.activation = Activation::silu};
  Layers out;
  out.add("stem_conv", conv(32, 3, 2));
  out.add("stem_bn", silu);
  int total = 0, index = 0;
  for (const Stage& stage : b0_stages) total += stage.blocks;
  for (std::size_t s = 0; s < std::size(b0_stages); ++s) {
    const Stage& stage = b0_stages[s];
    for (int block = 0; block < stage.blocks; ++block, ++index) {
      add_inverted_bottleneck(out, fmt::format("stage{}_{}", s + 1, block), stage, block == 0 ? stage.in : stage.out,
                              block == 0 ? stage.stride : 1, net.drop_path * index / total);
    }
  }
  out.add("head_conv", conv(1280, 1));
  out.add("head_bn", silu);
  out.add("avgpool", GlobalAveragePoolLayer{});
  out.add("flatten", FlattenLayer{});
  if (net.dropout > 0) out.add("dropout", DropoutLayer{net.dropout});
  out.add("classifier",
          DenseLayer{.units = net.classes,
                     .weight_init = Init{Init::Kind::uniform, 1.0 / std::sqrt(static_cast<double>(net.classes))}});
  return out.take();
}

std::vector<Layer> layers_of(const std::monostate&, std::span<const std::int64_t> /*input*/) {
  return {};
}

}  // namespace

std::vector<Layer> family_layers(const Family& family, std::span<const std::int64_t> input) {
  return std::visit([&](const auto& net) { return layers_of(net, input); }, family);
}

std::string_view family_name(const Family& family) noexcept {
  constexpr std::string_view names[] = {"", "mlp", "resnet", "efficientnet-b0"};
  return names[family.index()];
}

}  // namespace dtrain::models
