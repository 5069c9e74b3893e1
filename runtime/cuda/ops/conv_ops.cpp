// Convolutions through cuDNN: NHWC activations, a packed copy of the weights as KRSC in the compute dtype, gradients of
// weights brought back into canonical order. Bias and activation are part of cuDNN's graph, or an own pass behind it,
// whichever measures quicker.
#include <algorithm>
#include <array>
#include <map>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "runtime/cuda/library/tuner.hpp"
#include "runtime/cuda/ops/graph_ops.hpp"
#include "runtime/cuda/ops/layer_kernels.hpp"
#include "runtime/cuda/ops/layer_support.hpp"

namespace dtrain::cuda {

namespace {

constexpr const char* op_name = "conv";
constexpr std::string_view fused = "fused ", plain = "plain ";

class ConvKernel final : public Kernel {
 public:
  ConvKernel(CudaContext& context, const Conv& op, const TensorDesc& in, const OpUse& use)
      : op_(op),
        dtype_(in.dtype),
        element_(element_of(in)),
        rows_(op.infer({&in, 1}).out[0].rows()),
        channels_(in.channels() / op.groups),
        pixels_(op.kernel.product()),
        elements_in_(in.elements()),
        in_place_(dtype_ == DType::f32 && (channels_ == 1 || pixels_ == 1)),
        part_{0, 0, dtype_, channels_, pixels_} {
    if (!context.cudnn) context.cudnn = make_cudnn_graphs();
    cudnn_ = context.cudnn;
    prepare_forward(context, in);
    if (use.input_gradient) data_ = quickest_graph(context, graph(context, in, ConvolutionPass::data_gradient));
    if (use.trained && use.params_gradient)
      weights_ = quickest_graph(context, graph(context, in, ConvolutionPass::weight_gradient));
    place(use);
  }

  Needs needs() const override { return {workspace_, in_place_ ? 0 : bytes_of(weight_elements(), dtype_)}; }

  void pack(std::span<const Tensor> master, Tensor packed, Stream& stream) override {
    if (in_place_) return;
    swap_inner(at(stream, op_name), Element::f32, element_, {op_.filters, channels_, pixels_}, master[0].data,
               {packed.data, Put::overwrite});
  }

  std::span<const PackedPart> packed_parts() const override { return {&part_, in_place_ ? 0u : 1u}; }

  void forward(const OpArgs& a, Stream& stream) override {
    auto* bias = op_.bias ? a.params[1].as<float>() : nullptr;
    run_forward(*forward_, finishes_, {a.in[0].data, weights(a), a.out[0].data}, bias, workspace_of(a),
                stream.native());
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
      if (!data_ || (add && !adds_)) throw BugError("conv: a gradient that was not to be expected");
      void* to = add ? workspace + grad_in_at_ : g.in[0].grad.data;
      data_->run({gy, weights(a), to}, workspace, stream.native());
      if (add) cast(where, element_, element_, to, slot_of(g.in[0]), elements_in_);
    }
    if (wanted(g.params, 0)) {
      const bool direct = in_place_ && g.params[0].write == Write::overwrite;
      void* to = direct ? g.params[0].grad.data : workspace + grad_weights_at_;
      weights_->run({gy, a.in[0].data, to}, workspace, stream.native());
      if (!direct)
        swap_inner(where, element_, Element::f32, {op_.filters, pixels_, channels_}, to, slot_of(g.params[0]));
    }
    if (op_.bias && wanted(g.params, 1))
      column_sums(where, element_, rows_, op_.filters, gy, slot_of(g.params[1]), workspace + sums_at_);
  }

 private:
  std::int64_t weight_elements() const { return op_.filters * channels_ * pixels_; }
  void* weights(const OpArgs& a) const { return in_place_ ? a.params[0].data : a.packed.data; }

  ConvolutionGraph graph(const CudaContext& context, const TensorDesc& in, ConvolutionPass pass) const {
    ConvolutionGraph g = convolution_graph(op_, in, pass);
    g.tf32 = context.options.tf32;
    g.nondeterministic = context.options.nondeterministic;
    return g;
  }

  /// The convolution and, where its graph is bare, what follows it.
  void run_forward(GraphPlan& plan, bool finishes, const std::array<void*, 3>& x_weights_y, float* bias,
                   void* workspace, void* stream) const {
    const auto& [x, w, y] = x_weights_y;
    if (finishes || !op_.bias) {
      plan.run({x, w, y}, workspace, stream);
    } else {
      plan.run({x, w, bias, y}, workspace, stream);
    }
    if (finishes) bias_activate({stream, op_name}, element_, op_.activation, rows_, op_.filters, bias, y);
  }

  void prepare_forward(CudaContext& context, const TensorDesc& in) {
    const ConvolutionGraph whole = graph(context, in, ConvolutionPass::forward), alone = bare(whole);
    const bool more = op_.bias || op_.activation != Activation::none;
    // Half of the candidates of either kind, so that both are measured.
    std::vector<std::string> names, rest;
    for (const std::string_view kind : {fused, plain}) {
      if (kind == fused && !more) continue;
      std::size_t taken = 0;
      for (const std::string& engine : cudnn_->engines(kind == fused ? whole : alone))
        (taken++ < most_candidates / 2 ? names : rest).push_back(std::string(kind) + engine);
    }
    names.insert(names.end(), rest.begin(), rest.end());
    std::map<std::string, std::shared_ptr<GraphPlan>> plans;
    const auto make = [&](const std::string& name) -> std::optional<Candidate> {
      const bool whole_graph = name.starts_with(fused);
      if (whole_graph ? !more : !name.starts_with(plain)) return std::nullopt;
      const std::shared_ptr<GraphPlan> plan =
          cudnn_->plan(whole_graph ? whole : alone, name.substr(whole_graph ? fused.size() : plain.size()));
      if (!plan) return std::nullopt;
      plans[name] = plan;
      Offsets at;
      const std::size_t x = at.place(bytes_of(elements_in_, dtype_)), w = at.place(bytes_of(weight_elements(), dtype_));
      const std::size_t y = at.place(bytes_of(rows_ * op_.filters, dtype_));
      const std::size_t bias = at.place(bytes_of(op_.filters, DType::f32)), workspace = at.place(plan->workspace());
      const bool finishes = more && !whole_graph;
      return Candidate{at.end(), [=, this](std::byte* s, void* stream) {
                         float* added = op_.bias ? reinterpret_cast<float*>(s + bias) : nullptr;
                         run_forward(*plan, finishes, {s + x, s + w, s + y}, added, s + workspace, stream);
                       }};
    };
    const std::string name = choose(context, "cudnn " + cudnn_version(), whole.key(), names, make);
    forward_ = plans.at(name);
    finishes_ = more && name.starts_with(plain);
  }

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

  Conv op_;
  DType dtype_;
  Element element_;
  std::int64_t rows_, channels_, pixels_, elements_in_;
  bool in_place_;                                        // canonical weights lie as the library wants them
  PackedPart part_;                                      // otherwise
  std::shared_ptr<CudnnGraphs> cudnn_;                   // outlives the plans
  std::shared_ptr<GraphPlan> forward_, data_, weights_;  // gradients': null where nobody wants them
  bool adds_ = false;      // there is room for a gradient of the input that is to be added
  bool finishes_ = false;  // an own pass applies bias and activation
  std::size_t workspace_ = 0, grad_in_at_ = 0, grad_weights_at_ = 0, sums_at_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext& context, const Conv& op, Inputs in, const OpUse& use) {
  if (is_product(op)) return make_product_conv(context, op, in[0], use);
  return std::make_unique<ConvKernel>(context, op, in[0], use);
}

}  // namespace dtrain::cuda
