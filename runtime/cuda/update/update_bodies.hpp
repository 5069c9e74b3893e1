// Bodies of the kernels over the flat buffers. Structs of arguments; see grid.hpp.
// Constants of a rule are worked out in double, once a block, from the step's state in device memory; norms are summed
// over fixed blocks of each parameter, in a fixed order.
#pragma once

#include "runtime/cuda/update/update_kernels.hpp"
#include "runtime/cuda/vector.hpp"
#include "runtime/optim/step_math.hpp"
#include "runtime/optim/update_math.hpp"

namespace dtrain::cuda {

inline constexpr int quad = 4;  // floats of 16 bytes

/// Up to four neighbours of a flat buffer: 16 bytes where all four are there.
struct Quad {
  std::int64_t at;
  int first, end;  // of the four
  bool whole;
  /// Loops go over all four: an index that the compiler does not know would take the values out of registers.
  DTRAIN_HOST_DEVICE bool has(int j) const { return j >= first && j < end; }
};
DTRAIN_HOST_DEVICE inline Floats<quad> load_quad(const float* from, const Quad& q) {
  if (q.whole) return load_floats<quad>(from + q.at);
  Floats<quad> values{};
  for (int j = 0; j < quad; ++j)
    if (q.has(j)) values.v[j] = from[q.at + j];
  return values;
}
template <class T>
DTRAIN_HOST_DEVICE inline void store_quad(T* to, const Quad& q, const Floats<quad>& values) {
  if (q.whole) return store_floats<quad>(to + q.at, values);
  for (int j = 0; j < quad; ++j)
    if (q.has(j)) to[q.at + j] = from_float<T>(values.v[j]);
}
/// What of the quad at `at` lies in [begin, end). `vectors`: all buffers suit accesses of 16 bytes.
DTRAIN_HOST_DEVICE inline Quad quad_of(std::int64_t at, std::int64_t begin, std::int64_t end, bool vectors) {
  const int first = begin > at ? static_cast<int>(begin - at) : 0;
  const int last = end < at + quad ? static_cast<int>(end - at) : quad;
  return {at, first, last, vectors && first == 0 && last == quad};
}

/// Rows of [channels, pixels] as [pixels, channels]; the quad counts from the parameter's start.
template <class T>
DTRAIN_HOST_DEVICE inline void store_swapped(T* to, const FlatEntry& p, const Quad& q, const Floats<quad>& values) {
  const std::uint32_t row = p.channels * p.pixels, at = static_cast<std::uint32_t>(q.at);
  std::uint32_t begin = at / row * row, channel = (at - begin) / p.pixels, pixel = (at - begin) - channel * p.pixels;
  for (int j = 0; j < quad; ++j) {
    if (q.has(j)) to[begin + pixel * p.channels + channel] = from_float<T>(values.v[j]);
    if (++pixel < p.pixels) continue;
    pixel = 0;
    if (++channel < p.channels) continue;
    channel = 0;
    begin += row;
  }
}
template <class T>
DTRAIN_HOST_DEVICE inline void store_copy(T* to, const FlatEntry& p, const Quad& q, const Floats<quad>& values) {
  if (p.swapped) return store_swapped(to, p, q, values);
  store_quad(to, q, values);
}
DTRAIN_HOST_DEVICE inline void store_packed(const FlatEntry& p, Quad q, const Floats<quad>& w) {
  if (p.packed == nullptr) return;
  q.at -= p.offset;
  if (p.packed_type == Element::bf16) return store_copy(static_cast<Bf16*>(p.packed), p, q, w);
  if (p.packed_type == Element::f16) return store_copy(static_cast<F16*>(p.packed), p, q, w);
  store_copy(static_cast<float*>(p.packed), p, q, w);
}

/// The step as the tables' group sees it.
DTRAIN_HOST_DEVICE inline StepState step_of(const FlatTables& tables, const StepState& step) {
  StepState own = step;
  own.learning_rate *= tables.rate_factor;
  return own;
}
/// Where the state of a quad of parameters lies.
DTRAIN_HOST_DEVICE inline Quad state_quad(Quad q, const FlatRange& r) {
  q.at -= r.state_begin;
  return q;
}

/// Bytes for `count` values of C: shared memory has no constructors.
template <class C, int count>
struct Raw {
  alignas(C) unsigned char bytes[sizeof(C) * count];
  DTRAIN_HOST_DEVICE C* values() { return reinterpret_cast<C*>(bytes); }
};

// ---- rules that go element by element ------------------------------------------------------------------------------

struct SgdUpdate {
  using Constants = SgdConstants;
  static constexpr bool by_ratio = false, second_state = false;
  Sgd rule;
  DTRAIN_HOST_DEVICE bool first_state() const { return rule.momentum != 0; }
  DTRAIN_HOST_DEVICE Constants constants(const StepState& step, bool decayed) const { return {rule, step, decayed}; }
  DTRAIN_HOST_DEVICE void apply(const Constants& c, float g, float& w, float& m, float&) const {
    if (rule.momentum == 0) {
      sgd_plain(c, g, w);
    } else if (rule.nesterov) {
      sgd_nesterov(c, g, w, m);
    } else {
      sgd_momentum(c, g, w, m);
    }
  }
};
struct AdamUpdate {
  using Constants = AdamConstants;
  static constexpr bool by_ratio = false, second_state = true;
  Adam rule;
  double l2, decoupled;
  DTRAIN_HOST_DEVICE bool first_state() const { return true; }
  DTRAIN_HOST_DEVICE Constants constants(const StepState& step, bool decayed) const {
    return {rule, step, decayed ? l2 : 0.0, decayed ? decoupled : 0.0};
  }
  DTRAIN_HOST_DEVICE void apply(const Constants& c, float g, float& w, float& m, float& v) const {
    adam(c, g, w, m, v);
  }
};

template <class Update>
struct UpdateBody {
  static constexpr int threads = block_threads;
  using Constants = typename Update::Constants;
  using Shared = Raw<Constants, 2>;
  Update update;
  FlatTables tables;
  FlatRange r;
  const StepState* step;
  bool vectors;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& shared) const {
    if (step->nonfinite != 0) return;  // the step is skipped, by all threads
    if (t.index() < 2) shared.values()[t.index()] = update.constants(step_of(tables, *step), t.index() != 0);
    t.sync();
    const std::int64_t quads = (r.end + quad - 1) / quad;
    for (std::int64_t i = r.begin / quad + t.block() * threads + t.index(); i < quads; i += t.blocks() * threads) {
      const std::uint32_t owner = tables.owner[i * quad / FlatTables::group];
      if (owner == FlatTables::nobody) continue;
      const FlatEntry& p = tables.params[owner];
      if (p.group != tables.update_group) continue;
      const std::int64_t end = p.offset + p.size < r.end ? p.offset + p.size : r.end;
      const Quad q = quad_of(i * quad, r.begin, end, vectors);
      if (q.first < q.end) run(shared.values()[p.decay ? 1 : 0], p, q);
    }
  }
  DTRAIN_HOST_DEVICE void run(const Constants& c, const FlatEntry& p, const Quad& q) const {
    Floats<quad> w = load_quad(r.params, q), m{}, v{};
    const Floats<quad> g = load_quad(r.gradients, q);
    const Quad of_state = state_quad(q, r);
    if (update.first_state()) m = load_quad(r.state[0], of_state);
    if constexpr (Update::second_state) v = load_quad(r.state[1], of_state);
    for (int j = 0; j < quad; ++j) update.apply(c, g.v[j], w.v[j], m.v[j], v.v[j]);
    store_quad(r.params, q, w);
    if (update.first_state()) store_quad(r.state[0], of_state, m);
    if constexpr (Update::second_state) store_quad(r.state[1], of_state, v);
    store_packed(p, q, w);
  }
};

// ---- rules with a ratio for each parameter: a block of threads for each norm block ---------------------------------

/// Where a thread is in a norm block of a parameter.
struct BlockPlace {
  std::uint32_t param;
  Quad quad;
  bool inside;  // the parameter is in the range and in the group
};
template <class Thread>
DTRAIN_HOST_DEVICE inline BlockPlace block_place(Thread& t, const FlatTables& tables, const FlatRange& r,
                                                 bool vectors) {
  static_assert(block_threads * quad == FlatTables::block);
  const std::uint32_t owner = tables.block_owner[t.block()];
  const FlatEntry& p = tables.params[owner];
  const std::int64_t at = p.offset + (t.block() - p.first_block) * FlatTables::block + t.index() * quad;
  const std::int64_t end = p.offset + p.size;
  const Quad q = quad_of(at, at, end, vectors);
  return {owner, q, p.group == tables.update_group && p.offset >= r.begin && end <= r.end};
}

struct LarsUpdate {
  static constexpr bool by_ratio = true;
  struct Constants {
    float factor, momentum, decay;
  };
  Lars rule;
  DTRAIN_HOST_DEVICE Constants constants(const StepState& step, bool decayed) const {
    const LarsConstants c(rule, step, decayed, 0, 0);
    return {c.factor, c.momentum, c.decay};
  }
  /// First pass: what the two norms are of.
  DTRAIN_HOST_DEVICE void first(const Constants&, const FlatRange&, const Quad&, const Floats<quad>& w,
                                const Floats<quad>& g, Floats<quad>& a, Floats<quad>& b) const {
    a = w;
    b = g;
  }
  DTRAIN_HOST_DEVICE float rate(const StepState& step, bool decayed, double a, double b) const {
    return LarsConstants(rule, step, decayed, a, b).rate;
  }
  DTRAIN_HOST_DEVICE void second(const Constants& k, float rate, const FlatRange& r, const Quad& q, Floats<quad>& w,
                                 const Floats<quad>& g) const {
    LarsConstants c(k.factor, rate, k.momentum, k.decay);
    if (rule.momentum == 0) {
      for (int j = 0; j < quad; ++j) lars_plain(c, g.v[j], w.v[j]);
      return;
    }
    const Quad of_state = state_quad(q, r);
    Floats<quad> m = load_quad(r.state[0], of_state);
    for (int j = 0; j < quad; ++j) {
      if (rule.nesterov) {
        lars_nesterov(c, g.v[j], w.v[j], m.v[j]);
      } else {
        lars_momentum(c, g.v[j], w.v[j], m.v[j]);
      }
    }
    store_quad(r.state[0], of_state, m);
  }
};

struct LambUpdate {
  using Constants = LambConstants;
  static constexpr bool by_ratio = true;
  Lamb rule;
  DTRAIN_HOST_DEVICE Constants constants(const StepState& step, bool decayed) const { return {rule, step, decayed}; }
  /// Moves the moments on the way.
  DTRAIN_HOST_DEVICE void first(const Constants& c, const FlatRange& r, const Quad& q, const Floats<quad>& w,
                                const Floats<quad>& g, Floats<quad>& a, Floats<quad>& b) const {
    const Quad of_state = state_quad(q, r);
    Floats<quad> m = load_quad(r.state[0], of_state), v = load_quad(r.state[1], of_state);
    for (int j = 0; j < quad; ++j) lamb_moments(c, g.v[j], m.v[j], v.v[j]);
    store_quad(r.state[0], of_state, m);
    store_quad(r.state[1], of_state, v);
    a = w;
    b = {};
    for (int j = 0; j < quad; ++j) b.v[j] = q.has(j) ? lamb_direction(c, w.v[j], m.v[j], v.v[j]) : 0.0f;
  }
  DTRAIN_HOST_DEVICE float rate(const StepState& step, bool decayed, double a, double b) const {
    const double ratio = decayed && a > 0 && b > 0 ? a / b : 1.0;
    return static_cast<float>(static_cast<double>(step.learning_rate) * ratio);
  }
  DTRAIN_HOST_DEVICE void second(const Constants& c, float rate, const FlatRange& r, const Quad& q, Floats<quad>& w,
                                 const Floats<quad>&) const {
    const Quad of_state = state_quad(q, r);
    const Floats<quad> m = load_quad(r.state[0], of_state), v = load_quad(r.state[1], of_state);
    for (int j = 0; j < quad; ++j) w.v[j] -= rate * lamb_direction(c, w.v[j], m.v[j], v.v[j]);
  }
};

/// What both passes over the norm blocks are given.
template <class Rule>
struct RatioPass {
  static constexpr int threads = block_threads;
  struct Shared {
    GroupShared<threads> sums;
    Raw<typename Rule::Constants, 2> constants;
  };
  Rule rule;
  FlatTables tables;
  FlatRange r;
  const StepState* step;
  double* norms;
  bool vectors;

  /// Where a thread is, with the constants worked out; not inside where the whole block has nothing to do.
  template <class Thread>
  DTRAIN_HOST_DEVICE BlockPlace begin(Thread& t, Shared& shared) const {
    BlockPlace at = block_place(t, tables, r, vectors);
    if (step->nonfinite != 0) at.inside = false;
    if (!at.inside) return at;
    if (t.index() < 2) shared.constants.values()[t.index()] = rule.constants(step_of(tables, *step), t.index() != 0);
    t.sync();
    return at;
  }
  DTRAIN_HOST_DEVICE const typename Rule::Constants& constants(Shared& shared, const FlatEntry& p) const {
    return shared.constants.values()[p.decay ? 1 : 0];
  }
};

/// norms[2 block], norms[2 block + 1]: sums of squares of what rule.first() says.
template <class Rule>
struct RatioNorms : RatioPass<Rule> {
  using Pass = RatioPass<Rule>;
  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, typename Pass::Shared& shared) const {
    const BlockPlace at = this->begin(t, shared);
    if (!at.inside) return;
    double first = 0, second = 0;
    if (at.quad.first < at.quad.end) {
      Floats<quad> a{}, b{};
      this->rule.first(this->constants(shared, this->tables.params[at.param]), this->r, at.quad,
                       load_quad(this->r.params, at.quad), load_quad(this->r.gradients, at.quad), a, b);
      for (int j = 0; j < quad; ++j) {
        first += static_cast<double>(a.v[j]) * static_cast<double>(a.v[j]);
        second += static_cast<double>(b.v[j]) * static_cast<double>(b.v[j]);
      }
    }
    first = group_sum<Pass::threads>(t, shared.sums, first);
    second = group_sum<Pass::threads>(t, shared.sums, second);
    if (t.index() == 0) {
      this->norms[2 * t.block()] = first;
      this->norms[2 * t.block() + 1] = second;
    }
  }
};

/// A block for each parameter: its blocks' sums, then its rate, behind all of them.
template <class Rule>
struct RatioRates {
  static constexpr int threads = block_threads;
  using Shared = GroupShared<threads>;
  Rule rule;
  FlatTables tables;
  const StepState* step;
  double* norms;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& shared) const {
    if (step->nonfinite != 0) return;
    const FlatEntry& p = tables.params[t.block()];
    if (p.group != tables.update_group) return;
    const std::int64_t blocks = (p.size + FlatTables::block - 1) / FlatTables::block;
    double first = 0, second = 0;
    for (std::int64_t b = p.first_block + t.index(); b < p.first_block + blocks; b += threads) {
      first += norms[2 * b];
      second += norms[2 * b + 1];
    }
    first = group_sum<threads>(t, shared, first);
    second = group_sum<threads>(t, shared, second);
    if (t.index() == 0)
      norms[2 * tables.blocks + t.block()] =
          static_cast<double>(rule.rate(step_of(tables, *step), p.decay, std::sqrt(first), std::sqrt(second)));
  }
};

template <class Rule>
struct RatioUpdate : RatioPass<Rule> {
  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, typename RatioPass<Rule>::Shared& shared) const {
    const BlockPlace at = this->begin(t, shared);
    if (!at.inside || at.quad.first >= at.quad.end) return;
    const FlatEntry& p = this->tables.params[at.param];
    Floats<quad> w = load_quad(this->r.params, at.quad);
    this->rule.second(this->constants(shared, p), static_cast<float>(this->norms[2 * this->tables.blocks + at.param]),
                      this->r, at.quad, w, load_quad(this->r.gradients, at.quad));
    store_quad(this->r.params, at.quad, w);
    store_packed(p, at.quad, w);
  }
};

// ---- the rest ------------------------------------------------------------------------------------------------------

/// A block for each kept state.
struct StatisticsBody {
  static constexpr int threads = block_threads;
  using Shared = Nothing;
  FlatTables tables;
  float* params;
  const float* gradients;
  const StepState* step;
  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared&) const {
    if (step->nonfinite != 0) return;
    const FlatStateEntry s = tables.states[t.block()];
    const float inverse = 1.0f / step->micro_batches;
    for (std::int64_t i = s.offset + t.index(); i < s.offset + s.size; i += threads)
      running_statistic(s.momentum, inverse, gradients[i], params[i]);
  }
};

struct AverageBody {
  using Element = float;
  float* average;
  const float* params;
  double decay;
  const StepState* step;
  template <int width>
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    if (step->nonfinite != 0) return;
    const float rate = average_rate(decay, *step);
    Floats<width> a = load_floats<width>(average + i);
    const Floats<width> w = load_floats<width>(params + i);
    for (int j = 0; j < width; ++j) dtrain::move_average(rate, w.v[j], a.v[j]);
    store_floats<width>(average + i, a);
  }
};

/// A block of threads for each block of floats.
struct SumSquaresBody {
  static constexpr int threads = block_threads;
  using Shared = GroupShared<threads>;
  const float* x;
  std::int64_t n;
  double* partial;
  bool vectors;
  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& shared) const {
    const std::int64_t at = t.block() * FlatTables::block + t.index() * quad;
    double sum = 0;
    if (at < n) {
      const Floats<quad> v = load_quad(x, quad_of(at, at, n, vectors));
      for (int j = 0; j < quad; ++j) sum += static_cast<double>(v.v[j]) * static_cast<double>(v.v[j]);
    }
    sum = group_sum<threads>(t, shared, sum);
    if (t.index() == 0) partial[t.block()] = sum;
  }
};

/// One block.
struct FinishGradientsBody {
  static constexpr int threads = 1024;
  using Shared = GroupShared<threads>;
  GradientArgs args;
  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& shared) const {
    if (args.squares == nullptr) {
      if (t.index() == 0) trust_gradients(*args.step);
      return;
    }
    double sum = 0;
    float last = -1;  // exact up to 2^24 blocks, and near enough beyond to look for the parameter
    for (std::size_t b = t.index(); b < args.blocks; b += threads) {
      const double s = args.squares[b];
      sum += s;
      if (!(s - s == 0)) last = static_cast<float>(b);
    }
    sum = group_sum<threads>(t, shared, sum);
    last = group_max<threads>(t, shared, last);
    if (t.index() == 0)
      judge_gradients(*args.step, sum, last < 0 ? 0u : static_cast<std::uint32_t>(last), args.max_norm);
  }
};

struct FinishStepBody {
  static constexpr int threads = static_cast<int>(warp_size);
  using Shared = Nothing;
  FinishArgs args;
  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared&) const {
    if (t.index() == 0) close_step(*args.step, args.sums, args.scaling, args.losses);
  }
};

struct AddPartsBody {
  using Element = float;
  static constexpr std::size_t most = 16;
  const float* parts[most];  // the innermost first
  std::size_t count;
  float* out;
  template <int width>
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    Floats<width> sum = load_floats<width>(parts[0] + i);
    for (std::size_t p = 1; p < most; ++p) {  // a count that the compiler knows
      if (p >= count) break;
      const Floats<width> more = load_floats<width>(parts[p] + i);
      for (int j = 0; j < width; ++j) sum.v[j] = more.v[j] + sum.v[j];
    }
    store_floats<width>(out + i, sum);
  }
};

}  // namespace dtrain::cuda
