// Convolutions through oneDNN: NHWC activations, weights in the library's blocked formats (repacked once an update),
// gradients of weights brought back into canonical order.
#include <algorithm>

#include <fmt/format.h>

#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/ops/in_float.hpp"
#include "runtime/cpu/ops/weighted.hpp"
#include "runtime/ops/inference.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::cpu {

namespace {

/// In oneDNN's logical order: batch, channels, positions.
dnnl::memory::dims dims_of(const TensorDesc& desc) {
  dnnl::memory::dims dims{desc.batch(), desc.channels()};
  for (const std::int64_t extent : inference::positions_of(desc)) dims.push_back(extent);
  return dims;
}

/// Where oneDNN's compiled kernels are known to give wrong gradients of weights, or to write beyond them (2.6.3 in
/// float32 and bfloat16, found by comparison with plain loops): a window's step wider than the input, or more padding
/// than half of a window. On volumes also, in depth or height, windows of which each has padding, where they move by
/// more than one, or have more than one at both ends. Common networks have none of them.
bool is_unsafe(const LayerShape& c) {
  const std::size_t dimensions = c.stride.size();
  for (std::size_t d = 0; d < dimensions; ++d) {
    const std::int64_t window = (c.weights[c.weights.size() - dimensions + d] - 1) * (c.dilation[d] + 1) + 1;
    const std::int64_t in = c.in[d + 2], stride = c.stride[d], begin = c.padding_begin[d], end = c.padding_end[d];
    if (stride > in || 2 * std::max(begin, end) > window - 1) return true;
    const std::int64_t first_inside = (begin + stride - 1) / stride * stride - begin;
    const bool all_padded = begin > 0 && end > 0 && first_inside + window > in;
    const std::int64_t at_both_ends = std::min(begin, window - begin - in);
    if (dimensions == 3 && d < 2 && all_padded && (stride > 1 || at_both_ends > 1)) return true;
  }
  return false;
}

}  // namespace

WeightedOp weighted_convolution(const Conv& op, const TensorDesc& in, int threads) {
  const OmpThreads scope(threads);
  const OpShape shape = infer(op, {&in, 1});
  const Extents pads = op.pads(), at = inference::positions_of(in), to = inference::positions_of(shape.out[0]);
  const auto weights = shape.params[0].desc.shape.extents();
  LayerShape c{dims_of(in), {weights.begin(), weights.end()},     dims_of(shape.out[0]),     op.bias, op.activation,
               in.dtype,    {op.stride.begin(), op.stride.end()}, {pads.begin(), pads.end()}};
  if (op.groups > 1) {  // [groups, filters / groups, channels / groups, window...]: the same bytes
    c.weights[0] /= op.groups;
    c.weights.insert(c.weights.begin(), op.groups);
  }
  for (std::size_t d = 0; d < op.kernel.size(); ++d) {
    c.dilation.push_back(op.dilation[d] - 1);
    // What of the padding the last window reaches.
    c.padding_end.push_back((to[d] - 1) * op.stride[d] + (op.kernel[d] - 1) * op.dilation[d] + 1 - at[d] - pads[d]);
  }
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  c.spare_compiled = is_unsafe(c);
  const dnnl::memory::desc canonical = plain_desc(c.weights);
  return {engine, plan_convolution(engine, c), canonical, canonical, op.bias, in.dtype, threads};
}

std::unique_ptr<Kernel> make(const Conv& op, Inputs in, int threads) {
  try {
    return make_weighted(weighted_convolution(op, in[0], threads), op.activation, threads);
  } catch (const dnnl::error& e) {
    if (in[0].dtype == DType::bf16) return make_in_float(op, in[0], threads);
    throw DeviceError(fmt::format("oneDNN cannot run a convolution of {} filters {} on {}: {}", op.filters,
                                  op.kernel.str(), in[0].sample_str(), e.what()));
  }
}

}  // namespace dtrain::cpu
