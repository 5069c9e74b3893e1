// Attention by own kernels.
#include <cmath>
#include <memory>
#include <numbers>

#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/attention.hpp"

namespace dtrain::cuda {

namespace {

static_assert(largest_head == Attention::largest_size);

class AttentionKernel final : public Kernel {
 public:
  AttentionKernel(const Attention& op, Inputs in)
      : op_(op), at_(op, in), dtype_(in[0].dtype), rows_(at_.samples * at_.positions) {
    if (!op.rotary) return;
    const std::vector<double> all = op.rotary->frequencies(at_.size);
    for (std::size_t c = 0; c < all.size(); ++c) frequencies_.of[c] = all[c] / std::numbers::pi;
  }

  /// What each position sees, what the scores of a row share, cosines and sines.
  Needs needs() const override {
    const std::int64_t turns = op_.rotary ? at_.positions * at_.size : 0;
    return {static_cast<std::size_t>(rows_) * sizeof(VisibleRange) + bytes_of(rows_ * at_.heads + turns, DType::f32),
            0};
  }

  void forward(const OpArgs& a, Stream& stream) override {
    const bool keep = a.pass.mode == Mode::train && !a.pass.recompute;
    attention(at(stream, name), element_of(dtype_), place(a, stream), a.out[0].data,
              keep ? a.saved[0].as<float>() : nullptr);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    const AttentionGradients to{slot(g, 0),       slot(g, 1),       slot(g, 2),
                                at_.parts[0].row, at_.parts[1].row, at_.parts[2].row};
    if (to.q.put == Put::none && to.k.put == Put::none && to.v.put == Put::none) return;
    attention_gradient(at(stream, name), element_of(dtype_), place(a, stream), a.out[0].data, g.out[0].data,
                       a.saved[0].as<const float>(), shared(a), to);
  }

 private:
  static constexpr const char* name = "attention";

  VisibleRange* ranges(const OpArgs& a) const { return a.workspace.as<VisibleRange>(); }
  float* shared(const OpArgs& a) const { return reinterpret_cast<float*>(ranges(a) + rows_); }

  std::byte* first_of(void* data, std::size_t which) const {
    return static_cast<std::byte*>(data) + bytes_of(at_.parts[which].channel, dtype_);
  }
  HeadRows rows_of(const OpArgs& a, std::size_t which) const {
    return {first_of(a.in[at_.parts[which].input].data, which), at_.parts[which].row};
  }
  Slot slot(const OpGrads& g, std::size_t which) const {
    const std::size_t input = at_.parts[which].input;
    if (!wanted(g.in, input)) return {};
    Slot to = slot_of(g.in[input]);
    to.to = first_of(to.to, which);
    return to;
  }

  /// Enqueues what it points to.
  AttentionPlace place(const OpArgs& a, Stream& stream) const {
    const VisibleRule rule{at_.positions, op_.causal, op_.window};
    const auto* documents =
        at_.documents < 0 ? nullptr : a.in[static_cast<std::size_t>(at_.documents)].as<const std::int32_t>();
    attention_ranges(at(stream, name), rule, at_.samples, documents, ranges(a));
    float* const turns = op_.rotary ? shared(a) + rows_ * at_.heads : nullptr;
    if (turns != nullptr) attention_turns(at(stream, name), frequencies_, at_.positions, at_.size / 2, turns);
    const bool drops = a.pass.mode == Mode::train && op_.dropout > 0;
    return {at_.samples,
            at_.positions,
            at_.heads,
            at_.kv_heads,
            at_.size,
            at_.scale,
            rows_of(a, 0),
            rows_of(a, 1),
            rows_of(a, 2),
            ranges(a),
            turns,
            op_.id,
            drops ? static_cast<std::uint32_t>(std::ceil(op_.dropout * 0x1p24)) : 0,
            static_cast<float>(1.0 / (1.0 - op_.dropout)),
            drops ? a.positions[0].as<const std::uint64_t>() : nullptr,
            &a.step};
  }

  Attention op_;
  AttentionLayout at_;
  DType dtype_;
  std::int64_t rows_;
  AttentionFrequencies frequencies_{};
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const Attention& op, Inputs in, const OpUse&) {
  return std::make_unique<AttentionKernel>(op, in);
}

}  // namespace dtrain::cuda
