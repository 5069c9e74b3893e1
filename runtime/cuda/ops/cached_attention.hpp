// Attention over a cache of keys and values: what its kernels are given, and their bodies. Structs of arguments; see
// grid.hpp. Pointers are device memory that the caller owns until the stream was there.
#pragma once

#include "runtime/cuda/ops/attention.hpp"

namespace dtrain::cuda {

struct CachedAttentionPlace {
  std::int64_t samples, positions, heads, kv_heads, size, capacity;
  std::int64_t window;  // 0: none
  float scale;
  HeadRows q, k, v;             // of the new positions
  const std::int32_t* lengths;  // positions of each sequence before these
  float *keys, *values;         // [samples, capacity, kv_heads, size]
  bool turns;
  AttentionFrequencies frequencies;
};

/// Writes keys and values of the new positions into the caches.
void extend_cache(const Launch&, Element, const CachedAttentionPlace&);
/// After that.
void cached_attention(const Launch&, Element, const CachedAttentionPlace&, void* y);

// ---- bodies --------------------------------------------------------------------------------------------------------

/// Channel c of a head of a new position that stands at `at`, turned if `turn`.
template <class T>
DTRAIN_HOST_DEVICE inline float new_channel(const CachedAttentionPlace& p, const HeadRows& from, std::int64_t sample,
                                            std::int64_t position, std::int64_t head, std::int64_t c, std::int64_t at,
                                            bool turn) {
  const T* row = static_cast<const T*>(from.at) + (sample * p.positions + position) * from.row + head * p.size;
  if (!turn) return to_float(row[c]);
  const std::int64_t half = p.size / 2, pair = c < half ? c : c - half;
  const double half_turns = static_cast<double>(at) * p.frequencies.of[pair];
#if defined(__CUDA_ARCH__)
  const auto cosine = static_cast<float>(cospi(half_turns)), sine = static_cast<float>(sinpi(half_turns));
#else
  const auto cosine = static_cast<float>(std::cos(half_turns * std::numbers::pi));
  const auto sine = static_cast<float>(std::sin(half_turns * std::numbers::pi));
#endif
  const float x = to_float(row[pair]), y = to_float(row[pair + half]);
  return c < half ? x * cosine - y * sine : y * cosine + x * sine;
}

template <class T>
struct ExtendCacheBody {
  CachedAttentionPlace p;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const Split by_channel = split(i, p.size), by_head = split(by_channel.quotient, p.kv_heads),
                by_position = split(by_head.quotient, p.positions);
    const std::int64_t sample = by_position.quotient, position = by_position.rest, head = by_head.rest,
                       c = by_channel.rest, at = p.lengths[sample] + position;
    if (at < 0 || at >= p.capacity) return;
    const std::int64_t to = ((sample * p.capacity + at) * p.kv_heads + head) * p.size + c;
    p.keys[to] = new_channel<T>(p, p.k, sample, position, head, c, at, p.turns);
    p.values[to] = new_channel<T>(p, p.v, sample, position, head, c, at, false);
  }
};

/// A block of threads a head of a new position: keys in turns, one a thread, then channels.
template <class T>
struct CachedAttentionBody {
  static constexpr int threads = block_threads;
  static_assert(threads >= largest_head);
  struct Shared {
    GroupShared<threads> group;
    float q[largest_head], weights[threads];
  };
  CachedAttentionPlace p;
  T* y;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& s) const {
    constexpr float nothing = -std::numeric_limits<float>::infinity();
    const Split by_head = split(t.block(), p.heads), by_position = split(by_head.quotient, p.positions);
    const std::int64_t sample = by_position.quotient, position = by_position.rest, head = by_head.rest;
    const std::int64_t at = p.lengths[sample] + position, c = t.index();
    T* const to = y + t.block() * p.size;
    if (at < 0 || at >= p.capacity) {  // all threads alike
      if (c < p.size) to[c] = from_float<T>(0.0f);
      return;
    }
    if (c < p.size) s.q[c] = p.scale * new_channel<T>(p, p.q, sample, position, head, c, at, p.turns);
    t.sync();
    const std::int64_t row = p.kv_heads * p.size;
    const std::int64_t cached = sample * p.capacity * row + head / (p.heads / p.kv_heads) * p.size;
    const std::int64_t first = p.window > 0 && at - p.window + 1 > 0 ? at - p.window + 1 : 0;
    float largest = nothing, sum = 0, out = 0;
    for (std::int64_t key = first; key <= at; key += threads) {
      float score = nothing;
      if (key + c <= at) {
        const float* k = p.keys + cached + (key + c) * row;
        score = 0;
        for (std::int64_t i = 0; i < p.size; ++i) score += s.q[i] * k[i];
      }
      const float tile_largest = group_max<threads>(t, s.group, score);
      const float now = tile_largest > largest ? tile_largest : largest;
      const float weight = score == nothing ? 0.0f : exp_bounded(score - now);
      const float shrink = largest == nothing ? 0.0f : exp_bounded(largest - now);
      s.weights[c] = weight;
      sum = sum * shrink + group_sum<threads>(t, s.group, weight);  // syncs: weights are there
      largest = now;
      if (c < p.size) {
        const std::int64_t count = at - key + 1 < threads ? at - key + 1 : threads;
        const float* v = p.values + cached + key * row + c;
        out *= shrink;
        for (std::int64_t i = 0; i < count; ++i) out += s.weights[i] * v[i * row];
      }
      t.sync();
    }
    if (c < p.size) to[c] = from_float<T>(out / sum);
  }
};

}  // namespace dtrain::cuda
