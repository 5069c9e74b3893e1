// What of products, graphs and the choice of their algorithms needs neither GPU nor library, and is built everywhere:
// names, shapes, the quickest of some times, whether two results agree.
#include <array>
#include <cmath>
#include <cstring>

#include <fmt/format.h>

#include "runtime/cuda/library/blas_lt.hpp"
#include "runtime/cuda/library/cudnn_graphs.hpp"
#include "runtime/cuda/library/tuner.hpp"
#include "runtime/ops/inference.hpp"
#include "runtime/tensor/error.hpp"
#include "runtime/tensor/f16.hpp"

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
  std::string text = fmt::format("conv{}d {} {} in {} out {} kernel {} stride {} padding {} dilation {} groups {}",
                                 kernel.size(), passes[static_cast<std::size_t>(pass)], name_of(dtype),
                                 fmt::join(in, "x"), fmt::join(out, "x"), fmt::join(kernel, "x"),
                                 fmt::join(stride, "x"), fmt::join(padding, "x"), fmt::join(dilation, "x"), groups);
  if (bias) text += " bias";
  if (activation != Activation::none) text += fmt::format(" {}", name_of(activation));
  if (dtype == DType::f32 && tf32) text += " tf32";
  if (nondeterministic) text += " nondeterministic";
  return text;
}

namespace {

/// As cuDNN counts an image: N, C, H, W. A series has a height of 1; a volume's depth and height are one.
std::array<std::int64_t, 4> extents(const TensorDesc& desc) {
  const std::int64_t width = desc.shape.rank() > 2 ? desc.shape[desc.shape.rank() - 2] : 1;
  return {desc.batch(), desc.channels(), desc.positions() / width, width};
}

/// cuDNN has two or three dimensions: in front of one there is another, where all is `missing`.
Extents two_or_three(const Extents& of, std::int64_t missing) {
  return of.size() == 1 ? Extents{missing, of[0]} : of;
}
/// N, C, [D,] H, W.
std::vector<std::int64_t> dims_of(const TensorDesc& desc) {
  const Extents positions = two_or_three(inference::positions_of(desc), 1);
  std::vector<std::int64_t> dims{desc.batch(), desc.channels()};
  dims.insert(dims.end(), positions.begin(), positions.end());
  return dims;
}

template <class Pool>
PoolGraph graph_of(const Pool& op, const TensorDesc& in, PoolGraph::Kind kind) {
  return {kind,
          in.dtype,
          dims_of(in),
          dims_of(op.infer({&in, 1}).out[0]),
          two_or_three(op.size, 1),
          two_or_three(op.steps(), 1),
          two_or_three(op.padding, 0)};
}

}  // namespace

ConvolutionGraph convolution_graph(const Conv& op, const TensorDesc& in, ConvolutionPass pass) {
  ConvolutionGraph g;
  g.pass = pass;
  g.dtype = in.dtype;
  g.in = dims_of(in);
  g.out = dims_of(op.infer({&in, 1}).out[0]);
  g.kernel = two_or_three(op.kernel, 1);
  g.stride = two_or_three(op.stride, 1);
  g.padding = two_or_three(op.pads(), 0);
  g.dilation = two_or_three(op.dilation, 1);
  g.groups = op.groups;
  if (pass == ConvolutionPass::forward) {
    g.bias = op.bias;
    g.activation = op.activation;
  }
  return g;
}

ConvolutionGraph convolution_graph(const ConvTranspose& op, const TensorDesc& in, ConvolutionPass pass) {
  const ConvolutionPass mirrored = pass == ConvolutionPass::forward         ? ConvolutionPass::data_gradient
                                   : pass == ConvolutionPass::data_gradient ? ConvolutionPass::forward
                                                                            : pass;
  return convolution_graph(op.mirrored(in), op.infer({&in, 1}).out[0], mirrored);
}

std::string NormGraph::key() const {
  std::string text = fmt::format("{} {} {} {}", kind == Kind::batch ? "batch_norm" : "layer_norm",
                                 backward ? "backward" : "forward", name_of(dtype), fmt::join(shape, "x"));
  if (!backward) text += fmt::format(" epsilon {}", epsilon);
  if (relu) text += " relu";
  if (nondeterministic) text += " nondeterministic";
  return text;
}

std::optional<NormGraph> norm_graph(const BatchNorm& op, const TensorDesc& in, bool backward) {
  if (op.frozen_statistics) return std::nullopt;  // no graph is given statistics
  if (op.activation != Activation::none && op.activation != Activation::relu) return std::nullopt;
  return NormGraph{NormGraph::Kind::batch,           backward, in.dtype, extents(in), op.epsilon,
                   op.activation == Activation::relu};
}

NormGraph norm_graph(const LayerNorm& op, const TensorDesc& in, bool backward) {
  return {NormGraph::Kind::layer, backward, in.dtype, {in.rows(), in.channels(), 1, 1}, op.epsilon};
}

std::string PoolGraph::key() const {
  constexpr std::array<const char*, 3> kinds{"max_pool", "average_pool", "average_pool"};
  return fmt::format("{}{}d{} {} in {} out {} window {} stride {} padding {}", kinds[static_cast<std::size_t>(kind)],
                     window.size(), kind == Kind::average_of_all ? "_of_all" : "", name_of(dtype), fmt::join(in, "x"),
                     fmt::join(out, "x"), fmt::join(window, "x"), fmt::join(stride, "x"), fmt::join(padding, "x"));
}

std::optional<PoolGraph> pool_graph(const MaxPool& op, const TensorDesc& in) {
  if (op.size.product() > 127) return std::nullopt;
  return graph_of(op, in, PoolGraph::Kind::largest);
}
PoolGraph pool_graph(const AveragePool& op, const TensorDesc& in) {
  return graph_of(op, in, op.count_padding ? PoolGraph::Kind::average_of_all : PoolGraph::Kind::average);
}
PoolGraph pool_graph(const GlobalAveragePool&, const TensorDesc& in) {
  const std::array<std::int64_t, 4> nchw = extents(in);
  return {PoolGraph::Kind::average_of_all,
          in.dtype,
          {nchw.begin(), nchw.end()},
          {nchw[0], nchw[1], 1, 1},
          {nchw[2], nchw[3]}};
}

std::string AttentionGraph::key() const {
  std::string text =
      fmt::format("attention {} {} {}x{} heads {}/{} of {} rows {} scale {}", backward ? "backward" : "forward",
                  name_of(dtype), samples, positions, heads, kv_heads, size, fmt::join(rows, "/"), scale);
  if (causal) text += " causal";
  if (window > 0) text += fmt::format(" window {}", window);
  if (nondeterministic) text += " nondeterministic";
  return text;
}

std::optional<AttentionGraph> attention_graph(const Attention& op, std::span<const TensorDesc> in, bool backward,
                                              bool trained) {
  const AttentionLayout at(op, in);
  if (in[0].dtype == DType::f32 || at.documents >= 0 || (trained && op.dropout > 0)) return std::nullopt;
  AttentionGraph g;
  g.backward = backward;
  g.dtype = in[0].dtype;
  g.samples = at.samples;
  g.positions = at.positions;
  g.heads = at.heads;
  g.kv_heads = at.kv_heads;
  g.size = at.size;
  for (std::size_t i = 0; i < 3; ++i) g.rows[i] = at.parts[i].row;
  if (op.rotary) g.rows[0] = at.heads * at.size, g.rows[1] = at.kv_heads * at.size;
  g.causal = op.causal;
  if (op.window < at.positions) g.window = op.window;
  g.scale = at.scale;
  return g;
}

std::string key_of(const CudnnGraph& g) {
  return std::visit([](const auto& graph) { return graph.key(); }, g);
}

namespace {

struct GraphsOf {
  std::span<const TensorDesc> inputs;
  bool tf32;
  const TensorDesc& in = inputs[0];

  std::vector<CudnnGraph> operator()(const Conv& op) const {
    return is_product(op) ? std::vector<CudnnGraph>() : passes_of(op);
  }
  std::vector<CudnnGraph> operator()(const ConvTranspose& op) const { return passes_of(op); }
  std::vector<CudnnGraph> operator()(const BatchNorm& op) const {
    std::vector<CudnnGraph> out;
    for (const bool backward : {false, true})
      if (const auto graph = norm_graph(op, in, backward)) out.emplace_back(*graph);
    return out;
  }
  std::vector<CudnnGraph> operator()(const LayerNorm& op) const {
    return {norm_graph(op, in, false), norm_graph(op, in, true)};
  }
  std::vector<CudnnGraph> operator()(const MaxPool& op) const {
    if (const auto graph = pool_graph(op, in)) return {*graph};
    return {};
  }
  std::vector<CudnnGraph> operator()(const AveragePool& op) const { return {pool_graph(op, in)}; }
  std::vector<CudnnGraph> operator()(const GlobalAveragePool& op) const { return {pool_graph(op, in)}; }
  std::vector<CudnnGraph> operator()(const Attention& op) const {
    std::vector<CudnnGraph> out;
    for (const bool backward : {false, true})
      if (const auto graph = attention_graph(op, inputs, backward, true)) out.emplace_back(*graph);
    return out;
  }
  template <class Other>
  std::vector<CudnnGraph> operator()(const Other&) const {
    return {};
  }

  template <class Convolution>
  std::vector<CudnnGraph> passes_of(const Convolution& op) const {
    std::vector<CudnnGraph> out;
    for (const auto pass :
         {ConvolutionPass::forward, ConvolutionPass::data_gradient, ConvolutionPass::weight_gradient}) {
      ConvolutionGraph graph = convolution_graph(op, in, pass);
      graph.tf32 = tf32;
      out.emplace_back(graph);
    }
    return out;
  }
};

}  // namespace

std::vector<CudnnGraph> graphs_of(const OpSpec& op, std::span<const TensorDesc> in, bool tf32) {
  return std::visit(GraphsOf{in, tf32}, op);
}

bool is_product(const Conv& op) noexcept {
  const std::size_t n = op.kernel.size();
  const Extents one = Extents::all(n, 1), none = Extents::all(n, 0);
  return op.kernel == one && op.stride == one && op.pads() == none && op.groups == 1;
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

std::uint16_t scratch_number(std::size_t i, bool far_from_zero) noexcept {
  auto mixed = static_cast<std::uint32_t>(i / 2) * 2654435761u;  // float32 has two equal halves
  mixed = (mixed ^ mixed >> 15) * 2246822519u;
  mixed ^= mixed >> 13;
  const std::uint32_t negative = mixed & mixed << 1 & 0x8000u;  // a quarter, so that means are not noise around zero
  return static_cast<std::uint16_t>(far_from_zero ? 0x3F80u | (mixed & 0x7u) : 0x3C00u | negative | (mixed & 0x3E0u));
}

std::string full_key(const CudaContext& context, const std::string& library, const std::string& key) {
  return fmt::format("{} {}: {}", library, context.model, key);
}
const std::string* kept_choice(const CudaContext& context, const std::string& library, const std::string& key) {
  return context.choices.find(full_key(context, library, key));
}

bool agree(DType dtype, double tolerance, const void* a, const void* b, std::int64_t n) {
  if (dtype == DType::u8) return std::memcmp(a, b, static_cast<std::size_t>(n)) == 0;
  const auto read = [&](const void* from, std::int64_t i) -> double {
    if (dtype == DType::bf16) return static_cast<double>(to_float(static_cast<const Bf16*>(from)[i]));
    if (dtype == DType::f16) return static_cast<double>(to_float(static_cast<const F16*>(from)[i]));
    return static_cast<double>(static_cast<const float*>(from)[i]);
  };
  double difference = 0, norm = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double x = read(a, i), y = read(b, i);
    difference += (x - y) * (x - y);
    norm += x * x;
  }
  return difference <= tolerance * tolerance * norm;  // false where there is a NaN
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
