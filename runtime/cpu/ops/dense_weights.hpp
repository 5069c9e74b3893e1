// What the linear layers of both element types share: the order of a flattened image's columns.
// Free functions on the calling thread with `threads` OpenMP threads; nothing is owned.
#pragma once

#include <cstdint>
#include <memory>

#include "runtime/cpu/parallel.hpp"
#include "runtime/ops/op.hpp"
#include "runtime/tensor/bf16.hpp"

namespace dtrain::cpu {

/// Columns of weights from (channel, pixel) order to the (pixel, channel) order in which a flattened image lies.
template <class T>
void permute_columns(const float* from, T* to, std::int64_t units, std::int64_t channels, std::int64_t pixels,
                     int threads) {
  const std::int64_t features = channels * pixels;
  parallel_chunks(units, 8, threads, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t u = begin; u < end; ++u)
      for (std::int64_t p = 0; p < pixels; ++p)
        for (std::int64_t c = 0; c < channels; ++c)
          to[u * features + p * channels + c] = from_float<T>(from[u * features + c * pixels + p]);
  });
}

/// The way back, for gradients: overwriting, or adding.
inline void unpermute_columns(const float* from, float* to, bool add, std::int64_t units, std::int64_t channels,
                              std::int64_t pixels, int threads) {
  const std::int64_t features = channels * pixels;
  parallel_chunks(units, 8, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t u = begin; u < end; ++u) {
      for (std::int64_t c = 0; c < channels; ++c) {
        float* const row = to + u * features + c * pixels;
        for (std::int64_t p = 0; p < pixels; ++p) {
          const float v = from[u * features + p * channels + c];
          row[p] = add ? row[p] + v : v;
        }
      }
    }
  });
}

std::unique_ptr<Kernel> make_dense_bf16(const Dense&, const TensorDesc& in, int threads);

}  // namespace dtrain::cpu
