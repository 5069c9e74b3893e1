// Convolutions as cuDNN graphs behind plain structs: what a graph computes, which engines a GPU has for it, and a plan
// that runs one. A CudnnGraphs owns the library's handle (one a device, used on the thread that prepares and runs); a
// plan owns what was built and runs on the stream it is given.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/cuda/graph_check.hpp"
#include "runtime/op.hpp"

namespace dtrain::cuda {

enum class ConvolutionPass : std::uint8_t { forward, data_gradient, weight_gradient };

/// One convolution in one direction. Activations are NHWC, weights KRSC (filter, kernel row, kernel column, channel of
/// the group), all of `dtype`, and so is what is written: y, or the gradient of x or of the weights (cuDNN has none in
/// float from halves). Sums are float.
struct ConvolutionGraph {
  ConvolutionPass pass = ConvolutionPass::forward;
  DType dtype = DType::f32;
  std::array<std::int64_t, 4> in{}, out{};  // N, C, H, W
  std::array<std::int64_t, 2> kernel{1, 1}, stride{1, 1}, padding{0, 0}, dilation{1, 1};
  std::int64_t groups = 1;
  bool bias = false;                         // forward: float [filters], added before the activation
  Activation activation = Activation::none;  // forward
  bool tf32 = false;                         // float32 may round its factors to TF32
  bool nondeterministic = false;             // engines whose bits differ between runs are welcome

  /// All of it in one line: names a graph in AlgorithmChoices.
  std::string key() const;
};

/// The graph of a Conv2d on `in` for one pass; forward with bias and activation.
ConvolutionGraph convolution_graph(const Conv2d&, const TensorDesc& in, ConvolutionPass);
/// True for a convolution that is one product of matrices, pixels by channels: cuBLASLt runs it, and no graph does.
bool is_product(const Conv2d&) noexcept;
/// The same without what follows the convolution.
ConvolutionGraph bare(ConvolutionGraph) noexcept;

/// Addresses in the order in which the graph names them: forward x, weights, [bias], y; data_gradient dy, weights, dx;
/// weight_gradient dy, x, dw.
using ConvolutionOperands = std::array<void*, 4>;

/// An engine built for a graph.
class ConvolutionPlan {
 public:
  virtual ~ConvolutionPlan() = default;
  virtual std::size_t workspace() const noexcept = 0;
  /// Enqueues. What the library wants to know of a set of addresses is made when they are seen first and kept: no
  /// allocation of ours in a step after warm-up. Throws DeviceError. `stream`: a cudaStream_t.
  virtual void run(const ConvolutionOperands&, void* workspace, void* stream) = 0;
};

class CudnnGraphs {
 public:
  virtual ~CudnnGraphs() = default;
  /// Names of the engines, with their settings, that support the graph; the library's favourite first. Empty: none.
  virtual std::vector<std::string> engines(const ConvolutionGraph&) = 0;
  /// Builds for the GPU that is here; null where the engine turns out not to support it after all.
  virtual std::unique_ptr<ConvolutionPlan> plan(const ConvolutionGraph&, const std::string& engine) = 0;
};

/// Of the current CUDA device. Throws DeviceError.
std::unique_ptr<CudnnGraphs> make_cudnn_graphs();
/// "91900"
std::string cudnn_version();
/// Of a described GPU: engines() alone. Throws DeviceError where this cuDNN cannot (before 9.8).
std::unique_ptr<CudnnGraphs> describe_cudnn_graphs(const GpuDescription&);

}  // namespace dtrain::cuda
