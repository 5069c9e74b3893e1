// What the kernels of batch normalization share on the host's side, of a micro batch or with moments of all ranks.
// A base that owns nothing but sizes.
#pragma once

#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/normalization.hpp"

namespace dtrain::cuda {

class NormalizationKernel : public Kernel {
 protected:
  NormalizationKernel(const char* name, const BatchNorm& op, const TensorDesc& in)
      : name_(name), type_(element_of(in)), place_{matrix_of(in), op.activation, op.epsilon} {}

  /// Partial sums, then both sums of each channel.
  std::size_t own_workspace() const { return sums_at() + bytes_of(2 * place_.shape.channels, DType::f32); }

  /// Whether the pass keeps statistics.
  static bool keeps(const OpArgs& a) { return a.pass.mode == Mode::train && !a.pass.recompute; }
  /// Where it keeps them.
  static Statistics statistics_of(const OpArgs& a) {
    return {a.saved[0].as<float>(), a.saved[1].as<float>(), a.state_sums[0].as<float>(), a.state_sums[1].as<float>(),
            a.pass.first};
  }
  /// By the statistics that were kept, or by the running ones.
  void normalize_output(const Launch& where, const OpArgs& a) const {
    const bool train = a.pass.mode == Mode::train;
    const std::span<const Tensor> from = train ? a.saved : a.state;
    normalize(where, type_, place_, a.in[0].data, from[0].as<const float>(), from[1].as<const float>(), !train,
              a.params[0].as<const float>(), a.params[1].as<const float>(), a.out[0].data);
  }
  NormalizeBackward backward_of(const OpArgs& a, const OpGrads& g) const {
    return {a.in[0].data,
            a.out[0].data,
            g.out[0].data,
            a.saved[0].as<const float>(),
            a.saved[1].as<const float>(),
            a.params[0].as<const float>(),
            a.params[1].as<const float>(),
            sums(a.workspace.data)};
  }
  float* sums(void* workspace) const {
    return reinterpret_cast<float*>(static_cast<std::byte*>(workspace) + sums_at());
  }

  const char* name_;
  Element type_;
  BatchNormPlace place_;

 private:
  std::size_t sums_at() const { return (sums_bytes(place_.shape) + 15) / 16 * 16; }
};

}  // namespace dtrain::cuda
