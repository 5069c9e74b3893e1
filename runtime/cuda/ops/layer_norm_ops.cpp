// Layer normalization by own kernels, or as cuDNN graphs.
#include "runtime/cuda/ops/layer_norm.hpp"
#include "runtime/cuda/ops/norm_graphs.hpp"

namespace dtrain::cuda {

namespace {

class LayerNormKernel final : public Kernel {
 public:
  LayerNormKernel(CudaContext& context, const LayerNorm& op, const TensorDesc& in, const OpUse& use)
      : type_(element_of(in)), shape_(matrix_of(in)), epsilon_(static_cast<float>(op.epsilon)) {
    const auto forward = [this](const GraphOperands& o, std::byte*, void* stream) {
      layer_norm({stream, name}, type_, shape_, epsilon_, o[0], floats(o[1]), floats(o[2]), o[3], floats(o[4]),
                 floats(o[5]));
    };
    const auto backward = [this](const GraphOperands& o, std::byte* workspace, void* stream) {
      own_backward({stream, name}, o, {o[5], Put::overwrite}, {o[6], Put::overwrite}, {o[7], Put::overwrite},
                   workspace);
    };
    graphs_.prepare_forward(context, norm_graph(op, in, false), in, shape_.rows, use, {0, forward, {}, true});
    graphs_.prepare_backward(context, norm_graph(op, in, true), in, shape_.rows, use, {sums_bytes(shape_), backward});
  }

  Needs needs() const override { return graphs_.needs(sums_bytes(shape_)); }

  void forward(const OpArgs& a, Stream& stream) override {
    const bool train = a.pass.mode == Mode::train, keep = train && !a.pass.recompute;
    void *mean = train ? a.saved[0].data : nullptr, *inverse = train ? a.saved[1].data : nullptr;
    if (graphs_.forward({a.in[0].data, a.params[0].data, a.params[1].data, a.out[0].data, mean, inverse}, a, stream))
      return;
    layer_norm(at(stream, name), type_, shape_, epsilon_, a.in[0].data, a.params[0].as<const float>(),
               a.params[1].as<const float>(), a.out[0].data, keep ? floats(mean) : nullptr,
               keep ? floats(inverse) : nullptr);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    const Launch where = at(stream, name);
    const GraphOperands operands{g.out[0].data, a.in[0].data, a.params[0].data, a.saved[0].data, a.saved[1].data};
    if (graphs_.backward(operands, a, g, where, type_)) return;
    own_backward(where, operands, g.in.empty() ? Slot{} : slot_of(g.in[0]), slot_of(g.params[0]), slot_of(g.params[1]),
                 a.workspace.data);
  }

 private:
  static constexpr const char* name = "layer_norm";

  void own_backward(const Launch& where, const GraphOperands& o, Slot input, Slot weight, Slot bias,
                    void* workspace) const {
    if (weight.put != Put::none || bias.put != Put::none)
      layer_norm_params_gradient(where, type_, shape_, o[1], o[0], floats(o[3]), floats(o[4]), weight, bias, workspace);
    if (input.put != Put::none)
      layer_norm_gradient(where, type_, shape_, o[1], o[0], floats(o[2]), floats(o[3]), floats(o[4]), input);
  }

  Element type_;
  Matrix shape_;
  float epsilon_;
  NormGraphs graphs_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext& context, const LayerNorm& op, Inputs in, const OpUse& use) {
  return std::make_unique<LayerNormKernel>(context, op, in[0], use);
}

}  // namespace dtrain::cuda
