#include "runtime/cpu/muon.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "runtime/cpu/kernels.hpp"
#include "runtime/cpu/onednn.hpp"
#include "runtime/cpu/parallel.hpp"
#include "runtime/optim/matrices.hpp"
#include "runtime/optim/update_math.hpp"
#include "runtime/tensor/bf16.hpp"

namespace dtrain::cpu {

namespace {

constexpr auto block = static_cast<std::int64_t>(norm_block);
constexpr std::int64_t grain = 64 * block;

/// One matrix [rows, columns] on its way.
class Orthogonal {
 public:
  Orthogonal(const Muon& rule, std::int64_t rows, std::int64_t columns, void* scratch, int threads)
      : rule_(rule),
        rows_(rows),
        columns_(columns),
        side_(std::min(rows, columns)),
        wide_(rows <= columns),
        threads_(threads) {
    const MatrixPlaces at(rows, columns);
    const auto place = [scratch](std::size_t bytes) {
      return reinterpret_cast<float*>(static_cast<std::byte*>(scratch) + bytes);
    };
    x_ = place(at.x[0]);
    other_ = place(at.x[1]);
    gram_ = place(at.gram);
    square_ = place(at.square);
  }

  /// Moves the moments, and leaves the direction with a norm of 1.
  void direction(const StepState& step, const float* __restrict g, float* __restrict m, double* norms) {
    const MuonDirection by(rule_, step);
    const std::int64_t n = rows_ * columns_;
    float* __restrict x = x_;
    parallel_chunks(n, block, threads_, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) x[i] = by(g[i], m[i]);
      norms[begin / block] = sum_squares(x + begin, static_cast<std::size_t>(end - begin));
    });
    double squares = 0;
    for (std::int64_t b = 0; b < (n + block - 1) / block; ++b) squares += norms[b];
    const float factor = muon_norm_factor(rule_, std::sqrt(squares));
    parallel_chunks(n, grain, threads_, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) x[i] *= factor;
    });
    round(x_, n);
  }

  /// What newton_schulz makes of it.
  const float* steps() {
    const OmpThreads scope(threads_);
    for (int i = 0; i < newton_schulz::steps; ++i) {
      if (wide_) {
        sgemm('N', 'T', side_, side_, columns_, x_, columns_, x_, columns_, 0.0f, gram_, side_);
      } else {
        sgemm('T', 'N', side_, side_, rows_, x_, columns_, x_, columns_, 0.0f, gram_, side_);
      }
      round(gram_, side_ * side_);
      sgemm('N', 'N', side_, side_, side_, gram_, side_, gram_, side_, 0.0f, square_, side_);
      round(square_, side_ * side_);
      make_factor();
      if (wide_) {
        sgemm('N', 'N', rows_, columns_, side_, square_, side_, x_, columns_, 0.0f, other_, columns_);
      } else {
        sgemm('N', 'N', rows_, columns_, side_, x_, columns_, square_, side_, 0.0f, other_, columns_);
      }
      std::swap(x_, other_);
      round(x_, rows_ * columns_);
    }
    return x_;
  }

 private:
  /// a I + b g + c g g, in place of the square.
  void make_factor() {
    const float* __restrict gram = gram_;
    float* __restrict square = square_;
    parallel_rows(side_, side_, grain, threads_, [=, side = side_](std::int64_t row) {
      const float* __restrict g = gram + row * side;
      float* __restrict s = square + row * side;
      const float at = newton_schulz_factor(true, g[row], s[row]);
      for (std::int64_t i = 0; i < side; ++i) s[i] = newton_schulz_factor(false, g[i], s[i]);
      s[row] = at;
    });
    round(square_, side_ * side_);
  }

  void round(float* values, std::int64_t n) const {
    if (rule_.products == Muon::Products::float32) return;
    parallel_chunks(n, grain, threads_, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) values[i] = to_float(to_bf16(values[i]));
    });
  }

  const Muon& rule_;
  std::int64_t rows_, columns_, side_;
  bool wide_;
  int threads_;
  float *x_, *other_, *gram_, *square_;
};

}  // namespace

void update_matrices(const Muon& rule, const StepState& step, double decay, const MuonParameter& p, void* scratch,
                     double* norms, int threads) {
  const std::int64_t columns = p.param.shape.elements() / p.param.shape[0];
  std::int64_t at = 0;
  for (const std::int64_t rows : p.param.matrices) {
    Orthogonal matrix(rule, rows, columns, scratch, threads);
    matrix.direction(step, p.g + at, p.m + at, norms);
    const float* __restrict x = matrix.steps();
    float* __restrict w = p.w + at;
    const MuonStep along(rule, step, decay, rows, columns);
    parallel_chunks(rows * columns, grain, threads, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) along(x[i], w[i]);
    });
    at += rows * columns;
  }
}

}  // namespace dtrain::cpu
