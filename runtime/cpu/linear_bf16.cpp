// Linear layers in bf16 through oneDNN's inner product: packed bf16 weights in the library's formats, f32 accumulation,
// f32 gradients of parameters.
#include <algorithm>

#include <fmt/format.h>

#include "runtime/cpu/linear_weights.hpp"
#include "runtime/cpu/onednn.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/error.hpp"

namespace dtrain::cpu {

namespace {

std::size_t aligned(std::size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

class LinearBf16Kernel final : public Kernel {
 public:
  LinearBf16Kernel(const Linear& op, const TensorDesc& in, int threads)
      : op_(op),
        n_(in.shape[0]),
        features_(in.shape[1]),
        channels_(in.origin[0]),
        pixels_(in.origin[1] * in.origin[2]),
        permuted_(in.layout == Layout::flattened_channels_last),
        threads_(threads),
        engine_(dnnl::engine::kind::cpu, 0),
        stream_(engine_) {
    const OmpThreads scope(threads_);
    const InnerProductPlans plans = plan_inner_product(engine_, {n_, features_, op.units, op.bias, op.activation});
    const auto canonical = plain_desc({op.units, features_}, dnnl::memory::format_tag::oi);
    const auto ordered = plain_desc({op.units, features_}, dnnl::memory::format_tag::oi, DType::bf16);
    const dnnl::memory::desc forward = plans.forward.weights_desc(), data = plans.backward_data.weights_desc();
    // A flattened image's columns are put in order first, in bf16 behind the copies.
    const auto& from = permuted_ ? ordered : canonical;
    pack_forward_ = Reorder(engine_, from, forward, false);
    packed_bytes_ = aligned(forward.get_size());
    if (data != forward) {
      pack_data_ = Reorder(engine_, from, data, false);
      data_at_ = packed_bytes_;
      packed_bytes_ += aligned(data.get_size());
    }
    ordered_at_ = packed_bytes_;
    if (permuted_) packed_bytes_ += aligned(ordered.get_size());
    pack_scratch_at_ = packed_bytes_;
    packed_bytes_ += aligned(std::max(pack_forward_.scratchpad(), pack_data_.scratchpad()));
    prepare(plans, canonical);
  }

  Needs needs() const override {
    const std::size_t data = static_cast<std::size_t>(n_ * features_) * sizeof(Bf16);
    return {std::max(grad_in_at_ + aligned(data), grad_plain_at_ + weight_bytes()), packed_bytes_};
  }

  void pack(std::span<const Tensor> master, Tensor packed, Stream&) override {
    const OmpThreads scope(threads_);
    auto* base = packed.as<std::byte>();
    const void* from = master[0].data;
    if (permuted_) {
      auto* to = reinterpret_cast<Bf16*>(base + ordered_at_);
      permute_columns(master[0].as<float>(), to, op_.units, channels_, pixels_, threads_);
      from = to;
    }
    pack_forward_.run(stream_, from, base, base + pack_scratch_at_);
    if (data_at_ != 0) pack_data_.run(stream_, from, base + data_at_, base + pack_scratch_at_);
  }

  void forward(const OpArgs& a, Stream&) override {
    const OmpThreads scope(threads_);
    if (op_.bias) {
      forward_.run(stream_, {a.in[0].data, a.packed.data, a.out[0].data, a.workspace.data, a.params[1].data});
    } else {
      forward_.run(stream_, {a.in[0].data, a.packed.data, a.out[0].data, a.workspace.data});
    }
  }

  void backward_activation(const OpArgs& a, Tensor grad_out, Stream&) override {
    epilogue_gradient(op_.activation, a.out[0], grad_out, threads_);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    const OmpThreads scope(threads_);
    auto* workspace = a.workspace.as<std::byte>();
    if (!g.in.empty() && g.in[0].write != Write::none) {
      const bool add = g.in[0].write == Write::accumulate;
      void* to = add ? workspace + grad_in_at_ : g.in[0].grad.data;
      backward_data_.run(stream_, {to, a.packed.as<std::byte>() + data_at_, g.out[0].data, workspace});
      if (add) add_into(DType::bf16, g.in[0].grad.data, to, n_ * features_, threads_);
    }
    const bool bias = g.params.size() > 1 && g.params[1].write != Write::none;
    if (bias || (!g.params.empty() && g.params[0].write != Write::none)) parameter_gradients(a, g);
  }

 private:
  std::size_t weight_bytes() const { return aligned(static_cast<std::size_t>(op_.units * features_) * sizeof(float)); }

  /// The workspace: scratch, then gradients of the bias, of the weights as the library writes them and in plain order;
  /// or, in another call, the gradient of the input that is to be added.
  void prepare(const InnerProductPlans& plans, const dnnl::memory::desc& canonical) {
    const auto& f = plans.forward;
    const auto& d = plans.backward_data;
    const auto& w = plans.backward_weights;
    if (op_.bias) {
      forward_ = Execution(engine_, dnnl::inner_product_forward(f),
                           {{DNNL_ARG_SRC, f.src_desc()},
                            {DNNL_ARG_WEIGHTS, f.weights_desc()},
                            {DNNL_ARG_DST, f.dst_desc()},
                            {DNNL_ARG_SCRATCHPAD, f.scratchpad_desc()},
                            {DNNL_ARG_BIAS, f.bias_desc()}});
      backward_weights_ = Execution(engine_, dnnl::inner_product_backward_weights(w),
                                    {{DNNL_ARG_SRC, w.src_desc()},
                                     {DNNL_ARG_DIFF_DST, w.diff_dst_desc()},
                                     {DNNL_ARG_DIFF_WEIGHTS, w.diff_weights_desc()},
                                     {DNNL_ARG_SCRATCHPAD, w.scratchpad_desc()},
                                     {DNNL_ARG_DIFF_BIAS, w.diff_bias_desc()}});
    } else {
      forward_ = Execution(engine_, dnnl::inner_product_forward(f),
                           {{DNNL_ARG_SRC, f.src_desc()},
                            {DNNL_ARG_WEIGHTS, f.weights_desc()},
                            {DNNL_ARG_DST, f.dst_desc()},
                            {DNNL_ARG_SCRATCHPAD, f.scratchpad_desc()}});
      backward_weights_ = Execution(engine_, dnnl::inner_product_backward_weights(w),
                                    {{DNNL_ARG_SRC, w.src_desc()},
                                     {DNNL_ARG_DIFF_DST, w.diff_dst_desc()},
                                     {DNNL_ARG_DIFF_WEIGHTS, w.diff_weights_desc()},
                                     {DNNL_ARG_SCRATCHPAD, w.scratchpad_desc()}});
    }
    backward_data_ = Execution(engine_, dnnl::inner_product_backward_data(d),
                               {{DNNL_ARG_DIFF_SRC, d.diff_src_desc()},
                                {DNNL_ARG_WEIGHTS, d.weights_desc()},
                                {DNNL_ARG_DIFF_DST, d.diff_dst_desc()},
                                {DNNL_ARG_SCRATCHPAD, d.scratchpad_desc()}});
    unpack_ = Reorder(engine_, w.diff_weights_desc(), canonical, false);
    unpack_add_ = Reorder(engine_, w.diff_weights_desc(), canonical, true);
    const std::size_t scratch =
        std::max({f.scratchpad_desc().get_size(), d.scratchpad_desc().get_size(), w.scratchpad_desc().get_size(),
                  unpack_.scratchpad(), unpack_add_.scratchpad()});
    grad_in_at_ = grad_bias_at_ = aligned(scratch);
    grad_weights_at_ = grad_bias_at_ + aligned(static_cast<std::size_t>(op_.units) * sizeof(float));
    grad_plain_at_ = grad_weights_at_ + aligned(w.diff_weights_desc().get_size());
  }

  void parameter_gradients(const OpArgs& a, const OpGrads& g) {
    auto* workspace = a.workspace.as<std::byte>();
    void* grad_weights = workspace + grad_weights_at_;
    if (op_.bias) {
      const GradSlot& slot = g.params[1];
      void* grad_bias = slot.write == Write::overwrite ? slot.grad.data : workspace + grad_bias_at_;
      backward_weights_.run(stream_, {a.in[0].data, g.out[0].data, grad_weights, workspace, grad_bias});
      if (slot.write == Write::accumulate) add_into(DType::f32, slot.grad.data, grad_bias, op_.units, threads_);
    } else {
      backward_weights_.run(stream_, {a.in[0].data, g.out[0].data, grad_weights, workspace});
    }
    const GradSlot& slot = g.params[0];
    if (slot.write == Write::none) return;
    const bool add = slot.write == Write::accumulate;
    if (permuted_) {
      auto* plain = reinterpret_cast<float*>(workspace + grad_plain_at_);
      unpack_.run(stream_, grad_weights, plain, workspace);
      unpermute_columns(plain, slot.grad.as<float>(), add, op_.units, channels_, pixels_, threads_);
    } else {
      (add ? unpack_add_ : unpack_).run(stream_, grad_weights, slot.grad.data, workspace);
    }
  }

  Linear op_;
  std::int64_t n_, features_, channels_, pixels_;
  bool permuted_;
  int threads_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  Execution forward_, backward_data_, backward_weights_;
  Reorder pack_forward_, pack_data_, unpack_, unpack_add_;
  std::size_t packed_bytes_ = 0, data_at_ = 0, ordered_at_ = 0, pack_scratch_at_ = 0;
  std::size_t grad_bias_at_ = 0, grad_weights_at_ = 0, grad_plain_at_ = 0, grad_in_at_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> make_linear_bf16(const Linear& op, const TensorDesc& in, int threads) {
  try {
    return std::make_unique<LinearBf16Kernel>(op, in, threads);
  } catch (const dnnl::error& e) {
    throw DeviceError(
        fmt::format("oneDNN cannot run a bfloat16 linear layer of {} units on {}: {}; use precision: "
                    "float32",
                    op.units, in.shape.str(), e.what()));
  }
}

}  // namespace dtrain::cpu
