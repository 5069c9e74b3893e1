// Attention of a few new positions over a cache of keys and values, one sequence and key head at a time. In float32,
// whatever the values are.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/parallel.hpp"

namespace dtrain::cpu {

namespace {

template <class T>
class CachedAttentionKernel final : public Kernel {
 public:
  CachedAttentionKernel(const CachedAttention& op, Inputs in, int threads)
      : at_(op.attention, in.first(in.size() - 1)),
        capacity_(op.capacity),
        window_(op.attention.window),
        lengths_(in.size() - 1),
        threads_(threads) {
    if (op.attention.rotary) frequencies_ = op.attention.rotary->frequencies(at_.size);
  }

  Needs needs() const override {
    return {static_cast<std::size_t>(at_.samples * at_.kv_heads * (capacity_ + at_.size)) * sizeof(float), 0};
  }

  void forward(const OpArgs& a, Stream&) override {
    const auto* lengths = a.in[lengths_].as<const std::int32_t>();
    parallel_chunks(at_.samples * at_.kv_heads, 1, threads_, [&](std::int64_t task, std::int64_t) {
      const std::int64_t sample = task / at_.kv_heads, kv_head = task % at_.kv_heads, before = lengths[sample];
      float* const scores = a.workspace.as<float>() + task * (capacity_ + at_.size);
      for (std::int64_t p = 0; p < at_.positions && before + p < capacity_; ++p) {
        load(a, 1, sample, p, kv_head, before + p, 1, cached(a, 0, sample, kv_head, before + p));
        load(a, 2, sample, p, kv_head, -1, 1, cached(a, 1, sample, kv_head, before + p));
      }
      const std::int64_t group = at_.heads / at_.kv_heads;
      for (std::int64_t p = 0; p < at_.positions; ++p)
        for (std::int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h)
          attend(a, sample, p, h, kv_head, before + p, scores, scores + capacity_);
    });
  }

  void backward(const OpArgs&, const OpGrads&, Stream&) override {
    throw BugError("cached_attention: it has no gradients");
  }

 private:
  float* cached(const OpArgs& a, std::size_t which, std::int64_t sample, std::int64_t kv_head, std::int64_t at) const {
    return a.state[which].as<float>() + ((sample * capacity_ + at) * at_.kv_heads + kv_head) * at_.size;
  }

  /// A head of a new position, turned to where it stands; at -1 it is not.
  void load(const OpArgs& a, std::size_t part, std::int64_t sample, std::int64_t p, std::int64_t head, std::int64_t at,
            float scale, float* to) const {
    const AttentionLayout::Part& from = at_.parts[part];
    const T* row =
        a.in[from.input].as<const T>() + (sample * at_.positions + p) * from.row + from.channel + head * at_.size;
    for (std::int64_t c = 0; c < at_.size; ++c) to[c] = scale * to_float(row[c]);
    if (at < 0) return;
    const auto half = static_cast<std::int64_t>(frequencies_.size());
    for (std::int64_t c = 0; c < half; ++c) {
      const double angle = static_cast<double>(at) * frequencies_[static_cast<std::size_t>(c)];
      const auto cosine = static_cast<float>(std::cos(angle)), sine = static_cast<float>(std::sin(angle));
      const float x = to[c], y = to[c + half];
      to[c] = x * cosine - y * sine;
      to[c + half] = y * cosine + x * sine;
    }
  }

  void attend(const OpArgs& a, std::int64_t sample, std::int64_t p, std::int64_t head, std::int64_t kv_head,
              std::int64_t at, float* scores, float* query) const {
    T* const y = a.out[0].as<T>() + ((sample * at_.positions + p) * at_.heads + head) * at_.size;
    if (at >= capacity_) {
      std::fill_n(y, at_.size, from_float<T>(0.0f));
      return;
    }
    load(a, 0, sample, p, head, at, at_.scale, query);
    const std::int64_t first = window_ > 0 ? std::max<std::int64_t>(0, at - window_ + 1) : 0;
    const std::int64_t row = at_.kv_heads * at_.size, size = at_.size;
    const float *keys = cached(a, 0, sample, kv_head, 0), *values = cached(a, 1, sample, kv_head, 0);
    float largest = -std::numeric_limits<float>::infinity();
    for (std::int64_t j = first; j <= at; ++j) {
      const float* key = keys + j * row;
      float dot = 0;
#pragma omp simd reduction(+ : dot)
      for (std::int64_t c = 0; c < size; ++c) dot += query[c] * key[c];
      scores[j] = dot;
      largest = dot > largest ? dot : largest;
    }
    float sum = 0;
    for (std::int64_t j = first; j <= at; ++j) sum += scores[j] = exp_bounded(scores[j] - largest);
    float* const out = query;
    std::fill_n(out, size, 0.0f);
    for (std::int64_t j = first; j <= at; ++j) {
      const float *value = values + j * row, weight = scores[j];
#pragma omp simd
      for (std::int64_t c = 0; c < size; ++c) out[c] += weight * value[c];
    }
    for (std::int64_t c = 0; c < size; ++c) y[c] = from_float<T>(out[c] / sum);
  }

  AttentionLayout at_;
  std::int64_t capacity_, window_;
  std::size_t lengths_;
  int threads_;
  std::vector<double> frequencies_;  // of half a head; empty: no rotary positions
};

}  // namespace

std::unique_ptr<Kernel> make(const CachedAttention& op, Inputs in, int threads) {
  return make_for<CachedAttentionKernel>(in[0].dtype, op, in, threads);
}

}  // namespace dtrain::cpu
