// Learned positions: one row of weights an element of a sample, added to every sample.
#include <algorithm>

#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/parallel.hpp"

namespace dtrain::cpu {

namespace {

template <class T>
class PositionsKernel final : public Kernel {
 public:
  PositionsKernel(const TensorDesc& in, int threads)
      : samples_(in.batch()), elements_(in.positions() * in.channels()), threads_(threads) {}

  void forward(const OpArgs& a, Stream&) override {
    const float* weight = a.params[0].as<float>();
    if (a.in.size() == 2) return forward_behind(a, weight);
    for_parts(samples_ * elements_, [&](std::int64_t sample, std::int64_t begin, std::int64_t end) {
      const T* x = a.in[0].as<T>() + sample * elements_;
      write_elements(a.out[0].as<T>() + sample * elements_, begin, end, false,  // may be x
                     [=](std::int64_t i) { return to_float(x[i]) + weight[i]; });
    });
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    const T* gy = g.out[0].as<T>();
    if (wanted(g.params, 0)) weight_gradient(a, gy, g.params[0]);
    if (!wanted(g.in, 0)) return;
    T* gx = g.in[0].grad.as<T>();  // may be gy
    const bool add = g.in[0].write == Write::accumulate;
    for_parts(samples_ * elements_, [&](std::int64_t sample, std::int64_t begin, std::int64_t end) {
      const T* from = gy + sample * elements_;
      write_elements(gx + sample * elements_, begin, end, add, [=](std::int64_t i) { return to_float(from[i]); });
    });
  }

 private:
  void forward_behind(const OpArgs& a, const float* weight) const {
    const std::int64_t channels = a.in[0].desc.channels(), rows = a.params[0].desc.shape[0];
    const std::int64_t positions = elements_ / channels;
    for (std::int64_t sample = 0; sample < samples_; ++sample) {
      for (std::int64_t p = 0; p < positions; ++p) {
        const std::int64_t row = std::clamp<std::int64_t>(a.in[1].as<std::int32_t>()[sample] + p, 0, rows - 1);
        const std::int64_t at = sample * elements_ + p * channels;
        const T* x = a.in[0].as<T>() + at;
        const float* added = weight + row * channels;
        write_elements(a.out[0].as<T>() + at, 0, channels, false,
                       [=](std::int64_t i) { return to_float(x[i]) + added[i]; });
      }
    }
  }

  /// body(sample, begin, end) for parts of the elements of each sample.
  template <class Body>
  void for_parts(std::int64_t n, const Body& body) const {
    parallel_chunks(n, task_elements, threads_, [&](std::int64_t begin, std::int64_t end) {
      while (begin < end) {
        const std::int64_t sample = begin / elements_, first = begin % elements_;
        const std::int64_t last = std::min(elements_, first + end - begin);
        body(sample, first, last);
        begin += last - first;
      }
    });
  }

  /// Rows behind the last position have none.
  void weight_gradient(const OpArgs& a, const T* gy, const GradSlot& slot) const {
    const bool add = slot.write == Write::accumulate;
    float* to = slot.grad.as<float>();
    if (!add) std::fill(to + elements_, to + a.params[0].elements(), 0.0f);
    parallel_chunks(elements_, block_elements, threads_, [&](std::int64_t begin, std::int64_t end) {
      alignas(64) float sums[block_elements] = {};
      for (std::int64_t sample = 0; sample < samples_; ++sample) {
        const T* from = gy + sample * elements_ + begin;
        write_elements(sums, 0, end - begin, true, [=](std::int64_t i) { return to_float(from[i]); });
      }
      write_slot<float>(slot, begin, end, sums);
    });
  }

  std::int64_t samples_, elements_;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make(const Positions&, Inputs in, int threads) {
  return make_for<PositionsKernel>(in[0].dtype, in[0], threads);
}

}  // namespace dtrain::cpu
