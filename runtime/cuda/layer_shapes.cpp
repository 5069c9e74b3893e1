// What of products, convolutions and the choice of their algorithms needs neither GPU nor library, and is built
// everywhere: names, shapes, the quickest of some times.
#include <array>
#include <cmath>
#include <cstring>

#include <fmt/format.h>

#include "runtime/cuda/blas_lt.hpp"
#include "runtime/cuda/cudnn_graphs.hpp"
#include "runtime/cuda/tuner.hpp"
#include "runtime/error.hpp"

namespace dtrain::cuda {

std::string Product::key() const {
  constexpr const char* epilogues[] = {"", " bias", " relu", " bias relu", " left sums"};
  return fmt::format("product {} {} {}x{}x{} {}{}{}{}{}", name_of(factors), name_of(result), rows, columns, inner,
                     left_transposed ? 't' : 'n', right_transposed ? 't' : 'n',
                     epilogues[static_cast<std::size_t>(epilogue)], factors == DType::f32 && tf32 ? " tf32" : "",
                     nondeterministic ? " nondeterministic" : "");
}

ColumnMajorProduct column_major(const Product& p) noexcept {
  ColumnMajorProduct c{p.columns, p.rows, p.inner, p.right_transposed, p.left_transposed};
  c.a_rows = p.right_transposed ? p.inner : p.columns;
  c.a_columns = p.right_transposed ? p.columns : p.inner;
  c.b_rows = p.left_transposed ? p.rows : p.inner;
  c.b_columns = p.left_transposed ? p.inner : p.rows;
  return c;
}

std::string ConvolutionGraph::key() const {
  constexpr std::array<const char*, 3> passes{"forward", "data_gradient", "weight_gradient"};
  std::string text = fmt::format("conv2d {} {} in {} out {} kernel {} stride {} padding {} dilation {} groups {}",
                                 passes[static_cast<std::size_t>(pass)], name_of(dtype), fmt::join(in, "x"),
                                 fmt::join(out, "x"), fmt::join(kernel, "x"), fmt::join(stride, "x"),
                                 fmt::join(padding, "x"), fmt::join(dilation, "x"), groups);
  if (bias) text += " bias";
  if (activation != Activation::none) text += fmt::format(" {}", name_of(activation));
  if (dtype == DType::f32 && tf32) text += " tf32";
  if (nondeterministic) text += " nondeterministic";
  return text;
}

ConvolutionGraph convolution_graph(const Conv2d& op, const TensorDesc& in, ConvolutionPass pass) {
  const Shape out = infer(op, {&in, 1}).out[0].shape;
  ConvolutionGraph g;
  g.pass = pass;
  g.dtype = in.dtype;
  for (int i = 0; i < 4; ++i) {
    g.in[static_cast<std::size_t>(i)] = in.shape[i];
    g.out[static_cast<std::size_t>(i)] = out[i];
  }
  g.kernel = op.kernel;
  g.stride = op.stride;
  g.padding = op.padding;
  g.dilation = op.dilation;
  g.groups = op.groups;
  if (pass == ConvolutionPass::forward) {
    g.bias = op.bias;
    g.activation = op.activation;
  }
  return g;
}

bool is_product(const Conv2d& op) noexcept {
  constexpr std::array<std::int64_t, 2> one{1, 1}, none{0, 0};
  return op.kernel == one && op.stride == one && op.padding == none && op.groups == 1;
}

ConvolutionGraph bare(ConvolutionGraph g) noexcept {
  g.bias = false;
  g.activation = Activation::none;
  return g;
}

std::size_t quickest(std::span<const double> milliseconds) {
  constexpr double worth_it = 0.97;
  std::size_t best = milliseconds.size();
  for (std::size_t i = 0; i < milliseconds.size(); ++i) {
    if (!std::isfinite(milliseconds[i])) continue;
    if (best == milliseconds.size() || milliseconds[i] < worth_it * milliseconds[best]) best = i;
  }
  if (best == milliseconds.size()) throw DeviceError("none of the library's algorithms ran");
  return best;
}

std::string hexadecimal(const void* bytes, std::size_t size) {
  const auto* at = static_cast<const unsigned char*>(bytes);
  std::string text;
  for (std::size_t i = 0; i < size; ++i) text += fmt::format("{:02x}", at[i]);
  return text;
}

bool from_hexadecimal(const std::string& text, void* bytes, std::size_t size) {
  if (text.size() != 2 * size) return false;
  const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
  std::vector<unsigned char> out(size);
  for (std::size_t i = 0; i < size; ++i) {
    const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    out[i] = static_cast<unsigned char>(high * 16 + low);
  }
  std::memcpy(bytes, out.data(), size);
  return true;
}

}  // namespace dtrain::cuda
