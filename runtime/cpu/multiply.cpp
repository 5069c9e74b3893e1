// Products of two tensors, of equal shapes or with one factor a sample and channel.
#include <algorithm>

#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
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
  BroadcastMultiplyKernel(const Shape& a, int threads)
      : n_(a[0]), channels_(a[1]), pixels_(a[2] * a[3]), threads_(threads) {}

  void forward(const OpArgs& args, Stream&) override {
    const T *a = args.in[0].as<T>(), *b = args.in[1].as<T>();
    T* y = args.out[0].as<T>();
    const std::int64_t rows_a_task = std::max<std::int64_t>(1, task_elements / channels_);
    parallel_chunks(n_ * pixels_, rows_a_task, threads_, [=, this](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const T *from = a + row * channels_, *factor = b + row / pixels_ * channels_;
        write_elements(y + row * channels_, 0, channels_, false,
                       [=](std::int64_t c) { return to_float(from[c]) * to_float(factor[c]); });
      }
    });
  }

  void backward(const OpArgs& args, const OpGrads& g, Stream&) override {
    // A task is a block of a sample's channels, with the sums over its pixels.
    const std::int64_t blocks = (channels_ + block_elements - 1) / block_elements;
    parallel_chunks(n_ * blocks, 1, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t task = begin; task < end; ++task) {
        const std::int64_t first = task % blocks * block_elements;
        backward_block(args, g, task / blocks, first, std::min(block_elements, channels_ - first));
      }
    });
  }

 private:
  void backward_block(const OpArgs& args, const OpGrads& g, std::int64_t n, std::int64_t first,
                      std::int64_t width) const {
    alignas(64) double sums[block_elements] = {};
    alignas(64) float factor[block_elements], values[block_elements];
    const T* b = args.in[1].as<T>() + n * channels_ + first;
    write_elements(factor, 0, width, false, [=](std::int64_t c) { return to_float(b[c]); });
    for (std::int64_t p = 0; p < pixels_; ++p) {
      const std::int64_t at = (n * pixels_ + p) * channels_ + first;
      const T *a = args.in[0].as<T>() + at, *gy = g.out[0].as<T>() + at;
#pragma omp simd
      for (std::int64_t c = 0; c < width; ++c) {
        const float v = to_float(gy[c]);
        sums[c] += static_cast<double>(v * to_float(a[c]));
        values[c] = v * factor[c];
      }
      write_slot<T>(g.in[0], at, at + width, values);  // may be gy
    }
    write_elements(values, 0, width, false, [&](std::int64_t c) { return static_cast<float>(sums[c]); });
    write_slot<T>(g.in[1], n * channels_ + first, n * channels_ + first + width, values);
  }

  std::int64_t n_, channels_, pixels_;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make_multiply(std::span<const TensorDesc> in, int threads) {
  if (in[0].shape == in[1].shape) return make_for<MultiplyKernel>(in[0].dtype, in[0].elements(), threads);
  return make_for<BroadcastMultiplyKernel>(in[0].dtype, in[0].shape, threads);
}

}  // namespace dtrain::cpu
