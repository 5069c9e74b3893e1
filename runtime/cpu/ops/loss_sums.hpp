// Sums of a loss over rows, positions of samples, in parts whose order does not depend on threads, added to those of
// the step's earlier micro batches. A plain value that a kernel keeps; it runs on the calling thread with OpenMP
// threads.
#pragma once

#include "runtime/cpu/parallel.hpp"
#include "runtime/ops/kernel.hpp"
#include "runtime/ops/loss_rows.hpp"

namespace dtrain::cpu {

struct LossSums {
  std::int64_t rows, width;  // values a row
  std::int64_t weighted;     // weights there are: a sample's or a row's
  int threads;
  LossSums(const TensorDesc& value, const TensorDesc& weight, int with_threads)
      : rows(value.rows()), width(value.channels()), weighted(weight.elements()), threads(with_threads) {}

  RowWeights weights(const OpArgs& a) const { return {a.in[2].as<const float>(), rows / weighted}; }

  /// f(row) is what the row gives.
  template <class F>
  void forward(const OpArgs& a, const F& f) const {
    const std::int64_t parts = loss_parts(rows);
    auto* sums = a.workspace.as<RowLoss>();
    parallel_rows(parts, width * (rows / parts), task, threads, [&](std::int64_t p) {
      if (parts == rows) {
        sums[p] = f(p);
        return;
      }
      sums[p] = {};
      for (std::int64_t row = p * rows / parts; row < (p + 1) * rows / parts; ++row) sums[p].add(f(row));
    });
    RowLoss all;
    for (std::int64_t p = 0; p < parts; ++p) all.add(sums[p]);
    const float values[loss_sum_count] = {static_cast<float>(all.loss), static_cast<float>(all.weight),
                                          static_cast<float>(all.correct), static_cast<float>(all.top5),
                                          static_cast<float>(all.positions)};
    float* out = a.out[0].as<float>();
    for (int i = 0; i < loss_sum_count; ++i) out[i] = a.pass.first ? values[i] : out[i] + values[i];
  }
  template <class F>
  void each_row(const F& f) const {
    parallel_rows(rows, width, task, threads, f);
  }

 private:
  static constexpr std::int64_t task = 32 * 1024;  // elements that are worth a thread
};

}  // namespace dtrain::cpu
