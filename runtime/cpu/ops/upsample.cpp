// Upsampling over channels-last memory: channels are the vector. What a pixel of the output reads along each axis is
// worked out at preparation; backward gathers, so that each gradient is rounded and written once.
#include <algorithm>
#include <array>
#include <vector>

#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/parallel.hpp"
#include "runtime/ops/inference.hpp"

namespace dtrain::cpu {

namespace {

struct Tap {
  std::int64_t at;  // a pixel of the other side
  float weight;
};
/// One axis: what each pixel of the output reads, and what each pixel of the input is read by, in rising order.
struct Axis {
  std::vector<std::vector<Tap>> reads, readers;

  Axis(std::int64_t extent, std::int64_t factor, bool linear)
      : reads(static_cast<std::size_t>(extent * factor)), readers(static_cast<std::size_t>(extent)) {
    const auto last = static_cast<double>(extent - 1);
    for (std::int64_t i = 0; i < extent * factor; ++i) {
      const double centre = (static_cast<double>(i) + 0.5) / static_cast<double>(factor) - 0.5;
      const double place = std::clamp(centre, 0.0, last);
      const auto first = linear ? static_cast<std::int64_t>(place) : i / factor;
      const auto behind = linear ? static_cast<float>(place - static_cast<double>(first)) : 0.0f;
      link(i, first, 1.0f - behind);
      if (behind > 0.0f) link(i, first + 1, behind);
    }
  }
  void link(std::int64_t out, std::int64_t in, float weight) {
    reads[static_cast<std::size_t>(out)].push_back({in, weight});
    readers[static_cast<std::size_t>(in)].push_back({out, weight});
  }
};

template <class T>
class UpsampleKernel final : public Kernel {
 public:
  UpsampleKernel(const Upsample& op, const TensorDesc& in, int threads)
      : n_(in.batch()), channels_(in.channels()), threads_(threads) {
    const Extents positions = inference::positions_of(in);
    for (std::size_t d = positions.size(); d < axes; ++d) axes_.emplace_back(1, 1, false);
    for (std::size_t d = 0; d < positions.size(); ++d)
      axes_.emplace_back(positions[d], op.factor[d], op.mode == Upsample::Mode::linear);
  }

  void forward(const OpArgs& a, Stream&) override {
    gather(
        a.in[0].as<T>(), a.out[0].as<T>(), false, [](const Axis& axis) -> const auto& { return axis.reads; },
        [](const Axis& axis) { return axis.readers.size(); });
  }

  void backward(const OpArgs&, const OpGrads& g, Stream&) override {
    if (!wanted(g.in[0])) return;
    gather(
        g.out[0].as<T>(), g.in[0].grad.as<T>(), g.in[0].write == Write::accumulate,
        [](const Axis& axis) -> const auto& { return axis.readers; },
        [](const Axis& axis) { return axis.reads.size(); });
  }

 private:
  static constexpr std::size_t axes = 3;

  /// Each pixel of `to` is the weighted sum of its taps: those of `taps_of` each axis, which has `extent_of` pixels.
  template <class TapsOf, class ExtentOf>
  void gather(const T* from, T* to, bool add, const TapsOf& taps_of, const ExtentOf& extent_of) const {
    const auto &planes = taps_of(axes_[0]), &rows = taps_of(axes_[1]), &columns = taps_of(axes_[2]);
    std::array<std::int64_t, axes> extents{};
    for (std::size_t d = 0; d < axes; ++d) extents.at(d) = static_cast<std::int64_t>(extent_of(axes_[d]));
    const auto lines = static_cast<std::int64_t>(planes.size() * rows.size());
    parallel_chunks(n_ * lines, 4, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t line = begin; line < end; ++line) {
        const T* sample = from + line / lines * extents[0] * extents[1] * extents[2] * channels_;
        const auto in_sample = static_cast<std::size_t>(line % lines);
        const auto &plane = planes[in_sample / rows.size()], &row = rows[in_sample % rows.size()];
        for (std::size_t j = 0; j < columns.size(); ++j)
          sum_taps(sample, extents, plane, row, columns[j],
                   to + (line * static_cast<std::int64_t>(columns.size()) + static_cast<std::int64_t>(j)) * channels_,
                   add);
      }
    });
  }

  using Taps = std::vector<Tap>;
  void sum_taps(const T* sample, const std::array<std::int64_t, axes>& extents, const Taps& planes, const Taps& rows,
                const Taps& columns, T* to, bool add) const {
    for (std::int64_t c0 = 0; c0 < channels_; c0 += block_elements) {
      const std::int64_t n = std::min(block_elements, channels_ - c0);
      alignas(64) float sums[block_elements];
      std::fill(sums, sums + n, 0.0f);
      for (const Tap& p : planes) {
        for (const Tap& r : rows) {
          for (const Tap& c : columns) {
            const T* pixel = sample + ((p.at * extents[1] + r.at) * extents[2] + c.at) * channels_ + c0;
            const float weight = p.weight * r.weight * c.weight;
#pragma omp simd
            for (std::int64_t i = 0; i < n; ++i) sums[i] += to_float(pixel[i]) * weight;
          }
        }
      }
      write_elements(to + c0, 0, n, add, [&](std::int64_t i) { return sums[i]; });
    }
  }

  std::int64_t n_, channels_;
  std::vector<Axis> axes_;  // planes, rows, columns; those that are missing have one pixel
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make(const Upsample& op, Inputs in, int threads) {
  return make_for<UpsampleKernel>(in[0].dtype, op, in[0], threads);
}

}  // namespace dtrain::cpu
