#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "runtime/ops/op.hpp"

namespace dtrain {

namespace {

/// The limit on a tensor's elements: offsets and vendor descriptors stay within 31 bits of bytes a row of work, and no
/// product of user-given extents overflows.
constexpr std::int64_t max_elements = std::int64_t{1} << 40;

TensorDesc tensor(DType dtype, Shape shape, Layout layout = Layout::plain) {
  for (double n = 1; const std::int64_t extent : shape.extents()) {
    n *= static_cast<double>(extent);
    if (n > static_cast<double>(max_elements))
      throw ShapeError(fmt::format("a tensor of shape {} is too large", shape.str()));
  }
  return {dtype, shape, layout, {}};
}
TensorDesc f32(Shape shape, Layout layout = Layout::plain) {
  return tensor(DType::f32, shape, layout);
}

void expect_inputs(std::string_view op, std::span<const TensorDesc> in, std::size_t count) {
  if (in.size() != count) throw BugError(fmt::format("{} takes {} inputs, not {}", op, count, in.size()));
  for (const TensorDesc& desc : in)
    if (desc.shape.rank() < 1 || desc.shape[0] < 1)
      throw ShapeError(fmt::format("{}: the input has shape {}; expected a batch of at least 1", op, desc.shape.str()));
}

bool is_float(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16;
}

void expect_float(std::string_view op, const TensorDesc& desc) {
  if (!is_float(desc.dtype))
    throw ShapeError(
        fmt::format("{}: the input is {}; expected float32, bfloat16 or float16", op, name_of(desc.dtype)));
  for (std::int64_t extent : desc.shape.extents())
    if (extent < 1) throw ShapeError(fmt::format("{}: the input {} is empty", op, desc.shape.str()));
}

/// Losses compute in f32 whatever the layers before them do: a cast stands in between.
void expect_f32(std::string_view op, const TensorDesc& desc) {
  expect_float(op, desc);
  if (desc.dtype != DType::f32) throw BugError(fmt::format("{}: the input is {}", op, name_of(desc.dtype)));
}

/// [N, features] or [N, C, H, W]: what has channels.
void expect_channels(std::string_view op, const TensorDesc& desc) {
  expect_float(op, desc);
  if ((desc.shape.rank() != 2 || desc.layout != Layout::plain) &&
      (desc.shape.rank() != 4 || desc.layout != Layout::channels_last)) {
    throw ShapeError(
        fmt::format("{}: the input has shape {}{}; expected [batch, features] or [batch, channels, height, width]", op,
                    desc.shape.str(), desc.layout == Layout::flattened_channels_last ? ", a flattened image" : ""));
  }
}

void expect_epilogue(std::string_view op, Activation activation) {
  if (activation != Activation::none && !derivative_of_output(activation))
    throw BugError(fmt::format("{}: {} has to be an op of its own", op, name_of(activation)));
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
void add_affine_params(OpShape& shape, Shape weight, bool bias, const std::optional<Init>& weight_init) {
  std::int64_t fan_in = 1;
  for (int i = 1; i < weight.rank(); ++i) fan_in *= weight[i];
  const Init init{Init::Kind::uniform, 1.0 / std::sqrt(static_cast<double>(fan_in))};
  shape.params.push_back({"weight", f32(weight), weight_init.value_or(init), true});
  if (bias) shape.params.push_back({"bias", f32(Shape{weight[0]}), init, false});
}

/// Windows of `size` (pixels `dilation` apart) at `stride` over `extent` with `padding` on both sides.
std::int64_t window_count(std::string_view op, const TensorDesc& in, std::int64_t extent, std::int64_t size,
                          std::int64_t stride, std::int64_t padding, std::int64_t dilation = 1) {
  if (size < 1 || stride < 1 || padding < 0 || dilation < 1) {
    throw ShapeError(
        fmt::format("{}: size {}, stride {}, padding {}, dilation {}; expected size, stride and dilation of at least 1 "
                    "and padding of at least 0",
                    op, size, stride, padding, dilation));
  }
  const std::int64_t span = (size - 1) * dilation + 1;
  if (padding >= span) {
    throw ShapeError(fmt::format("{}: padding {} is not smaller than the window {}: some outputs would see no input",
                                 op, padding, span));
  }
  if (extent + 2 * padding < span) {
    throw ShapeError(fmt::format("{}: a window of {} does not fit into the input {} with padding {}", op, span,
                                 in.shape.str(), padding));
  }
  return (extent + 2 * padding - span) / stride + 1;
}

OpShape infer_op(const Linear& op, std::span<const TensorDesc> in) {
  expect_inputs("linear", in, 1);
  expect_float("linear", in[0]);
  expect_epilogue("linear", op.activation);
  if (op.units < 1) throw ShapeError(fmt::format("linear: {} units; expected at least 1", op.units));
  const Shape& x = in[0].shape;
  if (x.rank() != 2) {
    throw ShapeError(
        fmt::format("linear: the input has shape {}; expected [batch, features]: put a flatten before it", x.str()));
  }
  OpShape shape;
  shape.out = {tensor(in[0].dtype, Shape{x[0], op.units})};
  add_affine_params(shape, Shape{op.units, x[1]}, op.bias, op.weight_init);
  shape.backward_reads = {1, op.activation == Activation::none ? 0u : 1u};
  shape.flops = 2.0 * static_cast<double>(x[0]) * static_cast<double>(x[1]) * static_cast<double>(op.units);
  return shape;
}

OpShape infer_op(const Conv2d& op, std::span<const TensorDesc> in) {
  expect_inputs("conv2d", in, 1);
  expect_images("conv2d", in[0]);
  expect_epilogue("conv2d", op.activation);
  if (op.filters < 1) throw ShapeError(fmt::format("conv2d: {} filters; expected at least 1", op.filters));
  const Shape& x = in[0].shape;
  if (op.groups < 1 || x[1] % op.groups != 0 || op.filters % op.groups != 0) {
    throw ShapeError(
        fmt::format("conv2d: {} groups do not divide both {} channels and {} filters", op.groups, x[1], op.filters));
  }
  const std::int64_t h = window_count("conv2d", in[0], x[2], op.kernel[0], op.stride[0], op.padding[0], op.dilation[0]);
  const std::int64_t w = window_count("conv2d", in[0], x[3], op.kernel[1], op.stride[1], op.padding[1], op.dilation[1]);
  const std::int64_t channels = x[1] / op.groups;
  OpShape shape;
  shape.out = {tensor(in[0].dtype, Shape{x[0], op.filters, h, w}, Layout::channels_last)};
  add_affine_params(shape, Shape{op.filters, channels, op.kernel[0], op.kernel[1]}, op.bias, op.weight_init);
  shape.backward_reads = {1, op.activation == Activation::none ? 0u : 1u};
  shape.flops =
      2.0 * static_cast<double>(shape.out[0].elements()) * static_cast<double>(channels * op.kernel[0] * op.kernel[1]);
  return shape;
}

template <class Pool>
TensorDesc pooled(std::string_view op, const Pool& pool, const TensorDesc& in) {
  const Shape& x = in.shape;
  const std::int64_t h = window_count(op, in, x[2], pool.size[0], pool.stride[0], pool.padding[0]);
  const std::int64_t w = window_count(op, in, x[3], pool.size[1], pool.stride[1], pool.padding[1]);
  for (std::size_t i = 0; i < 2; ++i) {
    if (2 * pool.padding[i] > pool.size[i]) {
      throw ShapeError(
          fmt::format("{}: padding {} is more than half of the window {}", op, pool.padding[i], pool.size[i]));
    }
  }
  return tensor(in.dtype, Shape{x[0], x[1], h, w}, Layout::channels_last);
}

OpShape infer_op(const MaxPool2d& op, std::span<const TensorDesc> in) {
  expect_inputs("max_pool2d", in, 1);
  expect_images("max_pool2d", in[0]);
  if (op.size[0] * op.size[1] > 256) {
    throw ShapeError(
        fmt::format("max_pool2d: a window of {} x {}; expected at most 256 elements", op.size[0], op.size[1]));
  }
  OpShape shape;
  shape.out = {pooled("max_pool2d", op, in[0])};
  // Which element of its window each maximum was.
  shape.saved = {{DType::u8, shape.out[0].shape, Layout::channels_last, {}}};
  shape.flops = static_cast<double>(shape.out[0].elements() * op.size[0] * op.size[1]);
  return shape;
}

OpShape infer_op(const AveragePool2d& op, std::span<const TensorDesc> in) {
  expect_inputs("average_pool2d", in, 1);
  expect_images("average_pool2d", in[0]);
  OpShape shape;
  shape.out = {pooled("average_pool2d", op, in[0])};
  shape.flops = static_cast<double>(shape.out[0].elements() * op.size[0] * op.size[1]);
  return shape;
}

OpShape infer_op(const GlobalAveragePool&, std::span<const TensorDesc> in) {
  expect_inputs("global_average_pool", in, 1);
  expect_images("global_average_pool", in[0]);
  OpShape shape;
  shape.out = {tensor(in[0].dtype, Shape{in[0].shape[0], in[0].shape[1], 1, 1}, Layout::channels_last)};
  shape.flops = static_cast<double>(in[0].elements());
  return shape;
}

const std::vector<Alias> in_place{{Alias::Kind::out_over_in, 0, 0}, {Alias::Kind::grad_over_grad, 0, 0}};

OpShape infer_op(const Activate& op, std::span<const TensorDesc> in) {
  const std::string_view name = name_of(op.kind);
  expect_inputs(name, in, 1);
  expect_float(name, in[0]);
  if (op.kind == Activation::none) throw BugError("an activation of none");
  OpShape shape;
  shape.out = {in[0]};
  const bool of_output = derivative_of_output(op.kind);
  shape.backward_reads = {of_output ? 0u : 1u, of_output ? 1u : 0u};
  shape.may_share = in_place;
  shape.flops = static_cast<double>(in[0].elements());
  return shape;
}

/// Inputs of one dtype, shape and layout.
void expect_alike(std::string_view op, std::span<const TensorDesc> in) {
  for (const TensorDesc& desc : in) {
    expect_float(op, desc);
    if (desc.shape != in[0].shape || desc.dtype != in[0].dtype || desc.layout != in[0].layout) {
      throw ShapeError(fmt::format("{}: the inputs have shapes {} and {}; expected equal ones", op, in[0].shape.str(),
                                   desc.shape.str()));
    }
  }
}

OpShape infer_op(const Add& op, std::span<const TensorDesc> in) {
  expect_inputs("add", in, 2);
  expect_alike("add", in);
  expect_epilogue("add", op.activation);
  OpShape shape;
  shape.out = {in[0]};
  shape.backward_reads = {0, op.activation == Activation::none ? 0u : 1u};
  shape.differentiable = 3;
  for (std::uint8_t i = 0; i < 2; ++i) {
    shape.may_share.push_back({Alias::Kind::out_over_in, i, 0});
    shape.may_share.push_back({Alias::Kind::grad_over_grad, i, 0});
  }
  shape.flops = static_cast<double>(in[0].elements());
  return shape;
}

OpShape infer_op(const Multiply&, std::span<const TensorDesc> in) {
  expect_inputs("multiply", in, 2);
  expect_float("multiply", in[1]);
  const Shape &a = in[0].shape, &b = in[1].shape;
  const bool broadcast = a.rank() == 4 && b == Shape{a[0], a[1], 1, 1} && in[0].layout == in[1].layout;
  if (!broadcast && (a != b || in[0].layout != in[1].layout)) {
    throw ShapeError(
        fmt::format("multiply: the inputs have shapes {} and {}; expected equal ones, or [batch, channels, "
                    "1, 1] for the second",
                    a.str(), b.str()));
  }
  expect_float("multiply", in[0]);
  if (in[0].dtype != in[1].dtype) throw BugError("multiply: inputs of two dtypes");
  OpShape shape;
  shape.out = {in[0]};
  shape.backward_reads = {3, 0};
  shape.differentiable = 3;
  // The gradient of b is summed before that of a overwrites what both are made of.
  shape.may_share = {{Alias::Kind::grad_over_grad, 0, 0}};
  shape.flops = static_cast<double>(in[0].elements());
  return shape;
}

OpShape infer_op(const Concat&, std::span<const TensorDesc> in) {
  if (in.size() < 2 || in.size() > 32) throw ShapeError(fmt::format("concat: {} inputs; expected 2 to 32", in.size()));
  std::int64_t channels = 0;
  for (const TensorDesc& desc : in) {
    expect_channels("concat", desc);
    const Shape &a = in[0].shape, &b = desc.shape;
    bool fits = a.rank() == b.rank() && desc.dtype == in[0].dtype && a[0] == b[0];
    for (int i = 2; fits && i < a.rank(); ++i) fits = a[i] == b[i];
    if (!fits) {
      throw ShapeError(fmt::format("concat: the inputs have shapes {} and {}; expected the same but for the channels",
                                   a.str(), b.str()));
    }
    channels += b[1];
  }
  const Shape& x = in[0].shape;
  OpShape shape;
  shape.out = {x.rank() == 4 ? tensor(in[0].dtype, Shape{x[0], channels, x[2], x[3]}, Layout::channels_last)
                             : tensor(in[0].dtype, Shape{x[0], channels})};
  shape.differentiable = static_cast<std::uint32_t>((std::uint64_t{1} << in.size()) - 1);
  return shape;
}

template <class Norm>
OpShape infer_norm(std::string_view name, const Norm& op, const TensorDesc& x) {
  expect_channels(name, x);
  expect_epilogue(name, op.activation);
  if (!(op.epsilon > 0) || !(op.momentum >= 0 && op.momentum <= 1))
    throw ShapeError(fmt::format("{}: epsilon {} and momentum {}; expected epsilon > 0 and 0 <= momentum <= 1", name,
                                 op.epsilon, op.momentum));
  const std::int64_t channels = x.shape[1];
  const TensorDesc row = f32(Shape{channels});
  OpShape shape;
  shape.out = {x};
  Init weight{Init::Kind::ones, 0};
  if (op.initial_weight == 0) weight.kind = Init::Kind::zeros;
  shape.params = {{"weight", row, weight, false}, {"bias", row, {}, false}};
  shape.state = {{"running_mean", row, 0.0f, op.momentum}, {"running_variance", row, 1.0f, op.momentum}};
  shape.saved = {row, row};
  shape.backward_reads = {1, op.activation == Activation::none ? 0u : 1u};
  // Data gradients are made element by element from the sums that the parameters' gradients are.
  shape.may_share = {{Alias::Kind::grad_over_grad, 0, 0}};
  shape.backward_at_once = true;
  shape.flops = 4.0 * static_cast<double>(x.elements());
  return shape;
}

OpShape infer_op(const BatchNorm& op, std::span<const TensorDesc> in) {
  expect_inputs("batch_norm", in, 1);
  if (in[0].shape.rank() >= 2 && in[0].elements() / std::max<std::int64_t>(in[0].shape[1], 1) < 2) {
    throw ShapeError(
        fmt::format("batch_norm: the input {} has one value a channel, which has no variance; expected a "
                    "micro batch of at least 2",
                    in[0].shape.str()));
  }
  return infer_norm("batch_norm", op, in[0]);
}

OpShape infer_op(const BatchMoments&, std::span<const TensorDesc> in) {
  expect_inputs("batch_moments", in, 1);
  expect_channels("batch_moments", in[0]);
  OpShape shape;
  shape.out = {tensor(DType::f64, Shape{2 * in[0].shape[1] + 1})};
  shape.backward_reads = {1, 0};
  shape.flops = 3.0 * static_cast<double>(in[0].elements());
  return shape;
}

OpShape infer_op(const SumOverRanks&, std::span<const TensorDesc> in) {
  if (in.size() != 1) throw BugError("sum_over_ranks takes one input");
  OpShape shape;
  shape.out = {in[0]};
  shape.may_share = {{Alias::Kind::view, 0, 0}};
  return shape;
}

OpShape infer_op(const BatchNormalize& op, std::span<const TensorDesc> in) {
  if (in.size() != 2 || in[1].dtype != DType::f64 || in[1].shape != Shape{2 * in[0].shape[1] + 1})
    throw BugError("batch_normalize takes a value and its moments");
  OpShape shape = infer_norm("batch_normalize", op, in[0]);
  shape.backward_reads.in = 3;
  shape.differentiable = 3;
  return shape;
}

OpShape infer_op(const LayerNorm& op, std::span<const TensorDesc> in) {
  expect_inputs("layer_norm", in, 1);
  expect_channels("layer_norm", in[0]);
  if (!(op.epsilon > 0)) throw ShapeError(fmt::format("layer_norm: epsilon {}; expected more than 0", op.epsilon));
  const std::int64_t channels = in[0].shape[1];
  const TensorDesc row = f32(Shape{in[0].elements() / channels});
  OpShape shape;
  shape.out = {in[0]};
  shape.params = {{"weight", f32(Shape{channels}), {Init::Kind::ones, 0}, false},
                  {"bias", f32(Shape{channels}), {}, false}};
  shape.saved = {row, row};
  shape.backward_reads = {1, 0};
  shape.may_share = {{Alias::Kind::grad_over_grad, 0, 0}};
  shape.backward_at_once = true;
  shape.flops = 6.0 * static_cast<double>(in[0].elements());
  return shape;
}

OpShape infer_op(const Cast& op, std::span<const TensorDesc> in) {
  expect_inputs("cast", in, 1);
  expect_float("cast", in[0]);
  if (!is_float(op.to)) throw BugError("a cast to what is neither float32, bfloat16 nor float16");
  OpShape shape;
  shape.out = {in[0]};
  shape.out[0].dtype = op.to;
  shape.flops = 0;
  return shape;
}

OpShape infer_op(const Dropout& op, std::span<const TensorDesc> in) {
  expect_inputs("dropout", in, 1);
  expect_float("dropout", in[0]);
  if (!(op.rate >= 0 && op.rate < 1))
    throw ShapeError(fmt::format("dropout: a rate of {}; expected 0 <= rate < 1", op.rate));
  OpShape shape;
  shape.out = {in[0]};
  shape.saved = {{DType::u8, op.whole_sample ? Shape{in[0].shape[0]} : in[0].shape, Layout::plain, {}}};
  if (!op.whole_sample) shape.saved[0] = {DType::u8, in[0].shape, in[0].layout, in[0].origin};
  shape.may_share = in_place;
  shape.flops = static_cast<double>(in[0].elements());
  return shape;
}

OpShape infer_op(const Flatten&, std::span<const TensorDesc> in) {
  expect_inputs("flatten", in, 1);
  expect_float("flatten", in[0]);
  const Shape& x = in[0].shape;
  OpShape shape;
  TensorDesc out = tensor(in[0].dtype, Shape{x[0], in[0].elements() / x[0]});
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

OpShape infer_op(const SoftmaxCrossEntropy& loss, std::span<const TensorDesc> in) {
  constexpr std::string_view op = "softmax_cross_entropy";
  expect_inputs(op, in, 3);
  expect_f32(op, in[0]);
  if (!(loss.label_smoothing >= 0 && loss.label_smoothing < 1))
    throw ShapeError(fmt::format("{}: label smoothing {}; expected 0 <= smoothing < 1", op, loss.label_smoothing));
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
  expect_f32(op, in[0]);
  expect_f32(op, in[1]);
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
  std::string_view operator()(const AveragePool2d&) const { return "average_pool2d"; }
  std::string_view operator()(const GlobalAveragePool&) const { return "global_average_pool"; }
  std::string_view operator()(const Activate& op) const { return name_of(op.kind); }
  std::string_view operator()(const Add&) const { return "add"; }
  std::string_view operator()(const Multiply&) const { return "multiply"; }
  std::string_view operator()(const Concat&) const { return "concat"; }
  std::string_view operator()(const BatchNorm&) const { return "batch_norm"; }
  std::string_view operator()(const BatchMoments&) const { return "batch_moments"; }
  std::string_view operator()(const SumOverRanks&) const { return "sum_over_ranks"; }
  std::string_view operator()(const BatchNormalize&) const { return "batch_normalize"; }
  std::string_view operator()(const LayerNorm&) const { return "layer_norm"; }
  std::string_view operator()(const Cast&) const { return "cast"; }
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

bool is_training_only(const OpSpec& op) noexcept {
  return std::holds_alternative<BatchMoments>(op) || std::holds_alternative<SumOverRanks>(op);
}

std::string_view name_of(Activation activation) noexcept {
  constexpr std::string_view names[] = {"none", "relu", "gelu", "silu", "tanh", "sigmoid", "hard_swish"};
  return names[static_cast<std::size_t>(activation)];
}

bool derivative_of_output(Activation a) noexcept {
  return a == Activation::relu || a == Activation::tanh || a == Activation::sigmoid;
}

bool has_epilogue(const OpSpec& op) noexcept {
  if (const auto* linear = std::get_if<Linear>(&op)) return linear->activation != Activation::none;
  if (const auto* conv = std::get_if<Conv2d>(&op)) return conv->activation != Activation::none;
  return false;
}

}  // namespace dtrain
