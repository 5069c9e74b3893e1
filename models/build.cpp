#include "models/build.hpp"

#include <map>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include <fmt/format.h>

namespace dtrain::models {

namespace {

template <class... F>
struct Visit : F... {
  using F::operator()...;
};
template <class... F>
Visit(F...) -> Visit<F...>;

std::string_view kind_name(const LayerKind& kind) {
  return std::visit(
      Visit{[](const Conv2dLayer&) { return "conv2d"; }, [](const MaxPool2dLayer&) { return "maxpool2d"; },
            [](const DenseLayer&) { return "dense"; }, [](const FlattenLayer&) { return "flatten"; },
            [](const ReluLayer&) { return "relu"; }, [](const DropoutLayer&) { return "dropout"; }},
      kind);
}

/// The shape of a sample, as users write it.
std::string sample_str(const Shape& batched) {
  return Shape(batched.extents().subspan(1)).str();
}

Shape batched(std::int64_t batch, std::span<const std::int64_t> sample) {
  std::vector<std::int64_t> extents{batch};
  extents.insert(extents.end(), sample.begin(), sample.end());
  return Shape(std::span<const std::int64_t>(extents));
}

/// What a layer may be given: said here in the words of a configuration, before the op says it in its own.
void check_input(const Layer& layer, const std::string& name, const Shape& in, std::size_t index) {
  const bool wants_image =
      std::holds_alternative<Conv2dLayer>(layer.kind) || std::holds_alternative<MaxPool2dLayer>(layer.kind);
  if (wants_image && in.rank() != 4) {
    throw LayerError(index, fmt::format("layer {}: its input has shape {}; expected [channels, height, width]", name,
                                        sample_str(in)));
  }
  if (std::holds_alternative<DenseLayer>(layer.kind) && in.rank() != 2) {
    throw LayerError(
        index, fmt::format("layer {}: its input has shape {}; expected [features]; put `- flatten` before it", name,
                           sample_str(in)));
  }
  const auto fits = [&](const char* what, std::array<std::int64_t, 2> window, std::array<std::int64_t, 2> padding) {
    for (std::size_t i = 0; i < 2; ++i) {
      if (padding[i] >= window[i]) {
        throw LayerError(index, fmt::format("layer {}: padding {} is not smaller than the {} {}", name, padding[i],
                                            what, window[i]));
      }
      const std::int64_t extent = in[static_cast<int>(i) + 2];
      if (extent + 2 * padding[i] < window[i]) {
        throw LayerError(index, fmt::format("layer {}: a {} of [{}, {}] does not fit its input of shape {}", name, what,
                                            window[0], window[1], sample_str(in)));
      }
    }
  };
  if (const auto* conv = std::get_if<Conv2dLayer>(&layer.kind)) fits("kernel", conv->kernel, conv->padding);
  if (const auto* pool = std::get_if<MaxPool2dLayer>(&layer.kind)) fits("window", pool->size, {0, 0});
}

OpSpec op_of(const LayerKind& kind, std::uint32_t& dropouts) {
  return std::visit(Visit{[](const Conv2dLayer& l) -> OpSpec {
                            return Conv2d{.filters = l.filters,
                                          .kernel = l.kernel,
                                          .stride = l.stride,
                                          .padding = l.padding,
                                          .bias = l.bias,
                                          .activation = l.activation};
                          },
                          [](const MaxPool2dLayer& l) -> OpSpec {
                            return MaxPool2d{
                                l.size,
                                {l.stride[0] > 0 ? l.stride[0] : l.size[0], l.stride[1] > 0 ? l.stride[1] : l.size[1]}};
                          },
                          [](const DenseLayer& l) -> OpSpec {
                            return Linear{l.units, l.bias, l.activation};
                          },
                          [](const FlattenLayer&) -> OpSpec { return Flatten{}; },
                          [](const ReluLayer&) -> OpSpec { return Activate{Activation::relu}; },
                          [&dropouts](const DropoutLayer& l) -> OpSpec {
                            return Dropout{l.rate, dropouts++};
                          }},
                    kind);
}

}  // namespace

Graph build(const ModelConfig& model, std::int64_t batch) {
  if (model.input.size() != 1 && model.input.size() != 3) {
    throw ShapeError(fmt::format("model.input has {} extents; expected [channels, height, width] or [features]",
                                 model.input.size()));
  }
  double elements = 1;
  for (const std::int64_t extent : model.input) elements *= static_cast<double>(extent);
  if (!(elements >= 1 && elements <= 1e9)) {
    throw ShapeError(fmt::format("model.input {} is not possible; expected 1 to 1e9 values a sample",
                                 Shape(std::span<const std::int64_t>(model.input)).str()));
  }
  Graph graph(batch);
  TensorDesc sample{DType::f32, batched(batch, model.input)};
  if (sample.shape.rank() == 4) sample.layout = Layout::channels_last;
  ValueId value = graph.add_input(InputRole::sample, "sample", sample);

  std::map<std::string, int, std::less<>> numbers;
  std::uint32_t dropouts = 0;
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    const Layer& layer = model.layers[i];
    const std::string kind(kind_name(layer.kind));
    const int number = ++numbers[kind];
    const std::string name = layer.name.empty() ? fmt::format("{}_{}", kind, number) : layer.name;
    try {
      // The first layer may see the whole image: the flatten in between changes nothing but the shape.
      if (i == 0 && std::holds_alternative<DenseLayer>(layer.kind) && graph.desc(value).shape.rank() == 4)
        value = graph.add("input_flatten", Flatten{}, {value});
      check_input(layer, name, graph.desc(value).shape, i);
      value = graph.add(name, op_of(layer.kind, dropouts), {value});
    } catch (const LayerError&) {
      throw;
    } catch (const ShapeError& e) {
      throw LayerError(i, e.what());
    }
  }

  const Shape out = graph.desc(value).shape;
  const std::size_t loss = model.layers.size();
  if (out.rank() != 2) {
    throw LayerError(
        loss, fmt::format("the loss: the last layer's output has shape {}; expected [{}]; end with a dense layer",
                          sample_str(out), model.loss == Loss::cross_entropy ? "classes" : "values"));
  }
  if (model.loss == Loss::cross_entropy && out[1] < 2) {
    throw LayerError(loss, fmt::format("the loss: cross_entropy over {} class; expected at least 2 outputs, or "
                                       "mean_squared_error",
                                       out[1]));
  }
  if (graph.params().empty())
    throw LayerError(loss, "the loss: no layer has parameters to train; expected a dense or conv2d layer");
  const bool labels = model.loss == Loss::cross_entropy;
  const ValueId target = graph.add_input(
      InputRole::target, "target", {labels ? DType::i32 : DType::f32, labels ? Shape{batch} : Shape{batch, out[1]}});
  const ValueId weight = graph.add_input(InputRole::weight, "weight", {DType::f32, Shape{batch}});
  try {
    const OpSpec op = labels ? OpSpec(SoftmaxCrossEntropy{}) : OpSpec(MeanSquaredError{});
    graph.add("loss", op, {value, target, weight});
  } catch (const ShapeError& e) {
    throw LayerError(loss, e.what());
  }
  return graph;
}

Shape target_shape(const ModelConfig& model) {
  if (model.loss == Loss::cross_entropy) return {};
  const Graph graph = build(model, 1);
  return Shape(graph.desc(graph.input(InputRole::target)).shape.extents().subspan(1));
}

}  // namespace dtrain::models
