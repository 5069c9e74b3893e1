#include "runtime/cpu/ops/weighted.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/ops/dense_weights.hpp"

namespace dtrain::cpu {

template <class Plans>
WeightedOp::WeightedOp(const dnnl::engine& engine, const Plans& plans, const dnnl::memory::desc& from,
                       const dnnl::memory::desc& canonical, bool bias, DType dtype, int threads)
    : bias_(bias), dtype_(dtype), threads_(threads), stream_(engine) {
  const auto& f = plans.forward;
  const auto& d = plans.backward_data;
  const auto& w = plans.backward_weights;
  const auto scratch_of = [](const auto& plan) { return plan.scratchpad_desc().get_size(); };

  pack_forward_ = Reorder(engine, from, f.weights_desc(), false);
  packed_bytes_ = aligned(f.weights_desc().get_size());
  if (d.weights_desc() != f.weights_desc()) {
    pack_data_ = Reorder(engine, from, d.weights_desc(), false);
    data_at_ = packed_bytes_;
    packed_bytes_ += aligned(d.weights_desc().get_size());
  }
  pack_scratch_at_ = packed_bytes_;
  packed_bytes_ += aligned(std::max(pack_forward_.scratchpad(), pack_data_.scratchpad()));

  std::vector<Execution::Argument> forward{{DNNL_ARG_SRC, f.src_desc()},
                                           {DNNL_ARG_WEIGHTS, f.weights_desc()},
                                           {DNNL_ARG_DST, f.dst_desc()},
                                           {DNNL_ARG_SCRATCHPAD, f.scratchpad_desc()}};
  std::vector<Execution::Argument> weights{{DNNL_ARG_SRC, w.src_desc()},
                                           {DNNL_ARG_DIFF_DST, w.diff_dst_desc()},
                                           {DNNL_ARG_DIFF_WEIGHTS, w.diff_weights_desc()},
                                           {DNNL_ARG_SCRATCHPAD, w.scratchpad_desc()}};
  if (bias_) {
    forward.emplace_back(DNNL_ARG_BIAS, f.bias_desc());
    weights.emplace_back(DNNL_ARG_DIFF_BIAS, w.diff_bias_desc());
    outputs_ = static_cast<std::int64_t>(w.diff_bias_desc().get_size() / sizeof(float));
  }
  forward_ = Execution(engine, typename Plans::Forward(f), forward);
  backward_weights_ = Execution(engine, typename Plans::Weights(w), weights);
  backward_data_ = Execution(engine, typename Plans::Data(d),
                             {{DNNL_ARG_DIFF_SRC, d.diff_src_desc()},
                              {DNNL_ARG_WEIGHTS, d.weights_desc()},
                              {DNNL_ARG_DIFF_DST, d.diff_dst_desc()},
                              {DNNL_ARG_SCRATCHPAD, d.scratchpad_desc()}});
  unpack_ = Reorder(engine, w.diff_weights_desc(), canonical, false);
  unpack_add_ = Reorder(engine, w.diff_weights_desc(), canonical, true);

  const std::size_t in_bytes = d.diff_src_desc().get_size();
  elements_in_ = static_cast<std::int64_t>(in_bytes / size_of(dtype_));
  grad_in_at_ = grad_weights_at_ =
      aligned(std::max({scratch_of(f), scratch_of(d), scratch_of(w), unpack_.scratchpad(), unpack_add_.scratchpad()}));
  grad_bias_at_ = grad_weights_at_ + aligned(w.diff_weights_desc().get_size());
  workspace_bytes_ = std::max(grad_bias_at_ + aligned(static_cast<std::size_t>(outputs_) * sizeof(float)),
                              grad_in_at_ + aligned(in_bytes));
}

template WeightedOp::WeightedOp(const dnnl::engine&, const ConvolutionPlans&, const dnnl::memory::desc&,
                                const dnnl::memory::desc&, bool, DType, int);
template WeightedOp::WeightedOp(const dnnl::engine&, const InnerProductPlans&, const dnnl::memory::desc&,
                                const dnnl::memory::desc&, bool, DType, int);

void WeightedOp::permute(std::int64_t units, std::int64_t channels, std::int64_t pixels) {
  units_ = units;
  channels_ = channels;
  pixels_ = pixels;
  const auto elements = static_cast<std::size_t>(units * channels * pixels);
  ordered_at_ = packed_bytes_;
  grad_plain_at_ = workspace_bytes_;
  packed_bytes_ += aligned(elements * sizeof(Bf16));
  workspace_bytes_ += aligned(elements * sizeof(float));
}

void WeightedOp::pack(const void* weights, std::byte* packed) {
  if (units_ > 0) {
    auto* const ordered = reinterpret_cast<Bf16*>(packed + ordered_at_);
    permute_columns(static_cast<const float*>(weights), ordered, units_, channels_, pixels_, threads_);
    weights = ordered;
  }
  pack_forward_.run(stream_, weights, packed, packed + pack_scratch_at_);
  if (data_at_ != 0) pack_data_.run(stream_, weights, packed + data_at_, packed + pack_scratch_at_);
}

void WeightedOp::forward(const OpArgs& a) {
  const void *x = a.in[0].data, *weights = a.packed.data, *y = a.out[0].data, *scratch = a.workspace.data;
  if (bias_) {
    forward_.run(stream_, {x, weights, y, scratch, a.params[1].data});
  } else {
    forward_.run(stream_, {x, weights, y, scratch});
  }
}

void WeightedOp::data_gradient(const OpArgs& a, const OpGrads& g) {
  auto* const workspace = a.workspace.as<std::byte>();
  const GradSlot& slot = g.in[0];
  const bool add = slot.write == Write::accumulate;
  void* const to = add ? workspace + grad_in_at_ : slot.grad.data;
  backward_data_.run(stream_, {to, a.packed.as<std::byte>() + data_at_, g.out[0].data, workspace});
  if (add) add_into(dtype_, slot.grad.data, to, elements_in_, threads_);
}

void WeightedOp::parameter_gradients(const OpArgs& a, const OpGrads& g) {
  auto* const workspace = a.workspace.as<std::byte>();
  const void *x = a.in[0].data, *gy = g.out[0].data;
  void* const grad_weights = workspace + grad_weights_at_;
  if (!bias_) {
    backward_weights_.run(stream_, {x, gy, grad_weights, workspace});
    return;
  }
  const GradSlot& slot = g.params[1];
  void* const grad_bias = slot.write == Write::overwrite ? slot.grad.data : workspace + grad_bias_at_;
  backward_weights_.run(stream_, {x, gy, grad_weights, workspace, grad_bias});
  if (slot.write == Write::accumulate) add_into(DType::f32, slot.grad.data, grad_bias, outputs_, threads_);
}

void WeightedOp::take_weight_gradient(const OpArgs& a, const GradSlot& slot) {
  auto* const workspace = a.workspace.as<std::byte>();
  auto* const to = slot.grad.as<float>();
  const bool add = slot.write == Write::accumulate;
  if (units_ == 0) {
    (add ? unpack_add_ : unpack_).run(stream_, workspace + grad_weights_at_, to, workspace);
    return;
  }
  auto* const plain = reinterpret_cast<float*>(workspace + grad_plain_at_);
  unpack_.run(stream_, workspace + grad_weights_at_, plain, workspace);
  unpermute_columns(plain, to, add, units_, channels_, pixels_, threads_);
}

namespace {

class WeightedKernel final : public Kernel {
 public:
  WeightedKernel(WeightedOp run, Activation activation, int threads)
      : run_(std::move(run)), activation_(activation), threads_(threads) {}

  Needs needs() const override { return run_.needs(); }

  void pack(std::span<const Tensor> master, Tensor packed, Stream&) override {
    const OmpThreads scope(threads_);
    run_.pack(master[0].data, packed.as<std::byte>());
  }

  void forward(const OpArgs& a, Stream&) override {
    const OmpThreads scope(threads_);
    run_.forward(a);
  }

  void backward_activation(const OpArgs& a, Tensor grad_out, Stream&) override {
    epilogue_gradient(activation_, a.out[0], grad_out, threads_);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    const OmpThreads scope(threads_);
    if (wanted(g.in, 0)) run_.data_gradient(a, g);
    if (!wanted(g.params, 0) && !wanted(g.params, 1)) return;
    run_.parameter_gradients(a, g);
    if (wanted(g.params, 0)) run_.take_weight_gradient(a, g.params[0]);
  }

 private:
  WeightedOp run_;
  Activation activation_;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make_weighted(WeightedOp run, Activation activation, int threads) {
  return std::make_unique<WeightedKernel>(std::move(run), activation, threads);
}

}  // namespace dtrain::cpu
