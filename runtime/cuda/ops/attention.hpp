// Attention: what its kernels are given, and their bodies. Structs of arguments; see grid.hpp. Pointers are device
// memory that the caller owns until the stream was there. Simple kernels for any GPU: tiles of queries and keys in
// shared memory, sums in float32 and in one order, no score of a whole row of positions is ever kept.
#pragma once

#include <cmath>
#include <limits>
#include <numbers>

#include "runtime/cuda/vector.hpp"
#include "runtime/ops/activation_math.hpp"
#include "runtime/ops/attention_math.hpp"

namespace dtrain::cuda {

inline constexpr int largest_head = 256;

/// Heads side by side, in rows of `row` elements; `at` is the first element of head 0.
struct HeadRows {
  const void* at;
  std::int64_t row;
};
struct AttentionPlace {
  std::int64_t samples, positions, heads, kv_heads, size;
  float scale;
  HeadRows q, k, v;
  const VisibleRange* ranges;  // [samples, positions]
  const float* turns;          // [positions, size / 2, 2]: cosine and sine; null: no rotary positions
  // Dropout of weights; a threshold of 0 drops none.
  std::uint32_t id, threshold;
  float kept_scale;
  const std::uint64_t* stream_positions;
  const StepState* step;
};
/// In half turns a position: the functions of multiples of pi need no memory of a thread's own to reduce their
/// argument.
struct AttentionFrequencies {
  double of[largest_head / 2];
};
/// Gradients of queries, keys and values: each a slot, whose element 0 is that of head 0, and elements a row.
struct AttentionGradients {
  Slot q, k, v;
  std::int64_t q_row, k_row, v_row;
};

/// `documents`: null, or the first position that each may see.
void attention_ranges(const Launch&, const VisibleRule&, std::int64_t samples, const std::int32_t* documents,
                      VisibleRange* ranges);
void attention_turns(const Launch&, const AttentionFrequencies&, std::int64_t positions, std::int64_t half,
                     float* turns);
/// `log_sums`: [samples, heads, positions], as libraries have them; null keeps none.
void attention(const Launch&, Element, const AttentionPlace&, void* y, float* log_sums);
/// `shared`: as large as log_sums. The gradient of the queries may lie over gy.
void attention_gradient(const Launch&, Element, const AttentionPlace&, const void* y, const void* gy,
                        const float* log_sums, float* shared, const AttentionGradients&);
/// Rows of heads to a slot with rows of `row` elements, turned by their positions (where there are turns) or back.
void attention_rows(const Launch&, Element, const AttentionPlace&, std::int64_t heads, const HeadRows& from, bool back,
                    const Slot& to, std::int64_t row);

// ---- bodies --------------------------------------------------------------------------------------------------------

struct AttentionRangesBody {
  VisibleRule rule;
  const std::int32_t* documents;
  VisibleRange* ranges;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const Split at = split(i, rule.positions);
    ranges[i] = rule.of(documents == nullptr ? nullptr : documents + at.quotient * rule.positions, at.rest);
  }
};

struct AttentionTurnsBody {
  AttentionFrequencies frequencies;
  std::int64_t half;
  float* turns;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const Split at = split(i, half);
    const double half_turns = static_cast<double>(at.quotient) * frequencies.of[at.rest];
#if defined(__CUDA_ARCH__)
    turns[2 * i] = static_cast<float>(cospi(half_turns));
    turns[2 * i + 1] = static_cast<float>(sinpi(half_turns));
#else
    turns[2 * i] = static_cast<float>(std::cos(half_turns * std::numbers::pi));
    turns[2 * i + 1] = static_cast<float>(std::sin(half_turns * std::numbers::pi));
#endif
  }
};

/// Channel c of a row after (or, back, before) its turn; value(c) is that of the row.
template <class Value>
DTRAIN_HOST_DEVICE inline float turned(const AttentionPlace& p, std::int64_t position, std::int64_t c, bool back,
                                       const Value& value) {
  if (p.turns == nullptr) return value(c);
  const std::int64_t half = p.size / 2, pair = c < half ? c : c - half;
  const float* turn = p.turns + 2 * (position * half + pair);
  const float x = value(pair), y = value(pair + half), sine = back ? -turn[1] : turn[1];
  return c < half ? x * turn[0] - y * sine : y * turn[0] + x * sine;
}

template <class T>
struct AttentionRowsBody {
  AttentionPlace p;
  std::int64_t heads;
  HeadRows from;
  bool back;
  Slot to;
  std::int64_t row;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const Split by_channel = split(i, p.size), by_head = split(by_channel.quotient, heads);
    const std::int64_t head = by_head.rest * p.size;
    const T* channels = static_cast<const T*>(from.at) + by_head.quotient * from.row + head;
    const auto value = [channels](std::int64_t c) { return to_float(channels[c]); };
    const float v = turned(p, by_head.quotient % p.positions, by_channel.rest, back, value);
    write_slot<1, T>(to, by_head.quotient * row + head + by_channel.rest, Floats<1>{{v}});
  }
};

/// What a block of threads does for a head of a sample with tiles of `tile` rows: each thread has the columns
/// `column` + lanes * j of row `row` of a tile, few enough for registers.
template <class T, int tile_rows>
struct AttentionBlock {
  static constexpr int tile = tile_rows, lanes = 16, threads = lanes * tile, columns = largest_head / lanes;
  using Tile = float[tile][largest_head + 1];
  using Scores = float[tile][tile + 1];
  AttentionPlace p;

  struct Place {
    std::int64_t sample, head, first;
    int row, column;
  };
  /// Blocks are numbered tile by tile, then head by head.
  template <class Thread>
  DTRAIN_HOST_DEVICE Place place(Thread& t, std::int64_t heads) const {
    const Split by_tile = split(t.block(), (p.positions + tile - 1) / tile), by_head = split(by_tile.quotient, heads);
    const int index = static_cast<int>(t.index());
    return {by_head.quotient, by_head.rest, by_tile.rest * tile, index / lanes, index % lanes};
  }
  DTRAIN_HOST_DEVICE std::int64_t rows_from(std::int64_t first) const {
    return p.positions - first < tile ? p.positions - first : tile;
  }
  DTRAIN_HOST_DEVICE const VisibleRange* ranges_of(std::int64_t sample) const {
    return p.ranges + sample * p.positions;
  }

  /// Rows of a head from position `first` on; zeros behind the last.
  template <class Thread>
  DTRAIN_HOST_DEVICE void load(Thread& t, const HeadRows& from, std::int64_t sample, std::int64_t head,
                               std::int64_t first, float scale, bool turn, Tile& to) const {
    const T* rows = static_cast<const T*>(from.at) + sample * p.positions * from.row + head * p.size;
    for (std::int64_t e = t.index(); e < tile * p.size; e += threads) {
      const Split at = split(e, p.size);
      const std::int64_t position = first + at.quotient;
      float v = 0;
      if (position < p.positions) {
        const T* row = rows + position * from.row;
        const auto value = [row](std::int64_t c) { return to_float(row[c]); };
        v = scale * (turn ? turned(p, position, at.rest, false, value) : value(at.rest));
      }
      to[at.quotient][at.rest] = v;
    }
  }
  DTRAIN_HOST_DEVICE float dot(const float* a, const float* b) const {
    float sum = 0;
    for (std::int64_t c = 0; c < p.size; ++c) sum += a[c] * b[c];
    return sum;
  }
  /// 0 or 1 / (1 - rate).
  DTRAIN_HOST_DEVICE float kept(std::int64_t sample, std::int64_t head, std::int64_t query, std::int64_t key) const {
    if (p.threshold == 0) return 1;
    const Random4 r = draw4(random_key(p.step->seed, Purpose::dropout), p.stream_positions[sample],
                            WeightDraws::sub(p.id, head), WeightDraws{p.positions}.block(query, key));
    const std::uint32_t draw = key % 4 == 0 ? r.v[0] : key % 4 == 1 ? r.v[1] : key % 4 == 2 ? r.v[2] : r.v[3];
    return (draw >> 8) >= p.threshold ? p.kept_scale : 0.0f;
  }
  /// The thread's columns of row `row` of a tile, to a slot: turned back if `turn`.
  DTRAIN_HOST_DEVICE void store(const Slot& slot, std::int64_t row_elements, const Place& at, std::int64_t first,
                                float scale, bool turn, const Tile& from) const {
    const std::int64_t position = first + at.row;
    if (position >= p.positions) return;
    const float* row = from[at.row];
    const auto value = [row](std::int64_t c) { return row[c]; };
    for (std::int64_t c = at.column; c < p.size; c += lanes) {
      const float v = turn ? turned(p, position, c, true, value) : value(c);
      write_slot<1, T>(slot, (at.sample * p.positions + position) * row_elements + at.head * p.size + c,
                       Floats<1>{{v * scale}});
    }
  }
};

template <class T>
struct AttentionBody : AttentionBlock<T, 16> {
  using Base = AttentionBlock<T, 16>;
  using Base::columns, Base::lanes, Base::p, Base::threads, Base::tile;
  struct Shared {
    typename Base::Tile q, kv;
    typename Base::Scores scores;
    float largest[tile], sum[tile], shrink[tile];
  };
  T* y;
  float* log_sums;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& s) const {
    constexpr float nothing = -std::numeric_limits<float>::infinity();
    const auto at = this->place(t, p.heads);
    const std::int64_t kv_head = at.head / (p.heads / p.kv_heads), rows = this->rows_from(at.first);
    const VisibleRange* ranges = this->ranges_of(at.sample) + at.first;
    float out[columns];
    for (int j = 0; j < columns; ++j) out[j] = 0;
    if (t.index() < tile) s.largest[t.index()] = nothing, s.sum[t.index()] = 0;
    this->load(t, p.q, at.sample, at.head, at.first, p.scale, true, s.q);
    for (std::int64_t key = ranges[0].begin / tile * tile; key < ranges[rows - 1].end; key += tile) {
      t.sync();
      this->load(t, p.k, at.sample, kv_head, key, 1, true, s.kv);
      t.sync();
      for (int e = static_cast<int>(t.index()); e < tile * tile; e += threads) {
        const int row = e / tile, column = e % tile;
        const bool seen = row < rows && key + column >= ranges[row].begin && key + column < ranges[row].end;
        s.scores[row][column] = seen ? this->dot(s.q[row], s.kv[column]) : nothing;
      }
      t.sync();
      if (t.index() < tile) softmax(s, at, static_cast<int>(t.index()), key);
      this->load(t, p.v, at.sample, kv_head, key, 1, false, s.kv);
      t.sync();
      for (int j = 0; j < columns; ++j) {
        const std::int64_t c = at.column + lanes * j;
        if (c >= p.size) break;
        float sum = out[j] * s.shrink[at.row];
        for (int i = 0; i < tile; ++i) sum += s.scores[at.row][i] * s.kv[i][c];
        out[j] = sum;
      }
    }
    t.sync();
    if (at.row >= rows) return;
    const std::int64_t row = (at.sample * p.positions + at.first + at.row) * p.heads + at.head;
    for (int j = 0; j < columns; ++j) {
      const std::int64_t c = at.column + lanes * j;
      if (c < p.size) y[row * p.size + c] = from_float<T>(out[j] / s.sum[at.row]);
    }
    if (log_sums != nullptr && at.column == 0)
      log_sums[(at.sample * p.heads + at.head) * p.positions + at.first + at.row] =
          s.largest[at.row] + std::log(s.sum[at.row]);
  }

  /// The scores of a row to weights, and how much what was summed before shrinks.
  template <class Place>
  DTRAIN_HOST_DEVICE void softmax(Shared& s, const Place& at, int row, std::int64_t key) const {
    constexpr float nothing = -std::numeric_limits<float>::infinity();
    float largest = s.largest[row], sum = 0;
    for (int i = 0; i < tile; ++i) largest = s.scores[row][i] > largest ? s.scores[row][i] : largest;
    for (int i = 0; i < tile; ++i) {
      float& score = s.scores[row][i];
      const float weight = score == nothing ? 0.0f : exp_bounded(score - largest);
      sum += weight;
      score = weight == 0.0f ? weight : weight * this->kept(at.sample, at.head, at.first + row, key + i);
    }
    s.shrink[row] = largest > s.largest[row] ? exp_bounded(s.largest[row] - largest) : 1.0f;
    s.sum[row] = s.sum[row] * s.shrink[row] + sum;
    s.largest[row] = largest;
  }
};

/// The product of the output with its gradient: what all scores of a row share in their gradients.
template <class T>
struct AttentionSharedBody {
  std::int64_t size;
  const T *y, *gy;
  float* shared;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    float sum = 0;
    for (std::int64_t c = i * size; c < (i + 1) * size; ++c) sum += to_float(y[c]) * to_float(gy[c]);
    shared[i] = sum;
  }
};

/// What both kernels of gradients share: weights, and gradients of scores, of a tile of queries and one of keys.
template <class T>
struct AttentionGradientBlock : AttentionBlock<T, 8> {
  using Base = AttentionBlock<T, 8>;
  using Base::p, Base::tile;
  struct Shared {
    typename Base::Tile q, gy, k, v;
    typename Base::Scores weights, slopes;  // [query, key]
  };
  HeadRows gy;
  const float *log_sums, *shared;
  AttentionGradients to;

  template <class Thread>
  DTRAIN_HOST_DEVICE void slopes(Thread& t, Shared& s, std::int64_t sample, std::int64_t head, std::int64_t query,
                                 std::int64_t key) const {
    if (t.index() >= tile * tile) return;
    const int row = static_cast<int>(t.index()) / tile, column = static_cast<int>(t.index()) % tile;
    const std::int64_t i = query + row, k = key + column;
    float weight = 0, slope = 0;
    if (i < p.positions) {
      const VisibleRange range = this->ranges_of(sample)[i];
      if (k >= range.begin && k < range.end) {
        const std::int64_t at = (sample * p.positions + i) * p.heads + head;
        const float log_sum = log_sums[(sample * p.heads + head) * p.positions + i];
        weight = exp_bounded(this->dot(s.q[row], s.k[column]) - log_sum);
        const float kept = this->kept(sample, head, i, k);
        slope = weight * (this->dot(s.gy[row], s.v[column]) * kept - shared[at]);
        weight *= kept;
      }
    }
    s.weights[row][column] = weight;
    s.slopes[row][column] = slope;
  }
};

template <class T>
struct AttentionQueriesGradientBody : AttentionGradientBlock<T> {
  using Base = AttentionGradientBlock<T>;
  using Base::columns, Base::lanes, Base::p, Base::tile;
  using typename Base::Shared;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& s) const {
    const auto at = this->place(t, p.heads);
    const std::int64_t kv_head = at.head / (p.heads / p.kv_heads), rows = this->rows_from(at.first);
    const VisibleRange* ranges = this->ranges_of(at.sample) + at.first;
    float sums[columns];
    for (int j = 0; j < columns; ++j) sums[j] = 0;
    this->load(t, p.q, at.sample, at.head, at.first, p.scale, true, s.q);
    this->load(t, this->gy, at.sample, at.head, at.first, 1, false, s.gy);
    for (std::int64_t key = ranges[0].begin / tile * tile; key < ranges[rows - 1].end; key += tile) {
      t.sync();
      this->load(t, p.k, at.sample, kv_head, key, 1, true, s.k);
      this->load(t, p.v, at.sample, kv_head, key, 1, false, s.v);
      t.sync();
      this->slopes(t, s, at.sample, at.head, at.first, key);
      t.sync();
      for (int j = 0; j < columns; ++j) {
        const std::int64_t c = at.column + lanes * j;
        if (c >= p.size) break;
        for (int i = 0; i < tile; ++i) sums[j] += s.slopes[at.row][i] * s.k[i][c];
      }
    }
    t.sync();
    for (int j = 0; j < columns; ++j)
      if (at.column + lanes * j < p.size) s.q[at.row][at.column + lanes * j] = sums[j];
    t.sync();
    this->store(this->to.q, this->to.q_row, at, at.first, p.scale, true, s.q);
  }
};

template <class T>
struct AttentionKeysGradientBody : AttentionGradientBlock<T> {
  using Base = AttentionGradientBlock<T>;
  using Base::columns, Base::lanes, Base::p, Base::tile;
  using typename Base::Shared;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& s) const {
    const auto at = this->place(t, p.kv_heads);
    const std::int64_t heads = p.heads / p.kv_heads;
    const VisibleRange* ranges = this->ranges_of(at.sample);
    float of_keys[columns], of_values[columns];
    for (int j = 0; j < columns; ++j) of_keys[j] = of_values[j] = 0;
    this->load(t, p.k, at.sample, at.head, at.first, 1, true, s.k);
    this->load(t, p.v, at.sample, at.head, at.first, 1, false, s.v);
    for (std::int64_t head = at.head * heads; head < (at.head + 1) * heads; ++head) {
      for (std::int64_t query = 0; query < p.positions; query += tile) {
        const std::int64_t last = query + this->rows_from(query) - 1;
        if (ranges[last].end <= at.first || ranges[query].begin >= at.first + tile) continue;
        t.sync();
        this->load(t, p.q, at.sample, head, query, p.scale, true, s.q);
        this->load(t, this->gy, at.sample, head, query, 1, false, s.gy);
        t.sync();
        this->slopes(t, s, at.sample, head, query, at.first);
        t.sync();
        for (int j = 0; j < columns; ++j) {
          const std::int64_t c = at.column + lanes * j;
          if (c >= p.size) break;
          for (int i = 0; i < tile; ++i) {
            of_keys[j] += s.slopes[i][at.row] * s.q[i][c];
            of_values[j] += s.weights[i][at.row] * s.gy[i][c];
          }
        }
      }
    }
    t.sync();
    for (int j = 0; j < columns; ++j) {
      const std::int64_t c = at.column + lanes * j;
      if (c >= p.size) break;
      s.k[at.row][c] = of_keys[j];
      s.v[at.row][c] = of_values[j];
    }
    t.sync();
    this->store(this->to.k, this->to.k_row, at, at.first, 1, true, s.k);
    this->store(this->to.v, this->to.v_row, at, at.first, 1, false, s.v);
  }
};

}  // namespace dtrain::cuda
