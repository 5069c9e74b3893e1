// Transposed convolutions through cuDNN, as passes of the mirrored convolution: its data gradient is forward, its
// forward the data gradient. Weights are packed as conv_ops.cpp packs them; own passes add the bias and activate.
#include <algorithm>

#include "runtime/cuda/library/tuner.hpp"
#include "runtime/cuda/ops/graph_ops.hpp"
#include "runtime/cuda/ops/layer_kernels.hpp"
#include "runtime/cuda/ops/layer_support.hpp"

namespace dtrain::cuda {

namespace {

constexpr const char* op_name = "conv_transpose";

class ConvTransposeKernel final : public Kernel {
 public:
  ConvTransposeKernel(CudaContext& context, const ConvTranspose& op, const TensorDesc& in, const OpUse& use)
      : op_(op),
        dtype_(in.dtype),
        element_(element_of(in)),
        rows_(op.infer({&in, 1}).out[0].rows()),
        elements_in_(in.elements()),
        weight_{in.channels(), op.filters / op.groups, op.kernel.product()},
        in_place_(dtype_ == DType::f32 && (weight_.rows == 1 || weight_.columns == 1)),
        part_{0, 0, dtype_, weight_.rows, weight_.columns} {
    const auto plan = [&](ConvolutionPass pass) {
      ConvolutionGraph graph = convolution_graph(op, in, pass);
      graph.tf32 = context.options.tf32;
      graph.nondeterministic = context.options.nondeterministic;
      return quickest_graph(context, graph);
    };
    forward_ = plan(ConvolutionPass::forward);
    if (use.input_gradient) data_ = plan(ConvolutionPass::data_gradient);
    if (use.trained && use.params_gradient) weights_ = plan(ConvolutionPass::weight_gradient);
    cudnn_ = context.cudnn;
    place(use);
  }

  Needs needs() const override { return {workspace_, in_place_ ? 0 : bytes_of(weight_elements(), dtype_)}; }

  void pack(std::span<const Tensor> master, Tensor packed, Stream& stream) override {
    if (!in_place_)
      swap_inner(at(stream, op_name), Element::f32, element_, weight_, master[0].data, {packed.data, Put::overwrite});
  }

  std::span<const PackedPart> packed_parts() const override { return {&part_, in_place_ ? 0u : 1u}; }

  void forward(const OpArgs& a, Stream& stream) override {
    forward_->run({a.in[0].data, weights(a), a.out[0].data}, workspace_of(a), stream.native());
    if (op_.bias || op_.activation != Activation::none)
      bias_activate(at(stream, op_name), element_, op_.activation, rows_, op_.filters,
                    op_.bias ? a.params[1].as<float>() : nullptr, a.out[0].data);
  }

  void backward_activation(const OpArgs& a, Tensor grad_out, Stream& stream) override {
    activation_gradient(at(stream, op_name), element_, op_.activation, a.out[0].data, grad_out.data,
                        {grad_out.data, Put::overwrite}, grad_out.elements());
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    const Launch where = at(stream, op_name);
    auto* workspace = workspace_of(a);
    void* gy = g.out[0].data;
    if (wanted(g.in, 0)) {
      const bool add = g.in[0].write == Write::accumulate;
      if (!data_ || (add && !adds_)) throw BugError("conv_transpose: a gradient that was not to be expected");
      void* to = add ? workspace + grad_in_at_ : g.in[0].grad.data;
      data_->run({gy, weights(a), to}, workspace, stream.native());
      if (add) cast(where, element_, element_, to, slot_of(g.in[0]), elements_in_);
    }
    if (wanted(g.params, 0)) {
      const bool direct = in_place_ && g.params[0].write == Write::overwrite;
      void* to = direct ? g.params[0].grad.data : workspace + grad_weights_at_;
      weights_->run({a.in[0].data, gy, to}, workspace, stream.native());
      if (!direct)
        swap_inner(where, element_, Element::f32, {weight_.outer, weight_.columns, weight_.rows}, to,
                   slot_of(g.params[0]));
    }
    if (op_.bias && wanted(g.params, 1))
      column_sums(where, element_, rows_, op_.filters, gy, slot_of(g.params[1]), workspace + sums_at_);
  }

 private:
  std::int64_t weight_elements() const { return weight_.outer * weight_.rows * weight_.columns; }
  void* weights(const OpArgs& a) const { return in_place_ ? a.params[0].data : a.packed.data; }

  /// Backward's workspace: the library's, then the gradient of the input that is to be added; or, in another call, the
  /// gradient of the weights as the library writes it and sums for that of the bias.
  void place(const OpUse& use) {
    Offsets data, params;
    if (data_) data.place(data_->workspace());
    adds_ = use.input_gradient_added;
    if (adds_) grad_in_at_ = data.place(bytes_of(elements_in_, dtype_));
    if (weights_) {
      params.place(weights_->workspace());
      grad_weights_at_ = params.place(bytes_of(weight_elements(), dtype_));
      if (op_.bias) sums_at_ = params.place(column_sums_bytes(rows_, op_.filters));
    }
    workspace_ = workspace_need(std::max({forward_->workspace(), data.end(), params.end()}));
  }

  ConvTranspose op_;
  DType dtype_;
  Element element_;
  std::int64_t rows_, elements_in_;                      // rows of the output
  Swap weight_;                                          // [channels in, filters of a group, pixels]
  bool in_place_;                                        // canonical weights lie as the library wants them
  PackedPart part_;                                      // otherwise
  std::shared_ptr<CudnnGraphs> cudnn_;                   // outlives the plans
  std::shared_ptr<GraphPlan> forward_, data_, weights_;  // gradients': null where nobody wants them
  bool adds_ = false;  // there is room for a gradient of the input that is to be added
  std::size_t workspace_ = 0, grad_in_at_ = 0, grad_weights_at_ = 0, sums_at_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext& context, const ConvTranspose& op, Inputs in, const OpUse& use) {
  return std::make_unique<ConvTransposeKernel>(context, op, in[0], use);
}

}  // namespace dtrain::cuda
