// Embedding: what its kernels are given, and their bodies. Structs of arguments; see grid.hpp.
// Pointers are device memory that the caller owns until the stream was there.
#pragma once

#include <cmath>

#include "runtime/cuda/vector.hpp"

namespace dtrain::cuda {

struct EmbeddingPlace {
  std::int64_t positions, vocabulary, channels;
  const void* indices;
  int index_bytes;  // 1 and 2: unsigned; 4: signed
};
void embedding(const Launch&, Element, const EmbeddingPlace&, const float* weight, void* y);
/// Rows of equal indices are added in the order of the positions; all rows are written.
void embedding_gradient(const Launch&, Element, const EmbeddingPlace&, const void* gy, Slot weight);

DTRAIN_HOST_DEVICE inline std::int64_t index_at(const EmbeddingPlace& p, std::int64_t i) {
  if (p.index_bytes == 1) return static_cast<const std::uint8_t*>(p.indices)[i];
  if (p.index_bytes == 2) return static_cast<const std::uint16_t*>(p.indices)[i];
  return static_cast<const std::int32_t*>(p.indices)[i];
}

template <class T, int width>
struct EmbeddingBody {
  EmbeddingPlace place;
  const float* weight;
  T* y;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const Split at = split(i, place.channels / width);
    const std::int64_t row = index_at(place, at.quotient);
    const bool known = row >= 0 && row < place.vocabulary;
    Floats<width> v = load_floats<width>(weight + (known ? row : 0) * place.channels + at.rest * width);
    for (int j = 0; j < width; ++j) v.v[j] = known ? v.v[j] : NAN;
    store_floats<width>(y + i * width, v);
  }
};

/// A warp a row of the vocabulary and `width` x 32 channels at a time: it looks for its row among all positions, of
/// which a block reads `chunk` at a time.
template <class T, int width>
struct EmbeddingGradientBody {
  static constexpr int threads = block_threads, rows = threads / static_cast<int>(warp_size), chunk = 1024;
  struct Shared {
    std::int32_t index[chunk];
  };
  EmbeddingPlace place;
  const T* gy;
  Slot weight;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& shared) const {
    const std::int64_t row = t.block() * rows + t.index() / warp_size, n = place.channels;
    const std::int64_t lane = (t.index() % warp_size) * width;
    for (std::int64_t first = 0; first < n; first += warp_size * width) {
      const std::int64_t channel = first + lane;
      Floats<width> sum{};
      for (std::int64_t begin = 0; begin < place.positions; begin += chunk) {
        const std::int64_t rest = place.positions - begin, count = rest < chunk ? rest : chunk;
        t.sync();
        for (std::int64_t i = t.index(); i < count; i += threads)
          shared.index[i] = static_cast<std::int32_t>(index_at(place, begin + i));
        t.sync();
        if (channel >= n) continue;
        for (std::int64_t i = 0; i < count; ++i) {
          if (shared.index[i] != row) continue;
          const Floats<width> g = load_floats<width>(gy + (begin + i) * n + channel);
          for (int j = 0; j < width; ++j) sum.v[j] += g.v[j];
        }
      }
      if (channel < n && row < place.vocabulary) write_slot<width, float>(weight, row * n + channel, sum);
    }
  }
};

}  // namespace dtrain::cuda
