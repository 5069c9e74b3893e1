// One row for a sequence: the mean of the first so many positions, which are one, all, or those of a document.
#include <algorithm>

#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/parallel.hpp"
#include "runtime/ops/attention_math.hpp"

namespace dtrain::cpu {

namespace {

template <class T>
class SequencePoolKernel final : public Kernel {
 public:
  SequencePoolKernel(const SequencePool& op, Inputs in, int threads)
      : first_(op.take == SequencePool::Take::first),
        documents_(in.size() > 1),
        samples_(in[0].batch()),
        positions_(in[0].positions()),
        channels_(in[0].channels()),
        threads_(threads) {}

  void forward(const OpArgs& a, Stream&) override {
    const std::int64_t blocks = (channels_ + block_elements - 1) / block_elements;
    parallel_chunks(samples_ * blocks, 1, threads_, [&](std::int64_t task, std::int64_t) {
      const std::int64_t sample = task / blocks, begin = task % blocks * block_elements;
      const std::int64_t width = std::min(block_elements, channels_ - begin), count = count_of(a, sample);
      const T* x = a.in[0].as<T>() + sample * positions_ * channels_ + begin;
      double sums[block_elements] = {};
      for (std::int64_t t = 0; t < count; ++t)
        for (std::int64_t i = 0; i < width; ++i) sums[i] += static_cast<double>(to_float(x[t * channels_ + i]));
      write_elements(a.out[0].as<T>() + sample * channels_ + begin, 0, width, false,
                     [&](std::int64_t i) { return static_cast<float>(sums[i] / static_cast<double>(count)); });
    });
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    if (!wanted(g.in[0])) return;
    const bool add = g.in[0].write == Write::accumulate;
    parallel_chunks(samples_, 1, threads_, [&](std::int64_t sample, std::int64_t) {
      const T* gy = g.out[0].as<T>() + sample * channels_;
      T* gx = g.in[0].grad.as<T>() + sample * positions_ * channels_;
      const std::int64_t count = count_of(a, sample);
      const auto divisor = static_cast<float>(count);
      for (std::int64_t t = 0; t < count; ++t)
        write_elements(gx + t * channels_, 0, channels_, add,
                       [=](std::int64_t i) { return to_float(gy[i]) / divisor; });
      if (!add) std::fill(gx + count * channels_, gx + positions_ * channels_, T{});
    });
  }

 private:
  std::int64_t count_of(const OpArgs& a, std::int64_t sample) const {
    if (first_) return 1;
    return first_document(documents_ ? a.in[1].as<std::int32_t>() + sample * positions_ : nullptr, positions_);
  }

  bool first_, documents_;
  std::int64_t samples_, positions_, channels_;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make(const SequencePool& op, Inputs in, int threads) {
  return make_for<SequencePoolKernel>(in[0].dtype, op, in, threads);
}

}  // namespace dtrain::cpu
