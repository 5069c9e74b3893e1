#include "runtime/ops/conv_transpose.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

namespace {

/// The positions of the result. Throws ShapeError.
Extents grown(const ConvTranspose& op, const TensorDesc& x) {
  const Extents positions = positions_of(x);
  Extents out;
  for (std::size_t d = 0; d < op.kernel.size(); ++d) {
    if (op.kernel[d] < 1 || op.stride[d] < 1 || op.padding[d] < 0 || op.dilation[d] < 1 || op.output_padding[d] < 0) {
      throw ShapeError(fmt::format(
          "a kernel of {}, stride {}, padding {}, output_padding {}, dilation {}; expected kernel, stride and dilation "
          "of at least 1 and paddings of at least 0",
          op.kernel.str(), op.stride.str(), op.padding.str(), op.output_padding.str(), op.dilation.str()));
    }
    const std::int64_t window = (op.kernel[d] - 1) * op.dilation[d] + 1;
    if (op.padding[d] >= window)
      throw ShapeError(fmt::format("padding {} is not smaller than the {}kernel {}", op.padding[d],
                                   op.dilation[d] > 1 ? "dilated " : "", window));
    if (op.output_padding[d] >= op.stride[d])
      throw ShapeError(
          fmt::format("output_padding {} is not smaller than the stride {}", op.output_padding[d], op.stride[d]));
    if (static_cast<double>(positions[d]) * static_cast<double>(op.stride[d]) + static_cast<double>(window) > 1e12)
      throw ShapeError(fmt::format("a kernel of {} at stride {} makes its input of shape {} too large", op.kernel.str(),
                                   op.stride.str(), x.sample_str()));
    out.push_back((positions[d] - 1) * op.stride[d] - 2 * op.padding[d] + window + op.output_padding[d]);
    if (out[d] < 1) {
      throw ShapeError(
          fmt::format("padding {} leaves nothing of its input of shape {}", op.padding.str(), x.sample_str()));
    }
  }
  return out;
}

}  // namespace

ConvTranspose ConvTranspose::in_dimensions(std::size_t dimensions) {
  ConvTranspose op;
  op.kernel = op.stride = op.dilation = Extents::all(dimensions, 1);
  op.padding = op.output_padding = Extents::all(dimensions, 0);
  return op;
}

Conv ConvTranspose::mirrored(const TensorDesc& in) const {
  return {in.channels(), kernel, stride, padding, false, Activation::none, dilation, groups};
}

std::string_view ConvTranspose::name() const {
  constexpr std::string_view names[] = {"conv_transpose", "conv1d_transpose", "conv2d_transpose", "conv3d_transpose"};
  return names[kernel.size()];
}

OpShape ConvTranspose::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 1);
  const TensorDesc& x = in[0];
  expect_positions(x, kernel.size());
  expect_epilogue(activation);
  expect_filters(x, filters, groups);
  const std::int64_t outputs = filters / groups, window = outputs * kernel.product();
  std::vector<std::int64_t> weight{x.channels(), outputs};
  weight.insert(weight.end(), kernel.begin(), kernel.end());
  OpShape shape;
  shape.out = {with_channels(with_positions(x, grown(*this, x)), filters)};
  add_affine_params(shape, Shape(std::span<const std::int64_t>(weight)), window, filters, bias, init);
  shape.backward_reads = {1, activation == Activation::none ? 0u : 1u};
  shape.epilogue = activation != Activation::none;
  shape.flops = 2.0 * static_cast<double>(x.elements()) * static_cast<double>(window);
  shape.bounds.workspace = 4 * parameter_bytes(shape) + x.bytes() + shape.out[0].bytes();
  shape.bounds.workspace_if_added = shape.bounds.workspace + x.bytes();
  return shape;
}

std::vector<OpKind<ConvTranspose>> ConvTranspose::kinds() {
  constexpr std::string_view shapes[] = {"", "[T, C] to [T', filters]", "[C, H, W] to [filters, H', W']",
                                         "[C, D, H, W] to [filters, D', H', W']"};
  return kinds_of_dimensions(&ConvTranspose::kernel, [&](std::size_t n, const ConvTranspose& defaults) {
    Table<ConvTranspose> table(
        fmt::format(
            "{}-D transposed convolution: {}. An extent grows to (extent - 1) x stride - 2 x padding + window + "
            "output_padding.",
            n, shapes[n]),
        defaults);
    table.add("filters", &ConvTranspose::filters, at_least(1), "output channels").required();
    table.add("kernel", &ConvTranspose::kernel, extents_of(1, n), "window").required();
    table.add("stride", &ConvTranspose::stride, extents_of(1, n), "pixels of the output for one of the input");
    table.add("padding", &ConvTranspose::padding, extents_of(0, n), "pixels of the output left out on each side");
    table.add("output_padding", &ConvTranspose::output_padding, extents_of(0, n),
              "more pixels at the end of each dimension; smaller than the stride");
    table.add("dilation", &ConvTranspose::dilation, extents_of(1, n), "pixels between those of a window");
    table.add("groups", &ConvTranspose::groups, at_least(1), "filters see only the channels of their group");
    table.add("bias", &ConvTranspose::bias, boolean(), "add a trained constant a filter");
    table.add("activation", &ConvTranspose::activation, activation_type(), "applied to the result");
    return table;
  });
}

}  // namespace dtrain
