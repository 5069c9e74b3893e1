// What the kernels use of oneDNN: convolution descriptions that hide the differences between its v2 and v3 interfaces,
// prepared executions, and sgemm. An Execution owns its primitive and memory handles, never the bytes; calls are
// synchronous.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include <oneapi/dnnl/dnnl.hpp>

#include "runtime/ops/op.hpp"

namespace dtrain::cpu {

/// oneDNN asks OpenMP how many threads the calling thread may use: this sets it for a call, and puts it back.
class OmpThreads {
 public:
  explicit OmpThreads(int threads);
  ~OmpThreads();
  OmpThreads(const OmpThreads&) = delete;
  OmpThreads& operator=(const OmpThreads&) = delete;

 private:
  int before_;
};

/// Row-major C[m, n] = op(A) op(B) + beta C; 'T' transposes. Throws DeviceError.
void sgemm(char transpose_a, char transpose_b, std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
           std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c, std::int64_t ldc);

/// A convolution, or an inner product (of two dimensions, without windows), in dnnl's terms. Activations lie channels
/// last, in `dtype`; weights take the format that the library likes best (groups first where there are several), in
/// `dtype`; bias and gradients of parameters are f32.
struct LayerShape {
  dnnl::memory::dims in, weights, out;
  bool bias = true;
  Activation activation = Activation::none;
  DType dtype = DType::f32;
  dnnl::memory::dims stride{}, padding_begin{}, padding_end{};
  dnnl::memory::dims dilation{};  // as the library counts: pixels left out
  bool spare_compiled = false;    // gradients of weights by the library's next choices: slower, products of matrices
};
struct LayerDescs {
  explicit LayerDescs(const LayerShape&);
  dnnl::memory::desc in, out, weights, grad_weights, bias;
};
template <class ForwardPass, class DataPass, class WeightsPass>
struct LayerPlans {
  using Forward = ForwardPass;
  using Data = DataPass;
  using Weights = WeightsPass;
  typename Forward::primitive_desc forward;
  typename Data::primitive_desc backward_data;
  typename Weights::primitive_desc backward_weights;
};
using ConvolutionPlans =
    LayerPlans<dnnl::convolution_forward, dnnl::convolution_backward_data, dnnl::convolution_backward_weights>;
using InnerProductPlans =
    LayerPlans<dnnl::inner_product_forward, dnnl::inner_product_backward_data, dnnl::inner_product_backward_weights>;
// The one place where oneDNN's v2 and v3 differ: onednn_v2.cpp or onednn_v3.cpp.
ConvolutionPlans plan_convolution(const dnnl::engine&, const LayerShape&);
InnerProductPlans plan_inner_product(const dnnl::engine&, const LayerShape&);
void append_eltwise(dnnl::post_ops&, dnnl::algorithm);

dnnl::memory::data_type data_type_of(DType);
/// Dense, in the format given or, row-major, in the order of the dimensions.
dnnl::memory::desc plain_desc(const dnnl::memory::dims&, dnnl::memory::format_tag, DType = DType::f32);
dnnl::memory::desc plain_desc(const dnnl::memory::dims&);
/// Goes to the first choice of the library that is no compiled loop, while its operation descriptor is still there.
void spare_compiled(dnnl::convolution_backward_weights::primitive_desc&);
/// All of ours take scratch memory from the caller.
dnnl::primitive_attr user_scratchpad();
/// With an activation whose derivative_of_output behind.
dnnl::primitive_attr forward_attributes(Activation);

/// A primitive with its memory handles and argument list, prepared once.
class Execution {
 public:
  using Argument = std::pair<int, dnnl::memory::desc>;
  Execution() = default;
  Execution(const dnnl::engine&, dnnl::primitive, const std::vector<Argument>&);

  /// Addresses in the order of the list given at construction.
  void run(const dnnl::stream&, std::initializer_list<const void*> addresses);

 private:
  dnnl::primitive primitive_;
  std::vector<dnnl::memory> memories_;
  std::vector<dnnl_exec_arg_t> arguments_;
};

/// Re-arranges `from` into `to`, overwriting it or adding to it.
class Reorder {
 public:
  Reorder() = default;
  Reorder(const dnnl::engine&, const dnnl::memory::desc& from, const dnnl::memory::desc& to, bool add);
  std::size_t scratchpad() const noexcept { return scratchpad_; }
  void run(const dnnl::stream&, const void* from, void* to, void* scratch);

 private:
  Execution execution_;
  std::size_t scratchpad_ = 0;
};

}  // namespace dtrain::cpu
