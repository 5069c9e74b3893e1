#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "runtime/op.hpp"

namespace dtrain {

namespace {

/// The limit on a tensor's elements: offsets and vendor descriptors stay within 31 bits of bytes a row of work, and no
/// product of user-given extents overflows.
constexpr std::int64_t max_elements = std::int64_t{1} << 40;

TensorDesc f32(Shape shape, Layout layout = Layout::plain) {
  for (double n = 1; const std::int64_t extent : shape.extents()) {
    n *= static_cast<double>(extent);
    if (n > static_cast<double>(max_elements))
      throw ShapeError(fmt::format("a tensor of shape {} is too large", shape.str()));
  }
  return {DType::f32, shape, layout, {}};
}

void expect_inputs(std::string_view op, std::span<const TensorDesc> in, std::size_t count) {
  if (in.size() != count) throw BugError(fmt::format("{} takes {} inputs, not {}", op, count, in.size()));
  for (const TensorDesc& desc : in)
    if (desc.shape.rank() < 1 || desc.shape[0] < 1)
      throw ShapeError(fmt::format("{}: the input has shape {}; expected a batch of at least 1", op, desc.shape.str()));
}

void expect_float(std::string_view op, const TensorDesc& desc) {
  if (desc.dtype != DType::f32)
    throw ShapeError(fmt::format("{}: the input is {}; expected float32", op, name_of(desc.dtype)));
  for (std::int64_t extent : desc.shape.extents())
    if (extent < 1) throw ShapeError(fmt::format("{}: the input {} is empty", op, desc.shape.str()));
}

void expect_images(std::string_view op, const TensorDesc& desc) {
  if (desc.shape.rank() != 4) {
    throw ShapeError(
        fmt::format("{}: the input has shape {}; expected [batch, channels, height, width]", op, desc.shape.str()));
  }
  if (desc.layout != Layout::channels_last)
    throw BugError(fmt::format("{}: images must lie channels last in memory", op));
  expect_float(op, desc);
}

/// Weight and bias as PyTorch starts them: uniform within 1 / sqrt(fan_in).
void add_affine_params(OpShape& shape, Shape weight, bool bias) {
  std::int64_t fan_in = 1;
  for (int i = 1; i < weight.rank(); ++i) fan_in *= weight[i];
  const Init init{Init::Kind::uniform, 1.0 / std::sqrt(static_cast<double>(fan_in))};
  shape.params.push_back({"weight", f32(weight), init, true});
  if (bias) shape.params.push_back({"bias", f32(Shape{weight[0]}), init, false});
}

/// Windows of `size` at `stride` over `extent` with `padding` on both sides.
std::int64_t window_count(std::string_view op, const TensorDesc& in, std::int64_t extent, std::int64_t size,
                          std::int64_t stride, std::int64_t padding) {
  if (size < 1 || stride < 1 || padding < 0) {
    throw ShapeError(
        fmt::format("{}: size {}, stride {}, padding {}; expected size and stride of at least 1 and padding of at "
                    "least 0",
                    op, size, stride, padding));
  }
  if (padding >= size) {
    throw ShapeError(fmt::format("{}: padding {} is not smaller than the window {}: some outputs would see no input",
                                 op, padding, size));
  }
  if (extent + 2 * padding < size) {
    throw ShapeError(fmt::format("{}: a window of {} does not fit into the input {} with padding {}", op, size,
                                 in.shape.str(), padding));
  }
  return (extent + 2 * padding - size) / stride + 1;
}

OpShape infer_op(const Linear& op, std::span<const TensorDesc> in) {
  expect_inputs("linear", in, 1);
  expect_float("linear", in[0]);
  if (op.units < 1) throw ShapeError(fmt::format("linear: {} units; expected at least 1", op.units));
  const Shape& x = in[0].shape;
  if (x.rank() != 2) {
    throw ShapeError(
        fmt::format("linear: the input has shape {}; expected [batch, features]: put a flatten before it", x.str()));
  }
  OpShape shape;
  shape.out = {f32(Shape{x[0], op.units})};
  add_affine_params(shape, Shape{op.units, x[1]}, op.bias);
  shape.backward_reads = {1, op.activation == Activation::none ? 0u : 1u};
  shape.flops = 2.0 * static_cast<double>(x[0]) * static_cast<double>(x[1]) * static_cast<double>(op.units);
  return shape;
}

OpShape infer_op(const Conv2d& op, std::span<const TensorDesc> in) {
  expect_inputs("conv2d", in, 1);
  expect_images("conv2d", in[0]);
  if (op.filters < 1) throw ShapeError(fmt::format("conv2d: {} filters; expected at least 1", op.filters));
  const Shape& x = in[0].shape;
  const std::int64_t h = window_count("conv2d", in[0], x[2], op.kernel[0], op.stride[0], op.padding[0]);
  const std::int64_t w = window_count("conv2d", in[0], x[3], op.kernel[1], op.stride[1], op.padding[1]);
  OpShape shape;
  shape.out = {f32(Shape{x[0], op.filters, h, w}, Layout::channels_last)};
  add_affine_params(shape, Shape{op.filters, x[1], op.kernel[0], op.kernel[1]}, op.bias);
  shape.backward_reads = {1, op.activation == Activation::none ? 0u : 1u};
  shape.flops =
      2.0 * static_cast<double>(shape.out[0].elements()) * static_cast<double>(x[1] * op.kernel[0] * op.kernel[1]);
  return shape;
}

OpShape infer_op(const MaxPool2d& op, std::span<const TensorDesc> in) {
  expect_inputs("max_pool2d", in, 1);
  expect_images("max_pool2d", in[0]);
  const Shape& x = in[0].shape;
  const std::int64_t h = window_count("max_pool2d", in[0], x[2], op.size[0], op.stride[0], 0);
  const std::int64_t w = window_count("max_pool2d", in[0], x[3], op.size[1], op.stride[1], 0);
  if (op.size[0] * op.size[1] > 256) {
    throw ShapeError(
        fmt::format("max_pool2d: a window of {} x {}; expected at most 256 elements", op.size[0], op.size[1]));
  }
  OpShape shape;
  shape.out = {f32(Shape{x[0], x[1], h, w}, Layout::channels_last)};
  // Which element of its window each maximum was.
  shape.saved = {{DType::u8, shape.out[0].shape, Layout::channels_last, {}}};
  shape.flops = static_cast<double>(shape.out[0].elements() * op.size[0] * op.size[1]);
  return shape;
}

OpShape infer_op(const Relu&, std::span<const TensorDesc> in) {
  expect_inputs("relu", in, 1);
  expect_float("relu", in[0]);
  OpShape shape;
  shape.out = {in[0]};
  shape.backward_reads = {0, 1};
  shape.may_share = {{Alias::Kind::out_over_in, 0, 0}, {Alias::Kind::grad_over_grad, 0, 0}};
  shape.flops = static_cast<double>(in[0].elements());
  return shape;
}

OpShape infer_op(const Dropout& op, std::span<const TensorDesc> in) {
  expect_inputs("dropout", in, 1);
  expect_float("dropout", in[0]);
  if (!(op.rate >= 0 && op.rate < 1))
    throw ShapeError(fmt::format("dropout: a rate of {}; expected 0 <= rate < 1", op.rate));
  OpShape shape;
  shape.out = {in[0]};
  shape.saved = {{DType::u8, in[0].shape, in[0].layout, in[0].origin}};
  shape.may_share = {{Alias::Kind::out_over_in, 0, 0}, {Alias::Kind::grad_over_grad, 0, 0}};
  shape.flops = static_cast<double>(in[0].elements());
  return shape;
}

OpShape infer_op(const Flatten&, std::span<const TensorDesc> in) {
  expect_inputs("flatten", in, 1);
  expect_float("flatten", in[0]);
  const Shape& x = in[0].shape;
  OpShape shape;
  TensorDesc out = f32(Shape{x[0], in[0].elements() / x[0]});
  if (in[0].layout == Layout::channels_last) {
    // One channel or one pixel lies the same both ways.
    if (x[1] > 1 && x[2] * x[3] > 1) {
      out.layout = Layout::flattened_channels_last;
      out.origin = {x[1], x[2], x[3]};
    }
  } else if (in[0].layout == Layout::flattened_channels_last) {
    out = in[0];
  }
  shape.out = {out};
  shape.may_share = {{Alias::Kind::view, 0, 0}};
  return shape;
}

void expect_sample_weights(std::string_view op, const TensorDesc& weight, std::int64_t batch) {
  if (weight.dtype != DType::f32 || weight.shape != Shape{batch}) {
    throw ShapeError(fmt::format("{}: the weights are {} {}; expected float32 [{}]", op, name_of(weight.dtype),
                                 weight.shape.str(), batch));
  }
}

void expect_plain(std::string_view op, const TensorDesc& desc) {
  if (desc.layout != Layout::plain)
    throw ShapeError(fmt::format("{}: the input is a flattened image; put a linear layer before the loss", op));
}

OpShape infer_op(const SoftmaxCrossEntropy&, std::span<const TensorDesc> in) {
  constexpr std::string_view op = "softmax_cross_entropy";
  expect_inputs(op, in, 3);
  expect_float(op, in[0]);
  const Shape& x = in[0].shape;
  if (x.rank() != 2)
    throw ShapeError(fmt::format("{}: the logits have shape {}; expected [batch, classes]", op, x.str()));
  expect_plain(op, in[0]);
  if (in[1].dtype != DType::i32 || in[1].shape != Shape{x[0]}) {
    throw ShapeError(fmt::format("{}: the labels are {} {}; expected int32 [{}]", op, name_of(in[1].dtype),
                                 in[1].shape.str(), x[0]));
  }
  expect_sample_weights(op, in[2], x[0]);
  OpShape shape;
  shape.out = {f32(Shape{loss_sum_count})};
  shape.saved = {f32(Shape{x[0]})};  // log-sum-exp of each sample
  shape.backward_reads = {7, 0};
  shape.flops = 4.0 * static_cast<double>(in[0].elements());
  return shape;
}

OpShape infer_op(const MeanSquaredError&, std::span<const TensorDesc> in) {
  constexpr std::string_view op = "mean_squared_error";
  expect_inputs(op, in, 3);
  expect_float(op, in[0]);
  expect_float(op, in[1]);
  if (in[0].shape.rank() != 2 || in[0].shape != in[1].shape) {
    throw ShapeError(
        fmt::format("{}: the prediction is {} and the target {}; expected two equal shapes [batch, values]", op,
                    in[0].shape.str(), in[1].shape.str()));
  }
  expect_plain(op, in[0]);
  expect_plain(op, in[1]);
  expect_sample_weights(op, in[2], in[0].shape[0]);
  OpShape shape;
  shape.out = {f32(Shape{loss_sum_count})};
  shape.backward_reads = {7, 0};
  shape.flops = 3.0 * static_cast<double>(in[0].elements());
  return shape;
}

struct NameOf {
  std::string_view operator()(const Linear&) const { return "linear"; }
  std::string_view operator()(const Conv2d&) const { return "conv2d"; }
  std::string_view operator()(const MaxPool2d&) const { return "max_pool2d"; }
  std::string_view operator()(const Relu&) const { return "relu"; }
  std::string_view operator()(const Dropout&) const { return "dropout"; }
  std::string_view operator()(const Flatten&) const { return "flatten"; }
  std::string_view operator()(const SoftmaxCrossEntropy&) const { return "softmax_cross_entropy"; }
  std::string_view operator()(const MeanSquaredError&) const { return "mean_squared_error"; }
};

}  // namespace

OpShape infer(const OpSpec& op, std::span<const TensorDesc> in) {
  return std::visit([&](const auto& o) { return infer_op(o, in); }, op);
}

std::string_view name_of(const OpSpec& op) noexcept {
  return std::visit(NameOf{}, op);
}

bool is_loss(const OpSpec& op) noexcept {
  return std::holds_alternative<SoftmaxCrossEntropy>(op) || std::holds_alternative<MeanSquaredError>(op);
}

bool has_epilogue(const OpSpec& op) noexcept {
  if (const auto* linear = std::get_if<Linear>(&op)) return linear->activation != Activation::none;
  if (const auto* conv = std::get_if<Conv2d>(&op)) return conv->activation != Activation::none;
  return false;
}

}  // namespace dtrain
