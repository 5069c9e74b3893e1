// Max pooling over NHWC memory: channels are the vector, the window's element that won is kept as one byte.
#include <algorithm>

#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/parallel.hpp"
#include "runtime/ops/pool.hpp"

namespace dtrain::cpu {

namespace {

constexpr std::int64_t channel_block = 64;

template <class T>
class MaxPoolKernel final : public Kernel {
 public:
  MaxPoolKernel(const MaxPool& op, const TensorDesc& in, int threads) : grid_(window_grid(op, in)), threads_(threads) {}

  void forward(const OpArgs& a, Stream&) override {
    const T* x = a.in[0].as<T>();
    T* y = a.out[0].as<T>();
    auto* won = a.pass.mode == Mode::train ? a.saved[0].as<std::uint8_t>() : nullptr;
    const std::int64_t c = grid_.channels;
    parallel_chunks(grid_.n * grid_.d.count * grid_.h.count, 4, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t plane = row / grid_.h.count, o = plane % grid_.d.count, p = row % grid_.h.count;
        const T* sample = x + plane / grid_.d.count * grid_.pixels() * c;
        for (std::int64_t q = 0; q < grid_.w.count; ++q) {
          const std::int64_t at = (row * grid_.w.count + q) * c;
          forward_window(sample, o, p, q, y + at, won ? won + at : nullptr);
        }
      }
    });
  }

  /// Pixel by pixel, so that each gradient is rounded and written once however many windows overlap there.
  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    if (!wanted(g.in[0])) return;
    const auto* won = a.saved[0].as<std::uint8_t>();
    const T* gy = g.out[0].as<T>();
    T* gx = g.in[0].grad.as<T>();
    const bool add = g.in[0].write == Write::accumulate;
    parallel_chunks(grid_.n * grid_.d.extent * grid_.h.extent, 4, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) backward_row(won, gy, gx, row, add);
    });
  }

 private:
  /// The place of a pixel in window (o, p, q).
  std::int32_t place(std::int64_t k, std::int64_t i, std::int64_t j, std::int64_t o, std::int64_t p,
                     std::int64_t q) const {
    const Windows &d = grid_.d, &h = grid_.h, &w = grid_.w;
    return static_cast<std::int32_t>(((k - d.start(o)) * h.size + (i - h.start(p))) * w.size + (j - w.start(q)));
  }

  void forward_window(const T* sample, std::int64_t o, std::int64_t p, std::int64_t q, T* y, std::uint8_t* won) const {
    const std::int64_t channels = grid_.channels;
    const PixelRange planes = grid_.d.pixels(o), rows = grid_.h.pixels(p), columns = grid_.w.pixels(q);
    for (std::int64_t c0 = 0; c0 < channels; c0 += channel_block) {
      const std::int64_t n = std::min(channel_block, channels - c0);
      alignas(64) float best[channel_block];
      alignas(64) std::int32_t index[channel_block];
      bool first = true;
      for (std::int64_t k = planes.begin; k < planes.end; ++k) {
        for (std::int64_t i = rows.begin; i < rows.end; ++i) {
          for (std::int64_t j = columns.begin; j < columns.end; ++j) {
            const T* from = sample + ((k * grid_.h.extent + i) * grid_.w.extent + j) * channels + c0;
            const std::int32_t at = place(k, i, j, o, p, q);
            if (first) {
#pragma omp simd
              for (std::int64_t c = 0; c < n; ++c) {
                best[c] = to_float(from[c]);
                index[c] = at;
              }
              first = false;
              continue;
            }
#pragma omp simd
            for (std::int64_t c = 0; c < n; ++c) {
              // NaN wins, as in PyTorch, so that it is not lost on the way to the loss.
              const float v = to_float(from[c]);
              const std::int32_t take = static_cast<std::int32_t>(v > best[c]) | static_cast<std::int32_t>(v != v);
              best[c] = take != 0 ? v : best[c];
              index[c] = take != 0 ? at : index[c];
            }
          }
        }
      }
      write_elements(y + c0, 0, n, false, [&](std::int64_t c) { return best[c]; });
      if (won)
        for (std::int64_t c = 0; c < n; ++c) won[c0 + c] = static_cast<std::uint8_t>(index[c]);
    }
  }

  void backward_row(const std::uint8_t* won, const T* gy, T* gx, std::int64_t row, bool add) const {
    const std::int64_t plane = row / grid_.h.extent, i = row % grid_.h.extent, channels = grid_.channels;
    const std::int64_t sample = plane / grid_.d.extent, k = plane % grid_.d.extent;
    const PixelRange planes = grid_.d.seeing(k), rows = grid_.h.seeing(i);
    for (std::int64_t j = 0; j < grid_.w.extent; ++j) {
      const PixelRange columns = grid_.w.seeing(j);
      T* to = gx + (row * grid_.w.extent + j) * channels;
      const auto window = [&](std::int64_t o, std::int64_t p, std::int64_t q) {
        const std::int64_t at = (((sample * grid_.d.count + o) * grid_.h.count + p) * grid_.w.count + q) * channels;
        return Seen{won + at, gy + at, static_cast<std::uint8_t>(place(k, i, j, o, p, q))};
      };
      if (planes.end - planes.begin == 1 && rows.end - rows.begin == 1 && columns.end - columns.begin == 1) {
        const Seen s = window(planes.begin, rows.begin, columns.begin);
        write_elements(to, 0, channels, add, [=](std::int64_t c) { return s.share(c); });
        continue;
      }
      for (std::int64_t c0 = 0; c0 < channels; c0 += channel_block) {
        const std::int64_t n = std::min(channel_block, channels - c0);
        alignas(64) float sums[channel_block] = {};
        for (std::int64_t o = planes.begin; o < planes.end; ++o) {
          for (std::int64_t p = rows.begin; p < rows.end; ++p) {
            for (std::int64_t q = columns.begin; q < columns.end; ++q) {
              const Seen s = window(o, p, q);
#pragma omp simd
              for (std::int64_t c = 0; c < n; ++c) sums[c] += s.share(c0 + c);
            }
          }
        }
        write_elements(to + c0, 0, n, add, [&](std::int64_t c) { return sums[c]; });
      }
    }
  }

  /// A window as one of its pixels, the k-th, sees it.
  struct Seen {
    const std::uint8_t* won;
    const T* gy;
    std::uint8_t k;
    float share(std::int64_t c) const {
      const float v = to_float(gy[c]);  // read in any case: a read under a condition is no vector code
      return won[c] == k ? v : 0.0f;
    }
  };

  WindowGrid grid_;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make(const MaxPool& op, Inputs in, int threads) {
  return make_for<MaxPoolKernel>(in[0].dtype, op, in[0], threads);
}

}  // namespace dtrain::cpu
