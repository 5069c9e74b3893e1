#include "runtime/ops/inference.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace dtrain::inference {

namespace {

/// The limit on a tensor's elements: offsets and vendor descriptors stay within 31 bits of bytes a row of work, and no
/// product of user-given extents overflows.
constexpr std::int64_t max_elements = std::int64_t{1} << 40;

bool is_float(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16;
}

std::size_t aligned(std::size_t n) {
  return (n + 63) / 64 * 64;
}

}  // namespace

TensorDesc tensor(DType dtype, Shape shape) {
  for (double n = 1; const std::int64_t extent : shape.extents()) {
    n *= static_cast<double>(extent);
    if (n > static_cast<double>(max_elements))
      throw ShapeError(fmt::format("a tensor of shape {} is too large", shape.str()));
  }
  return {dtype, shape, {}};
}

Extents positions_of(const TensorDesc& desc) {
  Extents positions;
  for (int i = 1; i + 1 < desc.shape.rank(); ++i) positions.push_back(desc.shape[i]);
  return positions;
}

TensorDesc with_positions(const TensorDesc& desc, const Extents& positions) {
  std::vector<std::int64_t> extents{desc.batch()};
  extents.insert(extents.end(), positions.begin(), positions.end());
  extents.push_back(desc.channels());
  return tensor(desc.dtype, Shape(std::span<const std::int64_t>(extents)));
}

TensorDesc with_channels(const TensorDesc& desc, std::int64_t channels) {
  std::vector<std::int64_t> extents(desc.shape.extents().begin(), desc.shape.extents().end());
  extents.back() = channels;
  return tensor(desc.dtype, Shape(std::span<const std::int64_t>(extents)));
}

void expect_inputs(std::string_view op, std::span<const TensorDesc> in, std::size_t count) {
  if (in.size() != count) {
    constexpr std::string_view numbers[] = {"no input", "one input", "two inputs", "three inputs"};
    throw ShapeError(
        fmt::format("{} takes {}, not {}; expected {}", op, numbers[count], in.size(),
                    count == 2 ? "from: [a, b]" : "one name in from; add, multiply and concat join several"));
  }
  for (const TensorDesc& desc : in)
    if (desc.shape.rank() < 1 || desc.elements() < 1)
      throw ShapeError(fmt::format("its input has shape {}, which is empty", desc.shape.str()));
}

void expect_float(const TensorDesc& desc) {
  if (!is_float(desc.dtype))
    throw ShapeError(fmt::format("its input is {}; expected float32, bfloat16 or float16: put an embedding before it",
                                 name_of(desc.dtype)));
}

void expect_channels(const TensorDesc& desc) {
  expect_float(desc);
  if (desc.shape.rank() < 2)
    throw ShapeError(fmt::format("its input has shape {}; expected a batch of values with channels", desc.shape.str()));
  if (desc.is_flattened_image()) {
    throw ShapeError(
        fmt::format("its input of shape {} is a flattened image; put it before the flatten, or behind a dense layer",
                    desc.sample_str()));
  }
}

void expect_positions(const TensorDesc& desc, std::size_t dimensions) {
  if (static_cast<std::size_t>(desc.shape.rank()) != dimensions + 2) {
    constexpr std::string_view wanted[] = {"[features]", "[length, channels]", "[channels, height, width]",
                                           "[channels, depth, height, width]"};
    throw ShapeError(fmt::format("its input has shape {}; expected {}", desc.sample_str(), wanted[dimensions]));
  }
  expect_channels(desc);
}

void expect_any_positions(const TensorDesc& desc) {
  if (desc.shape.rank() < 3)
    throw ShapeError(
        fmt::format("its input has shape {}; expected positions, such as [length, channels]", desc.sample_str()));
}

void expect_documents(const TensorDesc& documents, const TensorDesc& value) {
  const Shape positions = without_channels(value);
  if (documents.dtype == DType::i32 && documents.shape == positions) return;
  throw ShapeError(fmt::format("the documents are {}, {}; expected int32, {}: the first position that each may see",
                               name_of(documents.dtype), in_a_sample(documents.shape), in_a_sample(positions)));
}

void expect_filters(const TensorDesc& x, std::int64_t filters, std::int64_t groups) {
  if (filters < 1) throw ShapeError(fmt::format("{} filters; expected at least 1", filters));
  if (groups < 1 || x.channels() % groups != 0 || filters % groups != 0) {
    throw ShapeError(fmt::format(
        "groups {} does not divide its input of shape {} and its {} filters; expected a divisor of {} and {}", groups,
        x.sample_str(), filters, x.channels(), filters));
  }
}

void expect_alike(std::span<const TensorDesc> in) {
  for (const TensorDesc& desc : in) {
    expect_float(desc);
    if (desc == in[0]) continue;
    const bool flattened = desc.shape == in[0].shape && desc.dtype == in[0].dtype;
    throw ShapeError(fmt::format("its inputs have shapes {} and {}{}; expected equal ones", in[0].sample_str(),
                                 desc.sample_str(), flattened ? ", but one is a flattened image" : ""));
  }
}

void expect_epilogue(Activation activation) {
  if (activation != Activation::none && !derivative_of_output(activation))
    throw BugError(fmt::format("{} has to be an op of its own", name_of(activation)));
}

void expect_loss_values(const TensorDesc& desc) {
  expect_float(desc);
  if (desc.shape.rank() < 2)
    throw ShapeError(fmt::format("its input has shape {}; expected a batch of values with channels", desc.shape.str()));
  if (desc.is_flattened_image()) throw ShapeError("its input is a flattened image; put a dense layer before the loss");
}

void expect_loss_weights(const TensorDesc& weight, const TensorDesc& value) {
  const Shape samples{value.batch()}, positions = without_channels(value);
  if (weight.dtype == DType::f32 && (weight.shape == samples || weight.shape == positions)) return;
  throw ShapeError(fmt::format("the weights are {}, {}; expected float32, {}", name_of(weight.dtype),
                               in_a_sample(weight.shape),
                               positions == samples ? "one a sample" : "one a sample or " + in_a_sample(positions)));
}

Shape without_channels(const TensorDesc& desc) {
  return Shape(desc.shape.extents().first(static_cast<std::size_t>(desc.shape.rank()) - 1));
}

std::string in_a_sample(const Shape& shape) {
  if (shape.rank() == 1) return "one a sample";
  return Shape(shape.extents().subspan(1)).str() + " a sample";
}

std::vector<Alias> in_place() {
  return {{Alias::Kind::out_over_in, 0, 0}, {Alias::Kind::grad_over_grad, 0, 0}};
}

Extents WindowSizes::count(const TensorDesc& in) const {
  const Extents positions = positions_of(in);
  Extents windows, counts;
  for (std::size_t d = 0; d < size.size(); ++d) {
    if (size[d] < 1 || stride[d] < 1 || padding[d] < 0 || dilation[d] < 1) {
      throw ShapeError(
          fmt::format("a {} of {}, stride {}, padding {}, dilation {}; expected {}, stride and dilation of "
                      "at least 1 and padding of at least 0",
                      what, size.str(), stride.str(), padding.str(), dilation.str(), what));
    }
    windows.push_back((size[d] - 1) * dilation[d] + 1);
  }
  const std::string name = windows == size ? std::string(what) : fmt::format("dilated {}", what);
  for (std::size_t d = 0; d < size.size(); ++d) {
    if (padding[d] >= windows[d])
      throw ShapeError(fmt::format("padding {} is not smaller than the {} {}", padding[d], name, windows[d]));
    if (positions[d] + 2 * padding[d] < windows[d]) {
      throw ShapeError(
          fmt::format("a {} of {} does not fit its input of shape {}", name, windows.str(), in.sample_str()));
    }
    counts.push_back((positions[d] + 2 * padding[d] - windows[d]) / stride[d] + 1);
  }
  return counts;
}

void add_affine_params(OpShape& shape, Shape weight, std::int64_t fan_in, std::int64_t outputs, bool bias,
                       const AffineInit& init) {
  const Init usual{Init::Kind::uniform, 1.0 / std::sqrt(static_cast<double>(fan_in))};
  shape.params.push_back({"weight", f32(weight), init.weight.value_or(usual), true});
  if (bias) shape.params.push_back({"bias", f32(Shape{outputs}), init.bias.value_or(usual), false});
}

std::size_t parameter_bytes(const OpShape& shape) {
  std::size_t bytes = 0;
  for (const ParamDesc& p : shape.params) bytes += aligned(p.desc.bytes());
  return bytes;
}

std::size_t library_workspace(std::size_t in) {
  return std::clamp(in, std::size_t{1} << 20, std::size_t{16} << 20);
}

Bounds line_bounds(const TensorDesc& in, bool library) {
  // Partial sums of each task in double, and coefficients.
  const std::size_t line = 44 * static_cast<std::size_t>(std::max<std::int64_t>(in.channels(), 1024));
  const std::size_t own = in.bytes() + line;
  if (!library) return {own};
  const std::size_t theirs = library_workspace(in.bytes()) + line;
  return {std::max(own, theirs), in.bytes() + theirs, true};
}

Bounds sample_line_bounds(const TensorDesc& in) {
  const auto line = static_cast<std::size_t>(std::max<std::int64_t>(in.channels(), 1024));
  return {static_cast<std::size_t>(in.batch()) * 16 * line};
}

}  // namespace dtrain::inference
