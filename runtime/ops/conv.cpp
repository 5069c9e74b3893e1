#include "runtime/ops/conv.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

Conv Conv::in_dimensions(std::size_t dimensions) {
  Conv op;
  op.kernel = op.stride = op.dilation = Extents::all(dimensions, 1);
  op.padding = Extents::all(dimensions, 0);
  return op;
}

Extents Conv::pads() const {
  Extents pads = padding;
  for (std::size_t d = 0; d < pads.size(); ++d)
    if (pads[d] == same) pads[d] = dilation[d] * (kernel[d] - 1) / 2;
  return pads;
}

std::string_view Conv::name() const {
  constexpr std::string_view names[] = {"conv", "conv1d", "conv2d", "conv3d"};
  return names[kernel.size()];
}

OpShape Conv::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 1);
  const TensorDesc& x = in[0];
  expect_positions(x, kernel.size());
  expect_epilogue(activation);
  expect_filters(x, filters, groups);
  for (std::size_t d = 0; d < kernel.size(); ++d) {
    if (padding[d] == same && dilation[d] * (kernel[d] - 1) % 2 != 0) {
      Extents windows;
      for (std::size_t k = 0; k < kernel.size(); ++k) windows.push_back((kernel[k] - 1) * dilation[k] + 1);
      throw ShapeError(
          fmt::format("padding: same with a window of {} would differ on two sides; expected an odd kernel, "
                      "or numbers",
                      windows.str()));
    }
  }
  const std::int64_t channels = x.channels() / groups, window = channels * kernel.product();
  std::vector<std::int64_t> weight{filters, channels};
  weight.insert(weight.end(), kernel.begin(), kernel.end());
  OpShape shape;
  shape.out = {
      with_channels(with_positions(x, WindowSizes{"kernel", kernel, stride, pads(), dilation}.count(x)), filters)};
  add_affine_params(shape, Shape(std::span<const std::int64_t>(weight)), window, filters, bias, init);
  shape.backward_reads = {1, activation == Activation::none ? 0u : 1u};
  shape.epilogue = activation != Activation::none;
  shape.flops = 2.0 * static_cast<double>(shape.out[0].elements()) * static_cast<double>(window);
  shape.bounds.workspace = 4 * parameter_bytes(shape) + x.bytes() + shape.out[0].bytes();
  return shape;
}

std::vector<OpKind<Conv>> Conv::kinds() {
  constexpr std::string_view shapes[] = {"", "[T, C] to [T', filters]", "[C, H, W] to [filters, H', W']",
                                         "[C, D, H, W] to [filters, D', H', W']"};
  return kinds_of_dimensions(&Conv::kernel, [&](std::size_t n, const Conv& defaults) {
    Table<Conv> table(fmt::format("{}-D convolution with zero padding: {}.", n, shapes[n]), defaults);
    table.add("filters", &Conv::filters, at_least(1), "output channels").required();
    table.add("kernel", &Conv::kernel, extents_of(1, n), "window").required();
    table.add("stride", &Conv::stride, extents_of(1, n), "step of the window");
    table.add("padding", &Conv::padding, word_or("same", Extents::all(n, same), extents_of(0, n)),
              "zeros on each side; same: half of an odd window, so that stride 1 keeps the extents");
    table.add("dilation", &Conv::dilation, extents_of(1, n), "pixels between those of a window");
    table.add("groups", &Conv::groups, at_least(1),
              "filters see only the channels of their group; as many as channels: a depthwise convolution");
    table.add("bias", &Conv::bias, boolean(), "add a trained constant a filter");
    table.add("activation", &Conv::activation, activation_type(), "applied to the result");
    return table;
  });
}

}  // namespace dtrain
