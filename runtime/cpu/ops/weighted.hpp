// WeightedOp: a convolution or an inner product of oneDNN with weights: its three primitives, the packed copies of the
// weights in the library's formats, and what lies where in a call's workspace. Also the kernel of an op that is one.
// Owns the library's handles, never the bytes; calls are synchronous, on the calling thread and its OpenMP threads.
#pragma once

#include <cstddef>
#include <memory>

#include "runtime/cpu/onednn.hpp"

namespace dtrain::cpu {

/// The next multiple of 64 bytes.
constexpr std::size_t aligned(std::size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

class WeightedOp {
 public:
  WeightedOp() = default;
  /// `from` is how pack() finds the weights, `canonical` how their gradients go out (f32); the same bytes or not.
  template <class Plans>
  WeightedOp(const dnnl::engine&, const Plans&, const dnnl::memory::desc& from, const dnnl::memory::desc& canonical,
             bool bias, DType dtype, int threads);
  /// From now on the weights outside are [units, channels, pixels], and [units, pixels, channels] inside, where a
  /// flattened image lies so: `from` is such a copy.
  void permute(std::int64_t units, std::int64_t channels, std::int64_t pixels);

  Needs needs() const noexcept { return {workspace_bytes_, packed_bytes_}; }
  void pack(const void* weights, std::byte* packed);
  void forward(const OpArgs&);
  /// Into its slot, which is not `none`.
  void data_gradient(const OpArgs&, const OpGrads&);
  /// That of the bias into its slot, that of the weights into the workspace.
  void parameter_gradients(const OpArgs&, const OpGrads&);
  /// After parameter_gradients: the weights' one in canonical order into its slot, which is not `none`.
  void take_weight_gradient(const OpArgs&, const GradSlot&);

 private:
  bool bias_ = false;
  DType dtype_ = DType::f32;
  int threads_ = 1;
  dnnl::stream stream_;
  Execution forward_, backward_data_, backward_weights_;
  Reorder pack_forward_, pack_data_, unpack_, unpack_add_;
  std::int64_t elements_in_ = 0, outputs_ = 0;
  // Packed: the forward weights at 0, those of the data gradient where their format differs, scratch of packing.
  std::size_t packed_bytes_ = 0, data_at_ = 0, pack_scratch_at_ = 0;
  // Workspace: scratch, gradients of weights as the library writes them and of the bias; in another call, the gradient
  // of the input that is to be added.
  std::size_t workspace_bytes_ = 0, grad_weights_at_ = 0, grad_bias_at_ = 0, grad_in_at_ = 0;
  // Where weights are permuted: the copy in order behind the packed ones, their gradient behind the workspace.
  std::int64_t units_ = 0, channels_ = 0, pixels_ = 0;
  std::size_t ordered_at_ = 0, grad_plain_at_ = 0;
};

/// The kernel of an op that is `run`, with an activation inside.
std::unique_ptr<Kernel> make_weighted(WeightedOp run, Activation, int threads);

/// A convolution on `in`, its weights canonical outside. Defined in conv.cpp. Throws dnnl::error.
WeightedOp weighted_convolution(const Conv&, const TensorDesc& in, int threads);

}  // namespace dtrain::cpu
