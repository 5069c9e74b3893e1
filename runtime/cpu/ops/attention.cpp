// Attention over blocks of queries and keys that lie in the caches; no score of a whole row of positions is ever kept.
// A thread has a sample's key and value head with all query heads that read it, so that sums have one order. In
// float32, whatever the values are.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/ops/keep_mask.hpp"
#include "runtime/cpu/ops/row_sums.hpp"
#include "runtime/cpu/ops/tile_products.hpp"
#include "runtime/cpu/parallel.hpp"
#include "runtime/ops/attention_math.hpp"

namespace dtrain::cpu {

namespace {

constexpr std::int64_t panel = AttentionLayout::panel, query_block = AttentionLayout::query_block,
                       query_group = AttentionLayout::query_group, key_block = AttentionLayout::key_block;
static_assert(panel == panel_columns && key_block % panel == 0 && query_group % query_block == 0);
/// Where a block is cut by what its positions see, rows go in groups of so many, each over its own range.
constexpr std::int64_t few_rows = 12, few_keys = 24;

std::int64_t whole_panels(std::int64_t n) {
  return (n + panel - 1) / panel * panel;
}

float largest_of(const float* x, std::int64_t begin, std::int64_t end) {
  float largest = x[begin];
#pragma omp simd reduction(max : largest)
  for (std::int64_t i = begin; i < end; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

/// Columns [begin, end) of a block.
struct Columns {
  std::int64_t begin, end;
  std::int64_t count() const { return end - begin; }
};

/// Queries of a head: at most query_group of them.
struct Queries {
  std::int64_t sample, head, first, rows;
};

/// A block of them, and what it takes of a block of keys.
struct Block {
  std::int64_t sample, head, first, rows;  // queries
  std::int64_t key, keys;                  // keys
  bool whole;                              // each query sees each key
};

/// Memory of a thread, in floats.
struct Scratch {
  float *keys_across, *values_across;            // panels [size][16]
  float *keys, *values, *key_sums, *value_sums;  // [positions, padded]; forward: values; backward: all but values
  float *q, *out, *sums;                         // [query_group, padded]
  float *scores, *slopes;                        // [query_block, key_block]
  float *row_max, *row_sum;                      // [query_group]

  /// With what queries have from this one on.
  Scratch from(std::int64_t query, std::int64_t padded) const {
    Scratch s = *this;
    for (float** rows : {&s.q, &s.out, &s.sums}) *rows += query * padded;
    for (float** row : {&s.row_max, &s.row_sum}) *row += query;
    return s;
  }
};

template <class T>
class AttentionKernel final : public Kernel {
 public:
  AttentionKernel(const Attention& op, Inputs in, int threads)
      : op_(op),
        at_(op, in),
        rule_{at_.positions, op.causal, op.window},
        padded_(at_.padded_size()),
        heads_a_task_(at_.heads / at_.kv_heads),
        tasks_(at_.samples * at_.kv_heads),
        threads_(threads),
        threshold_(drop_threshold(op.dropout)),
        kept_scale_(static_cast<float>(1.0 / (1.0 - op.dropout))) {
    if (!op.rotary) return;
    for (std::int64_t i = 0; i < at_.positions; ++i) {
      for (const double frequency : op.rotary->frequencies(at_.size)) {
        cosines_.push_back(static_cast<float>(std::cos(static_cast<double>(i) * frequency)));
        sines_.push_back(static_cast<float>(std::sin(static_cast<double>(i) * frequency)));
      }
    }
  }

  Needs needs() const override {
    const std::int64_t floats = slots() * at_.thread_floats() + 2 * at_.samples * at_.positions;
    return {static_cast<std::size_t>(floats) * sizeof(float), 0};
  }

  void forward(const OpArgs& a, Stream&) override {
    find_ranges(a);
    each_task(a, [&](std::int64_t sample, std::int64_t kv_head, const Scratch& s) {
      const T *keys = part(a, 1, sample, kv_head), *values = part(a, 2, sample, kv_head);
      load_across(keys, at_.parts[1].row, true, s.keys_across, nullptr);
      load(values, at_.parts[2].row, 0, at_.positions, 1, false, s.values);
      each_queries(sample, kv_head, [&](const Queries& queries) { forward_of(a, queries, s); });
    });
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    if (!wanted(g.in, 0) && !wanted(g.in, at_.parts[1].input) && !wanted(g.in, at_.parts[2].input)) return;
    find_ranges(a);
    each_task(a, [&](std::int64_t sample, std::int64_t kv_head, const Scratch& s) {
      load_across(part(a, 1, sample, kv_head), at_.parts[1].row, true, s.keys_across, s.keys);
      load_across(part(a, 2, sample, kv_head), at_.parts[2].row, false, s.values_across, nullptr);
      std::fill_n(s.key_sums, at_.positions * padded_, 0.0f);
      std::fill_n(s.value_sums, at_.positions * padded_, 0.0f);
      each_queries(sample, kv_head, [&](const Queries& queries) { backward_of(a, g, queries, s); });
      store(g, 1, sample, kv_head, 0, at_.positions, 1, true, s.key_sums);
      store(g, 2, sample, kv_head, 0, at_.positions, 1, false, s.value_sums);
    });
  }

 private:
  // ---- tasks and their memory ----

  std::int64_t slots() const { return std::min<std::int64_t>({threads_, tasks_, AttentionLayout::most_threads}); }

  Scratch scratch(const OpArgs& a, std::int64_t slot) const {
    float* next = a.workspace.as<float>() + slot * at_.thread_floats();
    const auto take = [&next](std::int64_t floats) { return std::exchange(next, next + floats); };
    const std::int64_t whole = at_.padded_positions() * padded_, group = query_group * padded_;
    Scratch s{};
    s.keys_across = take(whole);
    s.values_across = take(whole);
    s.keys = s.values = take(whole);
    s.key_sums = take(whole);
    s.value_sums = take(whole);
    s.q = take(group);
    s.out = take(group);
    s.sums = take(group);
    s.scores = take(query_block * key_block);
    s.slopes = take(query_block * key_block);
    s.row_max = take(query_group);
    s.row_sum = take(query_group);
    return s;
  }

  /// What each position of each sample sees, behind the threads' memory.
  VisibleRange* ranges(const OpArgs& a) const {
    return reinterpret_cast<VisibleRange*>(a.workspace.as<float>() + slots() * at_.thread_floats());
  }
  void find_ranges(const OpArgs& a) const {
    VisibleRange* const to = ranges(a);
    const std::int64_t n = at_.positions;
    const auto* first = at_.documents < 0 ? nullptr : a.in[at_.documents].template as<std::int32_t>();
    parallel_rows(at_.samples, n, task_elements, threads_, [&](std::int64_t sample) {
      for (std::int64_t i = 0; i < n; ++i)
        to[sample * n + i] = rule_.of(first == nullptr ? nullptr : first + sample * n, i);
    });
  }

  template <class Body>
  void each_task(const OpArgs& a, const Body& body) const {
    parallel_chunks(slots(), 1, threads_, [&](std::int64_t slot, std::int64_t) {
      const Scratch s = scratch(a, slot);
      for (std::int64_t task = slot; task < tasks_; task += slots()) body(task / at_.kv_heads, task % at_.kv_heads, s);
    });
  }
  template <class Body>
  void each_queries(std::int64_t sample, std::int64_t kv_head, const Body& body) const {
    for (std::int64_t h = kv_head * heads_a_task_; h < (kv_head + 1) * heads_a_task_; ++h)
      for (std::int64_t i = 0; i < at_.positions; i += query_group)
        body(Queries{sample, h, i, std::min(query_group, at_.positions - i)});
  }
  /// body(block, what its queries see, their memory): one block of keys for each block of queries that sees some of it,
  /// then the next one. Keys and their gradients stay in the nearer cache for all queries of the group.
  template <class Body>
  void each_block(const OpArgs& a, const Queries& g, const Scratch& s, const Body& body) const {
    const VisibleRange* const ranges_of = ranges(a) + g.sample * at_.positions + g.first;
    const std::int64_t last = ranges_of[g.rows - 1].end;
    for (std::int64_t key = ranges_of[0].begin / key_block * key_block; key < last; key += key_block) {
      for (std::int64_t row = 0; row < g.rows; row += query_block) {
        const std::int64_t rows = std::min(query_block, g.rows - row);
        const VisibleRange *range = ranges_of + row, top = range[0], bottom = range[rows - 1];
        const std::int64_t keys = std::min<std::int64_t>(key_block, bottom.end - key);
        if (keys <= 0 || key + key_block <= top.begin) continue;
        body(Block{g.sample, g.head, g.first + row, rows, key, keys, bottom.begin <= key && top.end >= key + keys},
             range, s.from(row, padded_));
      }
    }
  }
  /// Of a row, as columns of the block, within `limit`.
  static Columns seen(const Block& b, VisibleRange range, Columns limit) {
    const std::int64_t begin = std::clamp<std::int64_t>(range.begin - b.key, limit.begin, limit.end);
    return {begin, std::clamp<std::int64_t>(range.end - b.key, begin, limit.end)};
  }
  /// body(row, rows, columns) for groups of rows with the panels of keys that they see.
  template <class Body>
  static void each_group(const Block& b, const VisibleRange* range, const Body& body) {
    const std::int64_t step = b.whole ? b.rows : few_rows;
    for (std::int64_t i = 0; i < b.rows; i += step) {
      const std::int64_t rows = std::min(step, b.rows - i);
      const std::int64_t begin = seen(b, range[i], {0, b.keys}).begin / panel * panel;
      const std::int64_t end = seen(b, range[i + rows - 1], {begin, b.keys}).end;
      body(i, rows, Columns{begin, end});
    }
  }

  // ---- values as floats, and gradients as values ----

  const T* part(const OpArgs& a, std::size_t which, std::int64_t sample, std::int64_t head) const {
    const AttentionLayout::Part& p = at_.parts[which];
    return a.in[p.input].template as<T>() + sample * at_.positions * p.row + p.channel + head * at_.size;
  }
  std::int64_t out_at(std::int64_t sample, std::int64_t head, std::int64_t position) const {
    return ((sample * at_.positions + position) * at_.heads + head) * at_.size;
  }

  /// Rows [first, first + count) of a head to `to`, times `scale`; `turn`: by the rotary angles of their positions.
  void load(const T* from, std::int64_t stride, std::int64_t first, std::int64_t count, float scale, bool turn,
            float* to) const {
    const std::int64_t n = at_.size, half = n / 2;
    for (std::int64_t i = first; i < first + count; ++i, to += padded_) {
      const T* row = from + i * stride;
      if (turn && op_.rotary) {
        const float *cosine = cosines_.data() + i * half, *sine = sines_.data() + i * half;
#pragma omp simd
        for (std::int64_t c = 0; c < half; ++c) {
          const float x = to_float(row[c]) * scale, y = to_float(row[c + half]) * scale;
          to[c] = x * cosine[c] - y * sine[c];
          to[c + half] = y * cosine[c] + x * sine[c];
        }
      } else {
        write_elements(to, 0, n, false, [=](std::int64_t c) { return to_float(row[c]) * scale; });
      }
      std::fill(to + n, to + padded_, 0.0f);
    }
  }

  /// A head as panels [size][16 positions], and its rows to `rows` if that is not null. Behind the last position zeros.
  void load_across(const T* from, std::int64_t stride, bool turn, float* to, float* rows) const {
    alignas(64) float some[panel * Attention::largest_size];
    for (std::int64_t i = 0; i < at_.positions; i += panel, to += panel * at_.size) {
      const std::int64_t count = std::min(panel, at_.positions - i);
      float* const lines = rows == nullptr ? some : rows + i * padded_;
      load(from, stride, i, count, 1, turn, lines);
      for (std::int64_t c = 0; c < at_.size; ++c) {
        for (std::int64_t l = 0; l < count; ++l) to[c * panel + l] = lines[l * padded_ + c];
        for (std::int64_t l = count; l < panel; ++l) to[c * panel + l] = 0;
      }
    }
  }

  /// Gradients of rows of a head where the slot wants them; turned back, times `scale`. `from` is overwritten.
  void store(const OpGrads& g, std::size_t which, std::int64_t sample, std::int64_t head, std::int64_t first,
             std::int64_t count, float scale, bool turn, float* from) const {
    const AttentionLayout::Part& p = at_.parts[which];
    if (!wanted(g.in, p.input)) return;
    const GradSlot& slot = g.in[p.input];
    T* to = slot.grad.template as<T>() + (sample * at_.positions + first) * p.row + p.channel + head * at_.size;
    const std::int64_t n = at_.size, half = n / 2;
    for (std::int64_t i = first; i < first + count; ++i, to += p.row, from += padded_) {
      if (turn && op_.rotary) {
        const float *cosine = cosines_.data() + i * half, *sine = sines_.data() + i * half;
#pragma omp simd
        for (std::int64_t c = 0; c < half; ++c) {
          const float x = from[c], y = from[c + half];
          from[c] = x * cosine[c] + y * sine[c];
          from[c + half] = y * cosine[c] - x * sine[c];
        }
      }
      const float* row = from;
      write_elements(to, 0, n, slot.write == Write::accumulate, [=](std::int64_t c) { return row[c] * scale; });
    }
  }

  /// What dropout makes of the weights of a query: body(column, kept as 0 or 1 / (1 - rate)) for columns of a block.
  template <class Body>
  void each_kept(const OpArgs& a, const Block& b, std::int64_t row, Columns columns, const Body& body) const {
    const RandomKey key = random_key(a.step.seed, Purpose::dropout);
    const std::uint64_t position = a.positions[0].as<std::uint64_t>()[b.sample];
    const std::uint32_t sub = WeightDraws::sub(op_.id, b.head);
    for (std::int64_t c = columns.begin / panel * panel; c < columns.end; c += mask_elements) {
      alignas(64) std::uint8_t keep[mask_elements];
      keep_mask(key, position, sub, WeightDraws{at_.positions}.block(b.first + row, b.key + c), threshold_, keep);
      const std::int64_t end = std::min(columns.end, c + mask_elements);
      for (std::int64_t i = std::max(c, columns.begin); i < end; ++i) body(i, keep[i - c] != 0 ? kept_scale_ : 0.0f);
    }
  }

  // ---- forward ----

  void forward_of(const OpArgs& a, const Queries& queries, const Scratch& all) const {
    load(part(a, 0, queries.sample, queries.head), at_.parts[0].row, queries.first, queries.rows, at_.scale, true,
         all.q);
    std::fill_n(all.out, queries.rows * padded_, 0.0f);
    std::fill_n(all.row_max, queries.rows, -std::numeric_limits<float>::infinity());
    std::fill_n(all.row_sum, queries.rows, 0.0f);
    each_block(a, queries, all, [&](const Block& b, const VisibleRange* range, const Scratch& s) {
      each_group(b, range, [&](std::int64_t row, std::int64_t rows, Columns columns) {
        if (columns.count() == 0) return;
        scores(s.q, s.keys_across, b, row, rows, columns, s.scores);
        for (std::int64_t i = row; i < row + rows; ++i) softmax_row(a, b, i, columns, seen(b, range[i], columns), s);
        tile_product(rows, padded_, columns.count(), {s.scores + row * key_block + columns.begin, key_block, 1},
                     {s.values + (b.key + columns.begin) * padded_, padded_, panel},
                     {s.out + row * padded_, padded_, true});
      });
    });
    const bool keep = a.pass.mode == Mode::train && !a.pass.recompute;
    for (std::int64_t i = 0; i < queries.rows; ++i) {
      const float *from = all.out + i * padded_, inverse = 1.0f / all.row_sum[i];
      write_elements(a.out[0].template as<T>() + out_at(queries.sample, queries.head, queries.first + i), 0, at_.size,
                     false, [=](std::int64_t c) { return from[c] * inverse; });
      if (keep) saved(a, queries)[i * at_.heads] = all.row_max[i] + std::log(all.row_sum[i]);
    }
  }

  float* saved(const OpArgs& a, const Queries& g) const {
    return a.saved[0].template as<float>() + (g.sample * at_.positions + g.first) * at_.heads + g.head;
  }

  /// left [rows, size] times the transposed rows of keys or values, to the columns of the block.
  void scores(const float* left, const float* across, const Block& b, std::int64_t row, std::int64_t rows,
              Columns columns, float* to) const {
    tile_product(rows, whole_panels(columns.count()), at_.size, {left + row * padded_, padded_, 1},
                 {across + (b.key + columns.begin) * at_.size, panel, panel * at_.size},
                 {to + row * key_block + columns.begin, key_block, false});
  }

  /// Scores to weights e^(score - largest so far), and what was summed before to the same scale.
  void softmax_row(const OpArgs& a, const Block& b, std::int64_t row, Columns columns, Columns own,
                   const Scratch& s) const {
    float* const p = s.scores + row * key_block;
    std::fill(p + columns.begin, p + own.begin, 0.0f);
    std::fill(p + own.end, p + columns.end, 0.0f);
    if (own.count() == 0) return;
    const float before = s.row_max[row], largest = std::max(largest_of(p, own.begin, own.end), before);
    write_elements(p, own.begin, own.end, false, [=](std::int64_t c) { return exp_bounded(p[c] - largest); });
    const float* const weights = p + own.begin;
    const float sum = sum_of(own.count(), [=](std::int64_t c) { return weights[c]; });
    if (largest > before) {
      const float shrink = exp_bounded(before - largest);
      float* const out = s.out + row * padded_;
      write_elements(out, 0, padded_, false, [=](std::int64_t c) { return out[c] * shrink; });
      s.row_sum[row] *= shrink;
      s.row_max[row] = largest;
    }
    s.row_sum[row] += sum;
    if (drops(a)) each_kept(a, b, row, own, [p](std::int64_t c, float kept) { p[c] *= kept; });
  }
  bool drops(const OpArgs& a) const {
    return a.pass.mode == Mode::train && op_.dropout > 0;
  }

  // ---- backward ----

  void backward_of(const OpArgs& a, const OpGrads& g, const Queries& queries, const Scratch& all) const {
    load(part(a, 0, queries.sample, queries.head), at_.parts[0].row, queries.first, queries.rows, at_.scale, true,
         all.q);
    const std::int64_t out = out_at(queries.sample, queries.head, 0), row = at_.heads * at_.size;
    load(g.out[0].template as<T>() + out, row, queries.first, queries.rows, 1, false, all.out);
    for (std::int64_t i = 0; i < queries.rows; ++i) {
      const T* y = a.out[0].template as<T>() + out + (queries.first + i) * row;
      const float* gy = all.out + i * padded_;
      all.row_sum[i] = sum_of(at_.size, [=](std::int64_t c) { return to_float(y[c]) * gy[c]; });
      all.row_max[i] = saved(a, queries)[i * at_.heads];
    }
    std::fill_n(all.sums, queries.rows * padded_, 0.0f);
    each_block(a, queries, all, [&](const Block& b, const VisibleRange* range, const Scratch& s) {
      each_group(b, range, [&](std::int64_t first, std::int64_t rows, Columns columns) {
        if (columns.count() > 0) {
          scores(s.q, s.keys_across, b, first, rows, columns, s.scores);
          scores(s.out, s.values_across, b, first, rows, columns, s.slopes);
        }
        for (std::int64_t i = first; i < first + rows; ++i) slope_row(a, b, i, seen(b, range[i], columns), s);
        tile_product(rows, padded_, columns.count(), {s.slopes + first * key_block + columns.begin, key_block, 1},
                     {s.keys + (b.key + columns.begin) * padded_, padded_, panel},
                     {s.sums + first * padded_, padded_, true});
      });
      add_key_gradients(b, range, s);
    });
    store(g, 0, queries.sample, queries.head, queries.first, queries.rows, at_.scale, true, all.sums);
  }

  /// Scores to weights, and gradients of weights to gradients of scores; zeros where nothing is seen.
  void slope_row(const OpArgs& a, const Block& b, std::int64_t row, Columns own, const Scratch& s) const {
    float *const p = s.scores + row * key_block, *const slope = s.slopes + row * key_block;
    for (float* const line : {p, slope}) {
      std::fill(line, line + own.begin, 0.0f);
      std::fill(line + own.end, line + b.keys, 0.0f);
    }
    const float log_sum = s.row_max[row], shared = s.row_sum[row];
    if (drops(a)) {
      each_kept(a, b, row, own, [=](std::int64_t c, float kept) {
        const float weight = exp_bounded(p[c] - log_sum);
        slope[c] = weight * (slope[c] * kept - shared);
        p[c] = weight * kept;
      });
      return;
    }
#pragma omp simd
    for (std::int64_t c = own.begin; c < own.end; ++c) {
      p[c] = exp_bounded(p[c] - log_sum);
      slope[c] = p[c] * (slope[c] - shared);
    }
  }

  /// Of keys and values, each group of keys over the queries that see one of them.
  void add_key_gradients(const Block& b, const VisibleRange* range, const Scratch& s) const {
    const std::int64_t step = b.whole ? b.keys : few_keys;
    for (std::int64_t key = 0; key < b.keys; key += step) {
      const std::int64_t keys = std::min(step, b.keys - key);
      std::int64_t begin = 0, end = b.rows;
      while (begin < end && range[begin].end <= b.key + key) ++begin;
      while (end > begin && range[end - 1].begin >= b.key + key + keys) --end;
      const std::int64_t at = begin * key_block + key, to = (b.key + key) * padded_, from = begin * padded_;
      tile_product(keys, padded_, end - begin, {s.scores + at, 1, key_block}, {s.out + from, padded_, panel},
                   {s.value_sums + to, padded_, true});
      tile_product(keys, padded_, end - begin, {s.slopes + at, 1, key_block}, {s.q + from, padded_, panel},
                   {s.key_sums + to, padded_, true});
    }
  }

  Attention op_;
  AttentionLayout at_;
  VisibleRule rule_;
  std::int64_t padded_, heads_a_task_, tasks_;
  int threads_;
  std::uint32_t threshold_;
  float kept_scale_;
  std::vector<float> cosines_, sines_;  // [positions, size / 2]
};

}  // namespace

std::unique_ptr<Kernel> make(const Attention& op, Inputs in, int threads) {
  return make_for<AttentionKernel>(in[0].dtype, op, in, threads);
}

}  // namespace dtrain::cpu
