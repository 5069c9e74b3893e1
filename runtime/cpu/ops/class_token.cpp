// A trained row in front of the positions of every sample.
#include <algorithm>
#include <cstring>

#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/parallel.hpp"

namespace dtrain::cpu {

namespace {

template <class T>
class ClassTokenKernel final : public Kernel {
 public:
  ClassTokenKernel(const TensorDesc& in, int threads)
      : samples_(in.batch()), channels_(in.channels()), elements_(in.positions() * channels_), threads_(threads) {}

  void forward(const OpArgs& a, Stream&) override {
    const float* weight = a.params[0].as<float>();
    parallel_chunks(samples_, 1, threads_, [&](std::int64_t sample, std::int64_t) {
      T* y = a.out[0].as<T>() + sample * (channels_ + elements_);
      write_elements(y, 0, channels_, false, [=](std::int64_t i) { return weight[i]; });
      std::memcpy(y + channels_, a.in[0].as<T>() + sample * elements_, static_cast<std::size_t>(elements_) * sizeof(T));
    });
  }

  void backward(const OpArgs&, const OpGrads& g, Stream&) override {
    const T* gy = g.out[0].as<T>();
    if (wanted(g.params, 0)) weight_gradient(gy, g.params[0]);
    if (!wanted(g.in, 0)) return;
    const bool add = g.in[0].write == Write::accumulate;
    parallel_chunks(samples_, 1, threads_, [&](std::int64_t sample, std::int64_t) {
      const T* from = gy + sample * (channels_ + elements_) + channels_;
      write_elements(g.in[0].grad.as<T>() + sample * elements_, 0, elements_, add,
                     [=](std::int64_t i) { return to_float(from[i]); });
    });
  }

 private:
  void weight_gradient(const T* gy, const GradSlot& slot) const {
    parallel_chunks(channels_, block_elements, threads_, [&](std::int64_t begin, std::int64_t end) {
      alignas(64) float sums[block_elements] = {};
      for (std::int64_t sample = 0; sample < samples_; ++sample) {
        const T* from = gy + sample * (channels_ + elements_) + begin;
        write_elements(sums, 0, end - begin, true, [=](std::int64_t i) { return to_float(from[i]); });
      }
      write_slot<float>(slot, begin, end, sums);
    });
  }

  std::int64_t samples_, channels_, elements_;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make(const ClassToken&, Inputs in, int threads) {
  return make_for<ClassTokenKernel>(in[0].dtype, in[0], threads);
}

}  // namespace dtrain::cpu
