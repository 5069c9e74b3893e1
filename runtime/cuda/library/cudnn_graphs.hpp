// Convolutions, norms, pools and attention as cuDNN graphs behind plain structs: what a graph computes, which engines a
// GPU has for it, and a plan that runs one. A CudnnGraphs owns the library's handle (one a device, used on the thread
// that prepares and runs); a plan owns what was built and runs on the stream it is given.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "runtime/cuda/library/graph_check.hpp"
#include "runtime/ops/op.hpp"

namespace dtrain::cuda {

// Values lie channels last, sums are float. A series is an image of height 1.

enum class ConvolutionPass : std::uint8_t { forward, data_gradient, weight_gradient };

/// One convolution in one direction. Weights are (filter, kernel..., channel of the group); all is of `dtype`, and so
/// is what is written: y, or the gradient of x or of the weights (cuDNN has none in float from halves). Operands:
/// forward x, weights, [bias], y; data_gradient dy, weights, dx; weight_gradient dy, x, dw.
struct ConvolutionGraph {
  ConvolutionPass pass = ConvolutionPass::forward;
  DType dtype = DType::f32;
  std::vector<std::int64_t> in, out;                                  // N, C, [D,] H, W
  Extents kernel{1, 1}, stride{1, 1}, padding{0, 0}, dilation{1, 1};  // of two or three dimensions
  std::int64_t groups = 1;
  bool bias = false;                         // forward: float [filters], added before the activation
  Activation activation = Activation::none;  // forward
  bool tf32 = false;                         // float32 may round its factors to TF32
  bool nondeterministic = false;             // engines whose bits differ between runs are welcome

  /// All of it in one line: names a graph in AlgorithmChoices.
  std::string key() const;
};

/// The graph of a Conv on `in` for one pass; forward with bias and activation.
ConvolutionGraph convolution_graph(const Conv&, const TensorDesc& in, ConvolutionPass);
/// The graph that a ConvTranspose on `in` runs for one pass of its own, bare: another pass of its mirrored convolution.
ConvolutionGraph convolution_graph(const ConvTranspose&, const TensorDesc& in, ConvolutionPass);
/// True for a convolution that is one product of matrices, pixels by channels: cuBLASLt runs it, and no graph does.
bool is_product(const Conv&) noexcept;
/// The same without what follows the convolution.
ConvolutionGraph bare(ConvolutionGraph) noexcept;

/// Batch norm of a micro batch in training, or layer norm of rows. x, y and their gradients are of `dtype`, the rest is
/// float: weight and bias, and mean and 1 / standard deviation of each channel (batch) or row (layer). `relu` (batch):
/// forward ends with it; backward works its input out again and begins with its gradient. Operands: forward x, weight,
/// bias, y, mean, inverse; backward dy, x, weight, mean, inverse, dx, dweight, dbias, [bias, with relu].
struct NormGraph {
  enum class Kind : std::uint8_t { batch, layer } kind = Kind::batch;
  bool backward = false;
  DType dtype = DType::f32;
  std::array<std::int64_t, 4> shape{};  // N, C, H, W; layer: rows, features, 1, 1
  double epsilon = 1e-5;                // forward
  bool relu = false;
  bool nondeterministic = false;

  std::string key() const;
};

/// Nothing where no graph computes the op.
std::optional<NormGraph> norm_graph(const BatchNorm&, const TensorDesc& in, bool backward);
NormGraph norm_graph(const LayerNorm&, const TensorDesc& in, bool backward);

/// Pooling forward (cudnn-frontend's graphs have no node for its gradient). Operands: x, y, and of a largest element
/// also a byte an output that says which of its window it was, row by row.
struct PoolGraph {
  enum class Kind : std::uint8_t { largest, average, average_of_all } kind = Kind::largest;  // the last counts padding
  DType dtype = DType::f32;
  std::vector<std::int64_t> in, out;                  // N, C, [D,] H, W
  Extents window{1, 1}, stride{1, 1}, padding{0, 0};  // of two or three dimensions

  std::string key() const;
};

/// In training. Nothing where the window has more elements than a signed byte counts.
std::optional<PoolGraph> pool_graph(const MaxPool&, const TensorDesc& in);
PoolGraph pool_graph(const AveragePool&, const TensorDesc& in);
PoolGraph pool_graph(const GlobalAveragePool&, const TensorDesc& in);

/// Attention in halves, fused: no square of positions is kept. Queries, keys and values are heads side by side, in rows
/// of `rows` elements; y and all gradients have no gaps between rows; log sums are float [samples, heads, positions].
/// Operands: forward q, k, v, y, log sums; backward q, k, v, y, dy, log sums, dq, dk, dv.
struct AttentionGraph {
  bool backward = false;
  DType dtype = DType::bf16;
  std::int64_t samples = 1, positions = 1, heads = 1, kv_heads = 1, size = 8;
  std::array<std::int64_t, 3> rows{};  // of q, k, v: elements from a position to the next
  bool causal = true;
  std::int64_t window = 0;  // 0: none
  float scale = 1;
  bool nondeterministic = false;

  std::string key() const;
};

/// Nothing where own kernels have to: in float32; with documents, whose number and places are data; with dropout in
/// training, as cuDNN draws by the place in the batch. Rotary positions are not part of it: what turns writes q and k.
std::optional<AttentionGraph> attention_graph(const Attention&, std::span<const TensorDesc> in, bool backward,
                                              bool trained);

using CudnnGraph = std::variant<ConvolutionGraph, NormGraph, PoolGraph, AttentionGraph>;
std::string key_of(const CudnnGraph&);
/// All that an op on `in` may run, forward and backward, whole.
std::vector<CudnnGraph> graphs_of(const OpSpec&, std::span<const TensorDesc> in, bool tf32);
/// Addresses in the order that the graph's struct says; those behind its last one are not looked at.
using GraphOperands = std::array<void*, 10>;

/// An engine built for a graph.
class GraphPlan {
 public:
  virtual ~GraphPlan() = default;
  virtual std::size_t workspace() const noexcept = 0;
  /// Enqueues. What the library wants to know of a set of addresses is made when they are seen first and kept: no
  /// allocation of ours in a step after warm-up (attention is run by cudnn-frontend, which allocates on the host).
  /// Throws DeviceError. `stream`: a cudaStream_t.
  virtual void run(const GraphOperands&, void* workspace, void* stream) = 0;
};

class CudnnGraphs {
 public:
  virtual ~CudnnGraphs() = default;
  /// Names of the engines, with their settings, that support the graph; the library's favourite first. Empty: none.
  virtual std::vector<std::string> engines(const CudnnGraph&) = 0;
  /// Builds for the GPU that is here; null where the engine turns out not to support it after all.
  virtual std::unique_ptr<GraphPlan> plan(const CudnnGraph&, const std::string& engine) = 0;
};

/// Of the current CUDA device. Throws DeviceError.
std::unique_ptr<CudnnGraphs> make_cudnn_graphs();
/// "91900"
std::string cudnn_version();
/// Of a described GPU: engines() alone. Throws DeviceError where this cuDNN cannot (before 9.8).
std::unique_ptr<CudnnGraphs> describe_cudnn_graphs(const GpuDescription&);

}  // namespace dtrain::cuda
