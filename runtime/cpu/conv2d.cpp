// Convolutions through oneDNN: NHWC activations, weights in the library's blocked formats (repacked once an update),
// gradients of weights brought back into canonical order.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "runtime/cpu/onednn.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/parallel.hpp"
#include "runtime/error.hpp"

namespace dtrain::cpu {

namespace {

std::size_t aligned(std::size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

class Conv2dKernel final : public Kernel {
 public:
  Conv2dKernel(const Conv2d& op, const TensorDesc& in, int threads)
      : op_(op), threads_(threads), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    const OmpThreads scope(threads_);
    const OpShape shape = infer(op, {&in, 1});
    dtype_ = in.dtype;
    const auto dims = [](const Shape& s) {
      const auto extents = s.extents();
      return dnnl::memory::dims(extents.begin(), extents.end());
    };
    const Shape& out = shape.out[0].shape;
    ConvolutionShape c{dims(in.shape),
                       dims(shape.params[0].desc.shape),
                       dims(out),
                       {op.stride[0], op.stride[1]},
                       {op.padding[0], op.padding[1]},
                       {},
                       {op.dilation[0] - 1, op.dilation[1] - 1},
                       op.bias,
                       op.activation,
                       dtype_};
    auto canonical_format = dnnl::memory::format_tag::oihw;
    if (op.groups > 1) {  // [groups, filters / groups, channels / groups, h, w]: the same bytes
      c.weights[0] /= op.groups;
      c.weights.insert(c.weights.begin(), op.groups);
      canonical_format = dnnl::memory::format_tag::goihw;
    }
    for (int d = 0; d < 2; ++d) {  // what of the padding the last window reaches
      const auto i = static_cast<std::size_t>(d);
      c.padding_end.push_back((out[2 + d] - 1) * op.stride[i] + (op.kernel[i] - 1) * op.dilation[i] + 1 -
                              in.shape[2 + d] - op.padding[i]);
    }
    elements_in_ = in.elements();
    const ConvolutionPlans plans = plan_convolution(engine_, c);
    const dnnl::memory::desc canonical = plain_desc(c.weights, canonical_format);
    prepare_weights(plans, canonical);
    prepare_executions(plans, canonical);
  }

  Needs needs() const override {
    return {grad_in_at_ + aligned(static_cast<std::size_t>(elements_in_) * size_of(dtype_)), packed_bytes_};
  }

  void pack(std::span<const Tensor> master, Tensor packed, Stream&) override {
    const OmpThreads scope(threads_);
    auto* base = packed.as<std::byte>();
    // Their scratch lies behind the copies.
    pack_forward_.run(stream_, master[0].data, base, base + pack_scratch_at_);
    if (data_at_ != 0) pack_data_.run(stream_, master[0].data, base + data_at_, base + pack_scratch_at_);
  }

  void forward(const OpArgs& a, Stream&) override {
    const OmpThreads scope(threads_);
    const void* weights = a.packed.data;
    void* scratch = a.workspace.data;
    if (op_.bias) {
      forward_.run(stream_, {a.in[0].data, weights, a.out[0].data, scratch, a.params[1].data});
    } else {
      forward_.run(stream_, {a.in[0].data, weights, a.out[0].data, scratch});
    }
  }

  void backward_activation(const OpArgs& a, Tensor grad_out, Stream&) override {
    epilogue_gradient(op_.activation, a.out[0], grad_out, threads_);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    const OmpThreads scope(threads_);
    if (!g.in.empty() && g.in[0].write != Write::none) data_gradient(a, g.out[0].data, g.in[0]);
    const bool bias = g.params.size() > 1 && g.params[1].write != Write::none;
    if (bias || (!g.params.empty() && g.params[0].write != Write::none)) parameter_gradients(a, g);
  }

 private:
  static std::size_t bytes(std::int64_t floats) { return static_cast<std::size_t>(floats) * sizeof(float); }

  /// The packed copies: forward weights at 0, those of the data gradient behind them where their format differs.
  void prepare_weights(const ConvolutionPlans& plans, const dnnl::memory::desc& canonical) {
    const dnnl::memory::desc forward = plans.forward.weights_desc(), data = plans.backward_data.weights_desc();
    pack_forward_ = Reorder(engine_, canonical, forward, false);
    packed_bytes_ = aligned(forward.get_size());
    if (data != forward) {
      pack_data_ = Reorder(engine_, canonical, data, false);
      data_at_ = packed_bytes_;
      packed_bytes_ += aligned(data.get_size());
    }
    pack_scratch_at_ = packed_bytes_;
    packed_bytes_ += aligned(std::max(pack_forward_.scratchpad(), pack_data_.scratchpad()));
  }

  /// The workspace: scratch, gradient of the weights as the library writes it, gradients that are to be added.
  void prepare_executions(const ConvolutionPlans& plans, const dnnl::memory::desc& canonical) {
    const auto scratch_of = [](const auto& plan) { return plan.scratchpad_desc().get_size(); };
    if (op_.bias) {
      forward_ = Execution(engine_, dnnl::convolution_forward(plans.forward),
                           {{DNNL_ARG_SRC, plans.forward.src_desc()},
                            {DNNL_ARG_WEIGHTS, plans.forward.weights_desc()},
                            {DNNL_ARG_DST, plans.forward.dst_desc()},
                            {DNNL_ARG_SCRATCHPAD, plans.forward.scratchpad_desc()},
                            {DNNL_ARG_BIAS, plans.forward.bias_desc()}});
    } else {
      forward_ = Execution(engine_, dnnl::convolution_forward(plans.forward),
                           {{DNNL_ARG_SRC, plans.forward.src_desc()},
                            {DNNL_ARG_WEIGHTS, plans.forward.weights_desc()},
                            {DNNL_ARG_DST, plans.forward.dst_desc()},
                            {DNNL_ARG_SCRATCHPAD, plans.forward.scratchpad_desc()}});
    }
    const auto& data = plans.backward_data;
    backward_data_ = Execution(engine_, dnnl::convolution_backward_data(data),
                               {{DNNL_ARG_DIFF_SRC, data.diff_src_desc()},
                                {DNNL_ARG_WEIGHTS, data.weights_desc()},
                                {DNNL_ARG_DIFF_DST, data.diff_dst_desc()},
                                {DNNL_ARG_SCRATCHPAD, data.scratchpad_desc()}});
    const auto& weights = plans.backward_weights;
    if (op_.bias) {
      backward_weights_ = Execution(engine_, dnnl::convolution_backward_weights(weights),
                                    {{DNNL_ARG_SRC, weights.src_desc()},
                                     {DNNL_ARG_DIFF_DST, weights.diff_dst_desc()},
                                     {DNNL_ARG_DIFF_WEIGHTS, weights.diff_weights_desc()},
                                     {DNNL_ARG_SCRATCHPAD, weights.scratchpad_desc()},
                                     {DNNL_ARG_DIFF_BIAS, weights.diff_bias_desc()}});
    } else {
      backward_weights_ = Execution(engine_, dnnl::convolution_backward_weights(weights),
                                    {{DNNL_ARG_SRC, weights.src_desc()},
                                     {DNNL_ARG_DIFF_DST, weights.diff_dst_desc()},
                                     {DNNL_ARG_DIFF_WEIGHTS, weights.diff_weights_desc()},
                                     {DNNL_ARG_SCRATCHPAD, weights.scratchpad_desc()}});
    }
    unpack_ = Reorder(engine_, weights.diff_weights_desc(), canonical, false);
    unpack_add_ = Reorder(engine_, weights.diff_weights_desc(), canonical, true);
    const std::size_t scratch = std::max({scratch_of(plans.forward), scratch_of(data), scratch_of(weights),
                                          unpack_.scratchpad(), unpack_add_.scratchpad()});
    grad_weights_at_ = aligned(scratch);
    grad_bias_at_ = grad_weights_at_ + aligned(weights.diff_weights_desc().get_size());
    grad_in_at_ = grad_bias_at_ + aligned(bytes(op_.filters));
  }

  void data_gradient(const OpArgs& a, const void* gy, const GradSlot& slot) {
    auto* workspace = a.workspace.as<std::byte>();
    const bool add = slot.write == Write::accumulate;
    void* to = add ? workspace + grad_in_at_ : slot.grad.data;
    backward_data_.run(stream_, {to, a.packed.as<std::byte>() + data_at_, gy, workspace});
    if (add) add_into(dtype_, slot.grad.data, to, elements_in_, threads_);
  }

  void parameter_gradients(const OpArgs& a, const OpGrads& g) {
    auto* workspace = a.workspace.as<std::byte>();
    void* grad_weights = workspace + grad_weights_at_;
    if (op_.bias) {
      const GradSlot& slot = g.params[1];
      void* grad_bias = slot.write == Write::overwrite ? slot.grad.data : workspace + grad_bias_at_;
      backward_weights_.run(stream_, {a.in[0].data, g.out[0].data, grad_weights, workspace, grad_bias});
      if (slot.write == Write::accumulate) add_into(DType::f32, slot.grad.data, grad_bias, op_.filters, threads_);
    } else {
      backward_weights_.run(stream_, {a.in[0].data, g.out[0].data, grad_weights, workspace});
    }
    const GradSlot& slot = g.params[0];
    if (slot.write == Write::overwrite) unpack_.run(stream_, grad_weights, slot.grad.data, workspace);
    if (slot.write == Write::accumulate) unpack_add_.run(stream_, grad_weights, slot.grad.data, workspace);
  }

  Conv2d op_;
  int threads_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  Execution forward_, backward_data_, backward_weights_;
  Reorder pack_forward_, pack_data_, unpack_, unpack_add_;
  DType dtype_ = DType::f32;
  std::int64_t elements_in_ = 0;
  std::size_t packed_bytes_ = 0, data_at_ = 0, pack_scratch_at_ = 0;
  std::size_t grad_weights_at_ = 0, grad_bias_at_ = 0, grad_in_at_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> make_conv2d(const Conv2d& op, std::span<const TensorDesc> in, int threads) {
  try {
    return std::make_unique<Conv2dKernel>(op, in[0], threads);
  } catch (const dnnl::error& e) {
    throw DeviceError(fmt::format("oneDNN cannot run a convolution of {} filters {} x {} on {}: {}", op.filters,
                                  op.kernel[0], op.kernel[1], in[0].shape.str(), e.what()));
  }
}

}  // namespace dtrain::cpu
