// Layer normalization, and batch normalization of a micro batch or with moments that were summed over ranks.
#include <algorithm>

#include "runtime/cuda/op_support.hpp"

namespace dtrain::cuda {

namespace {

bool any_wanted(std::span<const GradSlot> slots) {
  return std::any_of(slots.begin(), slots.end(), [](const GradSlot& slot) { return wanted(slot); });
}

class LayerNormKernel final : public Kernel {
 public:
  LayerNormKernel(const LayerNorm& op, const TensorDesc& in)
      : type_(element_of(in)), shape_(matrix_of(in)), epsilon_(static_cast<float>(op.epsilon)) {}
  Needs needs() const override { return {sums_bytes(shape_), 0}; }
  void forward(const OpArgs& a, Stream& stream) override {
    const bool keep = a.pass.mode == Mode::train && !a.pass.recompute;
    layer_norm(at(stream, "layer_norm"), type_, shape_, epsilon_, a.in[0].data, a.params[0].as<const float>(),
               a.params[1].as<const float>(), a.out[0].data, keep ? a.saved[0].as<float>() : nullptr,
               keep ? a.saved[1].as<float>() : nullptr);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    const Launch where = at(stream, "layer_norm");
    const auto *mean = a.saved[0].as<const float>(), *inverse = a.saved[1].as<const float>();
    if (any_wanted(g.params)) {
      layer_norm_params_gradient(where, type_, shape_, a.in[0].data, g.out[0].data, mean, inverse, slot_of(g.params[0]),
                                 slot_of(g.params[1]), a.workspace.data);
    }
    if (any_wanted(g.in)) {
      layer_norm_gradient(where, type_, shape_, a.in[0].data, g.out[0].data, a.params[0].as<const float>(), mean,
                          inverse, slot_of(g.in[0]));
    }
  }

 private:
  Element type_;
  Matrix shape_;
  float epsilon_;
};

class BatchNormKernel final : public Kernel {
 public:
  template <class Op>
  BatchNormKernel(const Op& op, const TensorDesc& in, bool over_ranks)
      : type_(element_of(in)), place_{matrix_of(in), op.activation, op.epsilon}, over_ranks_(over_ranks) {}
  Needs needs() const override { return {sums_at() + 2 * sizeof(float) * channels(), 0}; }

  void forward(const OpArgs& a, Stream& stream) override {
    const Launch where = at(stream, name());
    const bool train = a.pass.mode == Mode::train;
    if (train && !a.pass.recompute) {
      const Statistics statistics{a.saved[0].as<float>(), a.saved[1].as<float>(), a.state_sums[0].as<float>(),
                                  a.state_sums[1].as<float>(), a.pass.first};
      if (over_ranks_) {
        statistics_of_moments(where, place_, a.in[1].as<const double>(), statistics);
      } else {
        batch_statistics(where, type_, place_, a.in[0].data, statistics, a.workspace.data);
      }
    }
    const std::span<const Tensor> from = train ? a.saved : a.state;
    normalize(where, type_, place_, a.in[0].data, from[0].as<const float>(), from[1].as<const float>(), !train,
              a.params[0].as<const float>(), a.params[1].as<const float>(), a.out[0].data);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    const Launch where = at(stream, name());
    const NormalizeBackward b{a.in[0].data,
                              a.out[0].data,
                              g.out[0].data,
                              a.saved[0].as<const float>(),
                              a.saved[1].as<const float>(),
                              a.params[0].as<const float>(),
                              a.params[1].as<const float>(),
                              reinterpret_cast<float*>(a.workspace.as<std::byte>() + sums_at())};
    normalize_params_gradient(where, type_, place_, b, slot_of(g.params[0]), slot_of(g.params[1]), a.workspace.data);
    if (g.in.size() > 1 && wanted(g.in[1]))
      moments_gradient(where, place_.shape, b, a.in[1].as<const double>(), slot_of(g.in[1]));
    if (!g.in.empty() && wanted(g.in[0])) normalize_gradient(where, type_, place_, b, over_ranks_, slot_of(g.in[0]));
  }

 private:
  std::size_t channels() const { return static_cast<std::size_t>(place_.shape.channels); }
  /// Of the workspace: partial sums, then both sums.
  std::size_t sums_at() const { return (sums_bytes(place_.shape) + 15) / 16 * 16; }
  const char* name() const { return over_ranks_ ? "batch_normalize" : "batch_norm"; }
  Element type_;
  BatchNormPlace place_;
  bool over_ranks_;
};

class BatchMomentsKernel final : public Kernel {
 public:
  explicit BatchMomentsKernel(const TensorDesc& in) : type_(element_of(in)), shape_(matrix_of(in)) {}
  Needs needs() const override { return {sums_bytes(shape_), 0}; }
  void forward(const OpArgs& a, Stream& stream) override {
    batch_moments(at(stream, "batch_moments"), type_, shape_, a.in[0].data, a.out[0].as<double>(), a.workspace.data);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0]))
      batch_moments_gradient(at(stream, "batch_moments"), type_, shape_, a.in[0].data, g.out[0].as<const double>(),
                             slot_of(g.in[0]));
  }

 private:
  Element type_;
  Matrix shape_;
};

}  // namespace

std::unique_ptr<Kernel> make_batch_norm(const CudaContext&, const BatchNorm& op, std::span<const TensorDesc> in) {
  return std::make_unique<BatchNormKernel>(op, in[0], false);
}
std::unique_ptr<Kernel> make_batch_normalize(const CudaContext&, const BatchNormalize& op,
                                             std::span<const TensorDesc> in) {
  return std::make_unique<BatchNormKernel>(op, in[0], true);
}
std::unique_ptr<Kernel> make_batch_moments(const CudaContext&, std::span<const TensorDesc> in) {
  return std::make_unique<BatchMomentsKernel>(in[0]);
}
std::unique_ptr<Kernel> make_layer_norm(const CudaContext&, const LayerNorm& op, std::span<const TensorDesc> in) {
  return std::make_unique<LayerNormKernel>(op, in[0]);
}

}  // namespace dtrain::cuda
