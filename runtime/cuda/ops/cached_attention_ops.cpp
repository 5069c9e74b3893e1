// Attention over a cache by own kernels.
#include <memory>
#include <numbers>

#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/cached_attention.hpp"

namespace dtrain::cuda {

namespace {

class CachedAttentionKernel final : public Kernel {
 public:
  CachedAttentionKernel(const CachedAttention& op, Inputs in)
      : op_(op), at_(op.attention, in.first(in.size() - 1)), lengths_(in.size() - 1), dtype_(in[0].dtype) {
    if (!op.attention.rotary) return;
    const std::vector<double> all = op.attention.rotary->frequencies(at_.size);
    for (std::size_t c = 0; c < all.size(); ++c) frequencies_.of[c] = all[c] / std::numbers::pi;
  }

  void forward(const OpArgs& a, Stream& stream) override {
    const CachedAttentionPlace place{at_.samples,
                                     at_.positions,
                                     at_.heads,
                                     at_.kv_heads,
                                     at_.size,
                                     op_.capacity,
                                     op_.attention.window,
                                     at_.scale,
                                     rows_of(a, 0),
                                     rows_of(a, 1),
                                     rows_of(a, 2),
                                     a.in[lengths_].as<const std::int32_t>(),
                                     a.state[0].as<float>(),
                                     a.state[1].as<float>(),
                                     op_.attention.rotary.has_value(),
                                     frequencies_};
    extend_cache(at(stream, name), element_of(dtype_), place);
    cached_attention(at(stream, name), element_of(dtype_), place, a.out[0].data);
  }
  void backward(const OpArgs&, const OpGrads&, Stream&) override {
    throw BugError("cached_attention: it has no gradients");
  }

 private:
  static constexpr const char* name = "cached_attention";
  HeadRows rows_of(const OpArgs& a, std::size_t which) const {
    const AttentionLayout::Part& part = at_.parts[which];
    return {a.in[part.input].as<std::byte>() + bytes_of(part.channel, dtype_), part.row};
  }

  CachedAttention op_;
  AttentionLayout at_;
  std::size_t lengths_;
  DType dtype_;
  AttentionFrequencies frequencies_{};
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const CachedAttention& op, Inputs in, const OpUse&) {
  return std::make_unique<CachedAttentionKernel>(op, in);
}

}  // namespace dtrain::cuda
