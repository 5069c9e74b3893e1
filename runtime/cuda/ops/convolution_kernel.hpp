// What convolutions and transposed ones through cuDNN share: NHWC activations, a packed copy of the weights as KRSC in
// the compute dtype, and gradients of weights brought back into canonical order. A ConvolutionKernel owns its plans; a
// derived class chooses the one of forward.
#pragma once

#include <algorithm>
#include <memory>
#include <string>

#include "runtime/cuda/library/tuner.hpp"
#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/activate.hpp"
#include "runtime/cuda/ops/cast.hpp"
#include "runtime/cuda/ops/graph_ops.hpp"
#include "runtime/cuda/ops/layer_kernels.hpp"

namespace dtrain::cuda {

class ConvolutionKernel : public Kernel {
 public:
  Needs needs() const override { return {workspace_, in_place_ ? 0 : bytes_of(weight_elements(), dtype_)}; }

  void pack(std::span<const Tensor> master, Tensor packed, Stream& stream) override {
    if (!in_place_)
      swap_inner(at(stream, name_), Element::f32, element_, weight_, master[0].data, {packed.data, Put::overwrite});
  }

  std::span<const PackedPart> packed_parts() const override { return {&part_, in_place_ ? 0u : 1u}; }

  void forward(const OpArgs& a, Stream& stream) override {
    run_forward(*forward_, finishes_, {a.in[0].data, weights(a), a.out[0].data},
                bias_ ? a.params[1].as<float>() : nullptr, workspace_of(a), stream.native());
  }

  void backward_activation(const OpArgs& a, Tensor grad_out, Stream& stream) override {
    activation_gradient(at(stream, name_), element_, activation_, a.out[0].data, grad_out.data,
                        {grad_out.data, Put::overwrite}, grad_out.elements());
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    const Launch where = at(stream, name_);
    auto* workspace = workspace_of(a);
    void *x = a.in[0].data, *gy = g.out[0].data;
    if (wanted(g.in, 0)) {
      const bool add = g.in[0].write == Write::accumulate;
      if (!data_ || (add && !adds_)) throw BugError(std::string(name_) + ": a gradient that was not to be expected");
      void* to = add ? workspace + grad_in_at_ : g.in[0].grad.data;
      data_->run({gy, weights(a), to}, workspace, stream.native());
      if (add) cast(where, element_, element_, to, slot_of(g.in[0]), elements_in_);
    }
    if (wanted(g.params, 0)) {
      const bool direct = in_place_ && g.params[0].write == Write::overwrite;
      void* to = direct ? g.params[0].grad.data : workspace + grad_weights_at_;
      weights_->run({mirrored_ ? x : gy, mirrored_ ? gy : x, to}, workspace, stream.native());
      if (!direct)
        swap_inner(where, element_, Element::f32, {weight_.outer, weight_.columns, weight_.rows}, to,
                   slot_of(g.params[0]));
    }
    if (bias_ && wanted(g.params, 1))
      column_sums(where, element_, rows_, filters_, gy, slot_of(g.params[1]), workspace + sums_at_);
  }

 protected:
  /// `weight`: canonical, [outer, channels of a group, pixels]. `mirrored`: its graphs are passes of the mirrored
  /// convolution.
  template <class Op>
  ConvolutionKernel(CudaContext& context, const char* name, const Op& op, const TensorDesc& in, const Swap& weight,
                    bool mirrored)
      : dtype_(in.dtype),
        element_(element_of(in)),
        rows_(op.infer({&in, 1}).out[0].rows()),
        filters_(op.filters),
        elements_in_(in.elements()),
        bias_(op.bias),
        activation_(op.activation),
        name_(name),
        mirrored_(mirrored),
        weight_(weight),
        in_place_(dtype_ == DType::f32 && (weight.rows == 1 || weight.columns == 1)),
        part_{0, 0, dtype_, weight.rows, weight.columns} {
    if (!context.cudnn) context.cudnn = make_cudnn_graphs();
    cudnn_ = context.cudnn;
  }

  std::int64_t weight_elements() const { return weight_.outer * weight_.rows * weight_.columns; }

  template <class Op>
  static ConvolutionGraph graph(const CudaContext& context, const Op& op, const TensorDesc& in, ConvolutionPass pass) {
    ConvolutionGraph g = convolution_graph(op, in, pass);
    g.tf32 = context.options.tf32;
    g.nondeterministic = context.options.nondeterministic;
    return g;
  }

  /// The convolution and, where its graph is bare, what follows it.
  void run_forward(GraphPlan& plan, bool finishes, const std::array<void*, 3>& x_weights_y, float* bias,
                   void* workspace, void* stream) const {
    const auto& [x, w, y] = x_weights_y;
    if (finishes || !bias_) {
      plan.run({x, w, y}, workspace, stream);
    } else {
      plan.run({x, w, bias, y}, workspace, stream);
    }
    if (finishes) bias_activate({stream, name_}, element_, activation_, rows_, filters_, bias, y);
  }

  /// Once forward is chosen. Backward's workspace: the library's, then the gradient of the input that is to be added;
  /// or, in another call, the gradient of the weights as the library writes it and sums for that of the bias.
  template <class Op>
  void prepare_backward(CudaContext& context, const Op& op, const TensorDesc& in, const OpUse& use) {
    Offsets data, params;
    if (use.input_gradient) {
      data_ = quickest_graph(context, graph(context, op, in, ConvolutionPass::data_gradient));
      data.place(data_->workspace());
    }
    adds_ = use.input_gradient_added;
    if (adds_) grad_in_at_ = data.place(bytes_of(elements_in_, dtype_));
    if (use.trained && use.params_gradient) {
      weights_ = quickest_graph(context, graph(context, op, in, ConvolutionPass::weight_gradient));
      params.place(weights_->workspace());
      grad_weights_at_ = params.place(bytes_of(weight_elements(), dtype_));
      if (bias_) sums_at_ = params.place(column_sums_bytes(rows_, filters_));
    }
    workspace_ = workspace_need(std::max({forward_->workspace(), data.end(), params.end()}));
  }

  DType dtype_;
  Element element_;
  std::int64_t rows_, filters_, elements_in_;  // rows of the output
  bool bias_;
  Activation activation_;
  std::shared_ptr<CudnnGraphs> cudnn_;  // outlives the plans
  std::shared_ptr<GraphPlan> forward_;
  bool finishes_ = false;  // an own pass applies bias and activation

 private:
  void* weights(const OpArgs& a) const { return in_place_ ? a.params[0].data : a.packed.data; }

  const char* name_;
  bool mirrored_;
  Swap weight_;
  bool in_place_;                              // canonical weights lie as the library wants them
  PackedPart part_;                            // otherwise
  std::shared_ptr<GraphPlan> data_, weights_;  // gradients': null where nobody wants them
  bool adds_ = false;                          // there is room for a gradient of the input that is to be added
  std::size_t workspace_ = 0, grad_in_at_ = 0, grad_weights_at_ = 0, sums_at_ = 0;
};

}  // namespace dtrain::cuda
