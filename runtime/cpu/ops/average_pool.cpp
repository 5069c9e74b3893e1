// Means over windows and over whole images, in NHWC memory: channels are the vector.
#include <algorithm>

#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/ops/channel_sums.hpp"
#include "runtime/cpu/parallel.hpp"
#include "runtime/ops/pool.hpp"

namespace dtrain::cpu {

namespace {

template <class T>
class AveragePoolKernel final : public Kernel {
 public:
  AveragePoolKernel(const AveragePool& op, const TensorDesc& in, int threads)
      : grid_(window_grid(op, in)), count_padding_(op.count_padding), threads_(threads) {}

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
    const PixelRange rows = grid_.h.pixels(p), columns = grid_.w.pixels(q);
    const std::int64_t there = (rows.end - rows.begin) * (columns.end - columns.begin);
    return 1.0f / static_cast<float>(count_padding_ ? grid_.h.size * grid_.w.size : there);
  }

  /// One pixel of `to`: the sum over rows x columns of an image of `width` pixels a row, each times share(row, column).
  template <class Share>
  void sum_pixels(const T* image, std::int64_t width, PixelRange rows, PixelRange columns, T* to, bool add,
                  const Share& share) const {
    if (rows.end - rows.begin == 1 && columns.end - columns.begin == 1) {
      const T* from = image + (rows.begin * width + columns.begin) * grid_.channels;
      const float factor = share(rows.begin, columns.begin);
      write_elements(to, 0, grid_.channels, add, [=](std::int64_t c) { return to_float(from[c]) * factor; });
      return;
    }
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
    if (g.in[0].write == Write::none) return;
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

std::unique_ptr<Kernel> make(const AveragePool& op, Inputs in, int threads) {
  return make_for<AveragePoolKernel>(in[0].dtype, op, in[0], threads);
}
std::unique_ptr<Kernel> make(const GlobalAveragePool&, Inputs in, int threads) {
  return make_for<GlobalAveragePoolKernel>(in[0].dtype, in[0], threads);
}

}  // namespace dtrain::cpu
