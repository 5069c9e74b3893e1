// Means over windows in NHWC memory: channels are the vector.
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/ops/box_sums.hpp"
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
    if (!wanted(g.in[0])) return;
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
    sum_box(planes, rows, columns, grid_.channels, to, add, [&](std::int64_t k, std::int64_t i, std::int64_t j) {
      return [from = of.data + ((k * of.rows + i) * of.columns + j) * grid_.channels,
              factor = share(k, i, j)](std::int64_t c) { return to_float(from[c]) * factor; };
    });
  }

  WindowGrid grid_;
  bool count_padding_;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make(const AveragePool& op, Inputs in, int threads) {
  return make_for<AveragePoolKernel>(in[0].dtype, op, in[0], threads);
}

}  // namespace dtrain::cpu
