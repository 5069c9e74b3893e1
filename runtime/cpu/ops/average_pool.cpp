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
    const Windows &d = grid_.d, &h = grid_.h, &w = grid_.w;
    parallel_chunks(grid_.n * d.count * h.count, 4, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t p = row % h.count, plane = row / h.count, o = plane % d.count;
        const Sample from{x + plane / d.count * grid_.pixels() * grid_.channels, h.extent, w.extent};
        for (std::int64_t q = 0; q < w.count; ++q) {
          const float share = share_of(o, p, q);
          sum_pixels(from, d.pixels(o), h.pixels(p), w.pixels(q), y + (row * w.count + q) * grid_.channels, false,
                     [=](std::int64_t, std::int64_t, std::int64_t) { return share; });
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
    const Windows &d = grid_.d, &h = grid_.h, &w = grid_.w;
    parallel_chunks(grid_.n * d.extent * h.extent, 4, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t plane = row / h.extent;
        const Sample from{gy + plane / d.extent * grid_.windows() * grid_.channels, h.count, w.count};
        for (std::int64_t j = 0; j < w.extent; ++j)
          sum_pixels(from, d.seeing(plane % d.extent), h.seeing(row % h.extent), w.seeing(j),
                     gx + (row * w.extent + j) * grid_.channels, add,
                     [this](std::int64_t o, std::int64_t p, std::int64_t q) { return share_of(o, p, q); });
      }
    });
  }

 private:
  /// A sample: planes of so many rows and columns.
  struct Sample {
    const T* data;
    std::int64_t rows, columns;
  };

  /// What a pixel counts in the mean of window (o, p, q).
  float share_of(std::int64_t o, std::int64_t p, std::int64_t q) const {
    const PixelRange planes = grid_.d.pixels(o), rows = grid_.h.pixels(p), columns = grid_.w.pixels(q);
    const std::int64_t there = (planes.end - planes.begin) * (rows.end - rows.begin) * (columns.end - columns.begin);
    return 1.0f / static_cast<float>(count_padding_ ? grid_.d.size * grid_.h.size * grid_.w.size : there);
  }

  /// One pixel of `to`: the sum over planes x rows x columns of a sample, each times share(plane, row, column).
  template <class Share>
  void sum_pixels(const Sample& of, PixelRange planes, PixelRange rows, PixelRange columns, T* to, bool add,
                  const Share& share) const {
    const auto pixel = [&](std::int64_t k, std::int64_t i, std::int64_t j) {
      return of.data + ((k * of.rows + i) * of.columns + j) * grid_.channels;
    };
    if (planes.end - planes.begin == 1 && rows.end - rows.begin == 1 && columns.end - columns.begin == 1) {
      const T* from = pixel(planes.begin, rows.begin, columns.begin);
      const float factor = share(planes.begin, rows.begin, columns.begin);
      write_elements(to, 0, grid_.channels, add, [=](std::int64_t c) { return to_float(from[c]) * factor; });
      return;
    }
    for (std::int64_t c0 = 0; c0 < grid_.channels; c0 += block_elements) {
      const std::int64_t n = std::min(block_elements, grid_.channels - c0);
      alignas(64) float sums[block_elements];
      std::fill(sums, sums + n, 0.0f);
      for (std::int64_t k = planes.begin; k < planes.end; ++k) {
        for (std::int64_t i = rows.begin; i < rows.end; ++i) {
          for (std::int64_t j = columns.begin; j < columns.end; ++j) {
            const T* from = pixel(k, i, j) + c0;
            const float factor = share(k, i, j);
#pragma omp simd
            for (std::int64_t c = 0; c < n; ++c) sums[c] += to_float(from[c]) * factor;
          }
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
