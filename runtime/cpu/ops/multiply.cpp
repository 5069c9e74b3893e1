// Products of two tensors, of equal shapes or with one factor a sample and channel.
#include <algorithm>

#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/ops/channel_sums.hpp"
#include "runtime/cpu/parallel.hpp"

namespace dtrain::cpu {

namespace {

template <class T>
class MultiplyKernel final : public Kernel {
 public:
  MultiplyKernel(std::int64_t elements, int threads) : elements_(elements), threads_(threads) {}

  void forward(const OpArgs& args, Stream&) override {
    const T *a = args.in[0].as<T>(), *b = args.in[1].as<T>();
    T* y = args.out[0].as<T>();
    parallel_chunks(elements_, task_elements, threads_, [=](std::int64_t begin, std::int64_t end) {
      write_elements(y, begin, end, false, [=](std::int64_t i) { return to_float(a[i]) * to_float(b[i]); });
    });
  }

  void backward(const OpArgs& args, const OpGrads& g, Stream&) override {
    const T *a = args.in[0].as<T>(), *b = args.in[1].as<T>(), *gy = g.out[0].as<T>();
    parallel_chunks(elements_, task_elements, threads_, [&](std::int64_t begin, std::int64_t end) {
      // A slot may be gy, and both slots the same: a block is worked out before it is written.
      for (std::int64_t from = begin; from < end; from += block_elements) {
        const std::int64_t to = std::min(from + block_elements, end);
        alignas(64) float of_a[block_elements], of_b[block_elements];
#pragma omp simd
        for (std::int64_t i = from; i < to; ++i) {
          const float v = to_float(gy[i]);
          of_a[i - from] = v * to_float(b[i]);
          of_b[i - from] = v * to_float(a[i]);
        }
        write_slot<T>(g.in[0], from, to, of_a);
        write_slot<T>(g.in[1], from, to, of_b);
      }
    });
  }

 private:
  std::int64_t elements_;
  int threads_;
};

/// Squeeze and excitation: a[n, pixel, c] * b[n, c].
template <class T>
class BroadcastMultiplyKernel final : public Kernel {
 public:
  BroadcastMultiplyKernel(const TensorDesc& a, int threads)
      : n_(a.batch()), image_(Lines::of_sample(a)), threads_(threads) {}

  /// Per sample: a line of b, one of values, and a line of sums.
  Needs needs() const override {
    const std::size_t line = static_cast<std::size_t>(image_.width) * (2 * sizeof(float) + sizeof(double));
    return {static_cast<std::size_t>(n_) * line, 0};
  }

  void forward(const OpArgs& args, Stream&) override {
    for_samples(args, [&](std::int64_t n, const Scratch& s) {
      const T* a = args.in[0].as<T>() + n * image_.elements;
      T* y = args.out[0].as<T>() + n * image_.elements;
      const float* factor = s.factor;
      for (std::int64_t at = 0; at < image_.elements; at += image_.width) {
        write_elements(y + at, 0, std::min(image_.width, image_.elements - at), false,
                       [=](std::int64_t i) { return to_float(a[at + i]) * factor[i]; });
      }
    });
  }

  void backward(const OpArgs& args, const OpGrads& g, Stream&) override {
    for_samples(args, [&](std::int64_t n, const Scratch& s) {
      const std::int64_t first = n * image_.elements, channels = image_.channels;
      std::fill(s.sums, s.sums + image_.width, 0.0);
      for (std::int64_t at = first; at < first + image_.elements; at += image_.width) {
        const std::int64_t width = std::min(image_.width, first + image_.elements - at);
        const T *a = args.in[0].as<T>() + at, *gy = g.out[0].as<T>() + at;
        const float* factor = s.factor;
        float* values = s.values;
        double* sums = s.sums;
#pragma omp simd
        for (std::int64_t i = 0; i < width; ++i) {
          const float v = to_float(gy[i]);
          sums[i] += static_cast<double>(v * to_float(a[i]));
          values[i] = v * factor[i];
        }
        write_slot<T>(g.in[0], at, at + width, values);  // may be gy
      }
      for (std::int64_t c = 0; c < channels; ++c) {
        double sum = 0;
        for (std::int64_t i = c; i < image_.width; i += channels) sum += s.sums[i];
        s.values[c] = static_cast<float>(sum);
      }
      write_slot<T>(g.in[1], n * channels, (n + 1) * channels, s.values);
    });
  }

 private:
  struct Scratch {
    double* sums;
    float *factor, *values;
  };
  template <class Body>
  void for_samples(const OpArgs& args, const Body& body) const {
    parallel_chunks(n_, 1, threads_, [&](std::int64_t n, std::int64_t) {
      auto* sums = args.workspace.as<double>() + n * image_.width * 2;
      auto* factor = reinterpret_cast<float*>(sums + image_.width);
      const T* b = args.in[1].as<T>() + n * image_.channels;
      for (std::int64_t c = 0; c < image_.channels; ++c) factor[c] = to_float(b[c]);
      image_.repeat(factor);
      body(n, Scratch{sums, factor, factor + image_.width});
    });
  }

  std::int64_t n_;
  Lines image_;  // of one sample
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make(const Multiply&, Inputs in, int threads) {
  if (in[0].shape == in[1].shape) return make_for<MultiplyKernel>(in[0].dtype, in[0].elements(), threads);
  return make_for<BroadcastMultiplyKernel>(in[0].dtype, in[0], threads);
}

}  // namespace dtrain::cpu
