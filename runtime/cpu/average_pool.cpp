// Means over windows and over whole images, in NHWC memory: channels are the vector.
#include <algorithm>

#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/parallel.hpp"
#include "runtime/cpu/windows.hpp"

namespace dtrain::cpu {

namespace {

template <class T>
class AveragePoolKernel final : public Kernel {
 public:
  AveragePoolKernel(const AveragePool2d& op, const Shape& in, int threads)
      : grid_(op, {in[0], in[1], in[2], in[3]}), count_padding_(op.count_padding), threads_(threads) {}

  void forward(const OpArgs& a, Stream&) override {
    const T* x = a.in[0].as<T>();
    T* y = a.out[0].as<T>();
    const Windows &h = grid_.h, &w = grid_.w;
    parallel_chunks(grid_.n * h.count, 4, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t p = row % h.count;
        for (std::int64_t q = 0; q < w.count; ++q) {
          const float share = share_of(p, q);
          sum_pixels(x + row / h.count * h.extent * w.extent * grid_.channels, w.extent, h.pixels(p), w.pixels(q),
                     y + (row * w.count + q) * grid_.channels, false,
                     [=](std::int64_t, std::int64_t) { return share; });
        }
      }
    });
  }

  /// Pixel by pixel, so that each gradient is rounded and written once however many windows overlap there.
  void backward(const OpArgs&, const OpGrads& g, Stream&) override {
    if (g.in[0].write == Write::none) return;
    const T* gy = g.out[0].as<T>();
    T* gx = g.in[0].grad.as<T>();
    const bool add = g.in[0].write == Write::accumulate;
    const Windows &h = grid_.h, &w = grid_.w;
    parallel_chunks(grid_.n * h.extent, 4, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row)
        for (std::int64_t j = 0; j < w.extent; ++j)
          sum_pixels(gy + row / h.extent * h.count * w.count * grid_.channels, w.count, h.seeing(row % h.extent),
                     w.seeing(j), gx + (row * w.extent + j) * grid_.channels, add,
                     [this](std::int64_t p, std::int64_t q) { return share_of(p, q); });
    });
  }

 private:
  /// What a pixel counts in the mean of window (p, q).
  float share_of(std::int64_t p, std::int64_t q) const {
    const Range rows = grid_.h.pixels(p), columns = grid_.w.pixels(q);
    const std::int64_t there = (rows.end - rows.begin) * (columns.end - columns.begin);
    return 1.0f / static_cast<float>(count_padding_ ? grid_.h.size * grid_.w.size : there);
  }

  /// One pixel of `to`: the sum over rows x columns of an image of `width` pixels a row, each times share(row, column).
  template <class Share>
  void sum_pixels(const T* image, std::int64_t width, Range rows, Range columns, T* to, bool add,
                  const Share& share) const {
    for (std::int64_t c0 = 0; c0 < grid_.channels; c0 += block_elements) {
      const std::int64_t n = std::min(block_elements, grid_.channels - c0);
      alignas(64) float sums[block_elements];
      std::fill(sums, sums + n, 0.0f);
      for (std::int64_t i = rows.begin; i < rows.end; ++i) {
        for (std::int64_t j = columns.begin; j < columns.end; ++j) {
          const T* from = image + (i * width + j) * grid_.channels + c0;
          const float factor = share(i, j);
#pragma omp simd
          for (std::int64_t c = 0; c < n; ++c) sums[c] += to_float(from[c]) * factor;
        }
      }
      write_elements(to + c0, 0, n, add, [&](std::int64_t c) { return sums[c]; });
    }
  }

  WindowGrid grid_;
  bool count_padding_;
  int threads_;
};

template <class T>
class GlobalAveragePoolKernel final : public Kernel {
 public:
  GlobalAveragePoolKernel(const Shape& in, int threads)
      : n_(in[0]), channels_(in[1]), pixels_(in[2] * in[3]), threads_(threads) {}

  void forward(const OpArgs& a, Stream&) override {
    const T* x = a.in[0].as<T>();
    T* y = a.out[0].as<T>();
    for_blocks([&](std::int64_t n, std::int64_t first, std::int64_t width) {
      alignas(64) double sums[block_elements];
      std::fill(sums, sums + width, 0.0);
      const T* image = x + n * pixels_ * channels_ + first;
      for (std::int64_t p = 0; p < pixels_; ++p) {
        const T* from = image + p * channels_;
#pragma omp simd
        for (std::int64_t c = 0; c < width; ++c) sums[c] += static_cast<double>(to_float(from[c]));
      }
      const double share = 1.0 / static_cast<double>(pixels_);
      write_elements(y + n * channels_ + first, 0, width, false,
                     [&](std::int64_t c) { return static_cast<float>(sums[c] * share); });
    });
  }

  void backward(const OpArgs&, const OpGrads& g, Stream&) override {
    if (g.in[0].write == Write::none) return;
    const T* gy = g.out[0].as<T>();
    T* gx = g.in[0].grad.as<T>();
    const bool add = g.in[0].write == Write::accumulate;
    const float share = 1.0f / static_cast<float>(pixels_);
    for_blocks([&](std::int64_t n, std::int64_t first, std::int64_t width) {
      alignas(64) float values[block_elements];
      const T* from = gy + n * channels_ + first;
      write_elements(values, 0, width, false, [=](std::int64_t c) { return to_float(from[c]) * share; });
      T* image = gx + n * pixels_ * channels_ + first;
      for (std::int64_t p = 0; p < pixels_; ++p)
        write_elements(image + p * channels_, 0, width, add, [&](std::int64_t c) { return values[c]; });
    });
  }

 private:
  /// Calls body(sample, first channel, channels) for blocks of channels.
  template <class Body>
  void for_blocks(const Body& body) const {
    const std::int64_t blocks = (channels_ + block_elements - 1) / block_elements;
    parallel_chunks(n_ * blocks, 1, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t task = begin; task < end; ++task) {
        const std::int64_t first = task % blocks * block_elements;
        body(task / blocks, first, std::min(block_elements, channels_ - first));
      }
    });
  }

  std::int64_t n_, channels_, pixels_;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make_average_pool2d(const AveragePool2d& op, std::span<const TensorDesc> in, int threads) {
  return make_for<AveragePoolKernel>(in[0].dtype, op, in[0].shape, threads);
}
std::unique_ptr<Kernel> make_global_average_pool(std::span<const TensorDesc> in, int threads) {
  return make_for<GlobalAveragePoolKernel>(in[0].dtype, in[0].shape, threads);
}

}  // namespace dtrain::cpu
