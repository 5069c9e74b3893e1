#include "models/families/efficientnet.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "models/families/layer_list.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain::models {

namespace {

/// Blocks of one shape: inverted bottlenecks with squeeze and excitation (Sandler et al. 2018, Hu et al. 2018).
struct Stage {
  std::int64_t expand, kernel, stride, in, out;
  int blocks;
};
constexpr Stage b0_stages[] = {{1, 3, 1, 32, 16, 1},  {6, 3, 2, 16, 24, 2},  {6, 5, 2, 24, 40, 2},
                               {6, 3, 2, 40, 80, 3},  {6, 5, 1, 80, 112, 3}, {6, 5, 2, 112, 192, 4},
                               {6, 3, 1, 192, 320, 1}};

void add_inverted_bottleneck(LayerList& out, const std::string& name, const Stage& stage, std::int64_t in,
                             std::int64_t stride, double drop_path) {
  const std::string before = out.last();
  const BatchNorm silu{.activation = Activation::silu};
  const std::int64_t wide = in * stage.expand;
  if (stage.expand > 1) {
    out.add(name + "_expand_conv", square_conv(wide, 1));
    out.add(name + "_expand_bn", silu);
  }
  out.add(name + "_depthwise_conv", square_conv(wide, stage.kernel, stride, wide));
  const std::string excited = out.add(name + "_depthwise_bn", silu);
  // A quarter of the block's input channels, whatever it was expanded to.
  Conv squeeze = square_conv(std::max<std::int64_t>(1, in / 4), 1), excite = square_conv(wide, 1);
  squeeze.bias = excite.bias = true;
  squeeze.init.bias = excite.init.bias = Init{};
  squeeze.activation = Activation::silu;
  excite.activation = Activation::sigmoid;
  out.add(name + "_se_pool", GlobalAveragePool{});
  out.add(name + "_se_fc1", squeeze);
  const std::string scale = out.add(name + "_se_fc2", excite);
  out.add(name + "_se_scale", Multiply{}, {excited, scale});
  out.add(name + "_project_conv", square_conv(stage.out, 1));
  out.add(name + "_project_bn", BatchNorm{});
  if (stride != 1 || in != stage.out) return;
  if (drop_path > 0) out.add(name + "_drop_path", Dropout{.rate = drop_path, .whole_sample = true});
  const std::string branch = out.last();
  out.add(name + "_add", Add{}, {branch, before});
}

}  // namespace

TypePtr<EfficientNetB0> EfficientNetB0::table() {
  Table<EfficientNetB0> net("EfficientNet-B0 (Tan and Le 2019): parameters and their order as in torchvision.");
  net.add("dropout", &EfficientNetB0::dropout, fraction(), "before the classifier");
  net.add("drop_path", &EfficientNetB0::drop_path, fraction(),
          "stochastic depth of the last block; it grows linearly from 0");
  net.add("classes", &EfficientNetB0::classes, class_count(), "outputs");
  return shared(std::move(net));
}

std::vector<Layer> EfficientNetB0::layers(std::span<const ModelInput> /*inputs*/) const {
  const BatchNorm silu{.activation = Activation::silu};
  LayerList out;
  out.add("stem_conv", square_conv(32, 3, 2));
  out.add("stem_bn", silu);
  int total = 0, index = 0;
  for (const Stage& stage : b0_stages) total += stage.blocks;
  for (std::size_t s = 0; s < std::size(b0_stages); ++s) {
    const Stage& stage = b0_stages[s];
    for (int block = 0; block < stage.blocks; ++block, ++index) {
      add_inverted_bottleneck(out, fmt::format("stage{}_{}", s + 1, block), stage, block == 0 ? stage.in : stage.out,
                              block == 0 ? stage.stride : 1, drop_path * index / total);
    }
  }
  out.add("head_conv", square_conv(1280, 1));
  out.add("head_bn", silu);
  out.add("avgpool", GlobalAveragePool{});
  out.add("flatten", Flatten{});
  if (dropout > 0) out.add("dropout", Dropout{dropout});
  const Init weight{Init::Kind::uniform, 1.0 / std::sqrt(static_cast<double>(classes))};
  out.add("classifier", Dense{.units = classes, .init = {.weight = weight, .bias = Init{}}});
  return out.take();
}

}  // namespace dtrain::models
