// Means over whole images in NHWC memory: channels are the vector.
#include <algorithm>

#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/ops/channel_sums.hpp"

namespace dtrain::cpu {

namespace {

template <class T>
class GlobalAveragePoolKernel final : public Kernel {
 public:
  GlobalAveragePoolKernel(const TensorDesc& in, int threads)
      : n_(in.batch()), image_(Lines::of_sample(in)), threads_(threads) {}

  /// A line a sample: of sums, or of shares.
  Needs needs() const override { return {static_cast<std::size_t>(n_ * image_.width) * sizeof(double), 0}; }

  void forward(const OpArgs& a, Stream&) override {
    const double share = 1.0 / static_cast<double>(image_.rows());
    parallel_chunks(n_, 1, threads_, [&](std::int64_t n, std::int64_t) {
      double* sums = a.workspace.as<double>() + n * image_.width;
      std::fill(sums, sums + image_.width, 0.0);
      const T* x = a.in[0].as<T>() + n * image_.elements;
      for (std::int64_t at = 0; at < image_.elements; at += image_.width) {
        const std::int64_t width = std::min(image_.width, image_.elements - at);
#pragma omp simd
        for (std::int64_t i = 0; i < width; ++i) sums[i] += static_cast<double>(to_float(x[at + i]));
      }
      T* y = a.out[0].as<T>() + n * image_.channels;
      for (std::int64_t c = 0; c < image_.channels; ++c) {
        double sum = 0;
        for (std::int64_t i = c; i < image_.width; i += image_.channels) sum += sums[i];
        y[c] = from_float<T>(static_cast<float>(sum * share));
      }
    });
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    if (!wanted(g.in[0])) return;
    const bool add = g.in[0].write == Write::accumulate;
    const float share = 1.0f / static_cast<float>(image_.rows());
    parallel_chunks(n_, 1, threads_, [&](std::int64_t n, std::int64_t) {
      float* values = a.workspace.as<float>() + n * image_.width;
      const T* gy = g.out[0].as<T>() + n * image_.channels;
      for (std::int64_t c = 0; c < image_.channels; ++c) values[c] = to_float(gy[c]) * share;
      image_.repeat(values);
      T* gx = g.in[0].grad.as<T>() + n * image_.elements;
      for (std::int64_t at = 0; at < image_.elements; at += image_.width) {
        write_elements(gx + at, 0, std::min(image_.width, image_.elements - at), add,
                       [=](std::int64_t i) { return values[i]; });
      }
    });
  }

 private:
  std::int64_t n_;
  Lines image_;  // of one sample
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make(const GlobalAveragePool&, Inputs in, int threads) {
  return make_for<GlobalAveragePoolKernel>(in[0].dtype, in[0], threads);
}

}  // namespace dtrain::cpu
