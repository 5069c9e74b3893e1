#include "models/families/resnet.hpp"

#include <array>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "models/families/layer_list.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain::models {

namespace {

/// One of a few numbers.
class OneOfNumbers final : public Type<std::int64_t> {
 public:
  explicit OneOfNumbers(std::vector<std::int64_t> values) : values_(std::move(values)) {}
  void read(const Document& d, std::int64_t& into, Reader& r) const override {
    for (const std::int64_t value : values_)
      if (d.kind == Document::Kind::plain && d.text == std::to_string(value)) return void(into = value);
    r.unexpected(d, expected());
  }
  Document write(const std::int64_t& value) const override { return Document::integer(value); }
  Document schema() const override {
    Document list = Document::list();
    for (const std::int64_t value : values_) list.items.push_back(Document::integer(value));
    return Document::map().set("enum", std::move(list));
  }
  std::string expected() const override { return fmt::format("one of {}", fmt::join(values_, ", ")); }

 private:
  std::vector<std::int64_t> values_;
};

/// Two 3x3 convolutions, or 1x1, 3x3, 1x1 around a bottleneck, and a way past them that is projected where the shape
/// changes.
void add_residual_block(LayerList& out, const std::string& name, bool bottleneck, std::int64_t width,
                        std::int64_t stride, bool project, double last_weight) {
  const std::string before = out.last();
  const std::int64_t filters = bottleneck ? 4 * width : width;
  const BatchNorm relu{.activation = Activation::relu}, last{.initial_weight = last_weight};
  if (bottleneck) {
    out.add(name + "_conv1", square_conv(width, 1));
    out.add(name + "_bn1", relu);
    out.add(name + "_conv2", square_conv(width, 3, stride));
    out.add(name + "_bn2", relu);
    out.add(name + "_conv3", square_conv(filters, 1));
    out.add(name + "_bn3", last);
  } else {
    out.add(name + "_conv1", square_conv(width, 3, stride));
    out.add(name + "_bn1", relu);
    out.add(name + "_conv2", square_conv(filters, 3));
    out.add(name + "_bn2", last);
  }
  const std::string branch = out.last();
  std::string past = before;
  if (project) {
    out.add(name + "_downsample_conv", square_conv(filters, 1, stride), {before});
    past = out.add(name + "_downsample_bn", BatchNorm{});
  }
  out.add(name + "_add", Add{Activation::relu}, {branch, past});
}

}  // namespace

TypePtr<ResNet> ResNet::table() {
  Table<ResNet> resnet("Residual network (He et al. 2016), v1.5: parameters and their order as in torchvision.");
  resnet
      .add("depth", &ResNet::depth,
           TypePtr<std::int64_t>(std::make_shared<OneOfNumbers>(std::vector<std::int64_t>{18, 34, 50})),
           "layers with weights")
      .required();
  resnet.add("stem", &ResNet::stem,
             choice<ResNet::Stem>({{"imagenet", ResNet::Stem::imagenet}, {"cifar", ResNet::Stem::cifar}}),
             "imagenet: 7x7 of stride 2 and a max pool; cifar: 3x3 of stride 1, no pool");
  resnet.add("zero_init_residual", &ResNet::zero_init_residual, boolean(),
             "the last batch norm of each block starts with weight 0");
  resnet.add("classes", &ResNet::classes, class_count(), "outputs");
  return shared(std::move(resnet));
}

std::vector<Layer> ResNet::layers(std::span<const ModelInput> /*inputs*/) const {
  const std::array<int, 4> blocks = depth == 18 ? std::array{2, 2, 2, 2} : std::array{3, 4, 6, 3};
  const bool bottleneck = depth >= 50;
  LayerList out;
  if (stem == Stem::imagenet) {
    out.add("conv1", square_conv(64, 7, 2));
    out.add("bn1", BatchNorm{.activation = Activation::relu});
    out.add("maxpool", MaxPool{{3, 3}, {2, 2}, {1, 1}});
  } else {
    out.add("conv1", square_conv(64, 3));
    out.add("bn1", BatchNorm{.activation = Activation::relu});
  }
  std::int64_t channels = 64;
  for (std::size_t stage = 0; stage < blocks.size(); ++stage) {
    const std::int64_t width = std::int64_t{64} << stage, filters = bottleneck ? 4 * width : width;
    for (int block = 0; block < blocks[stage]; ++block) {
      const std::int64_t stride = stage > 0 && block == 0 ? 2 : 1;
      add_residual_block(out, fmt::format("layer{}_{}", stage + 1, block), bottleneck, width, stride,
                         stride != 1 || channels != filters, zero_init_residual ? 0 : 1);
      channels = filters;
    }
  }
  out.add("avgpool", GlobalAveragePool{});
  out.add("flatten", Flatten{});
  out.add("fc", Dense{.units = classes});
  return out.take();
}

}  // namespace dtrain::models
