#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "runtime/cpu/kernels.hpp"
#include "runtime/cpu/muon.hpp"
#include "runtime/cpu/parallel.hpp"
#include "runtime/device/device.hpp"
#include "runtime/optim/step_math.hpp"
#include "runtime/optim/update_ledger.hpp"
#include "runtime/optim/update_math.hpp"
#include "runtime/plan/flat.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain {

/// Here, where loops become vectors: it is part of each update with a ledger.
std::uint32_t sum_of_bits(const float* values, std::size_t count) noexcept {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < count; ++i) {
    std::uint32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    sum += bits;
  }
  return sum;
}

}  // namespace dtrain

namespace dtrain::cpu {

namespace {

constexpr std::int64_t grain = 64 * 1024;  // floats a task: what two to four streams of it keep in the second cache

struct Range {
  float* __restrict w;
  const float* __restrict g;
  float* __restrict m;
  float* __restrict v;
  std::int64_t n;
};

void update_range(const Sgd& rule, const StepState& step, bool decayed, const Range& r) {
  const SgdConstants c(rule, step, decayed);
  float* __restrict w = r.w;
  const float* __restrict g = r.g;
  float* __restrict m = r.m;
  if (rule.momentum == 0) {
    for (std::int64_t i = 0; i < r.n; ++i) sgd_plain(c, g[i], w[i]);
  } else if (rule.nesterov) {
    for (std::int64_t i = 0; i < r.n; ++i) sgd_nesterov(c, g[i], w[i], m[i]);
  } else {
    for (std::int64_t i = 0; i < r.n; ++i) sgd_momentum(c, g[i], w[i], m[i]);
  }
}

void adam_range(const AdamConstants& c, const Range& r) {
  float* __restrict w = r.w;
  const float* __restrict g = r.g;
  float* __restrict m = r.m;
  float* __restrict v = r.v;
  for (std::int64_t i = 0; i < r.n; ++i) adam(c, g[i], w[i], m[i], v[i]);
}
void update_range(const Adam& rule, const StepState& step, bool decayed, const Range& r) {
  adam_range(AdamConstants(rule, step, decayed ? rule.weight_decay : 0.0, 0.0), r);
}
void update_range(const AdamW& rule, const StepState& step, bool decayed, const Range& r) {
  adam_range(AdamConstants(rule, step, 0.0, decayed ? rule.weight_decay : 0.0), r);
}

// ---- rules with a ratio for each parameter -----------------------------------------------------------------------

std::size_t blocks_of(std::int64_t n) {
  return (static_cast<std::size_t>(n) + norm_block - 1) / norm_block;
}
/// Of the parameter's fixed blocks, in order.
double root_of_sum(const double* partial, std::int64_t n) {
  double sum = 0;
  for (std::size_t b = 0; b < blocks_of(n); ++b) sum += partial[b];
  return std::sqrt(sum);
}

Range part(const Range& r, std::int64_t begin, std::int64_t end) {
  const auto at = [begin](auto* p) { return p == nullptr ? p : p + begin; };
  return {r.w + begin, r.g + begin, at(r.m), at(r.v), end - begin};
}

void update_parameter(const Lars& rule, const StepState& step, bool decayed, const Range& all, double* norms,
                      int threads) {
  double w_norm = 0, g_norm = 0;
  if (decayed) {
    sum_squares_blocks(all.w, static_cast<std::size_t>(all.n), norms, threads);
    w_norm = root_of_sum(norms, all.n);
    sum_squares_blocks(all.g, static_cast<std::size_t>(all.n), norms, threads);
    g_norm = root_of_sum(norms, all.n);
  }
  const LarsConstants c(rule, step, decayed, w_norm, g_norm);
  float* __restrict w = all.w;
  const float* __restrict g = all.g;
  float* __restrict m = all.m;
  parallel_chunks(all.n, grain, threads, [&, w, g, m](std::int64_t begin, std::int64_t end) {
    if (rule.momentum == 0) {
      for (std::int64_t i = begin; i < end; ++i) lars_plain(c, g[i], w[i]);
    } else if (rule.nesterov) {
      for (std::int64_t i = begin; i < end; ++i) lars_nesterov(c, g[i], w[i], m[i]);
    } else {
      for (std::int64_t i = begin; i < end; ++i) lars_momentum(c, g[i], w[i], m[i]);
    }
  });
}

void update_parameter(const Lamb& rule, const StepState& step, bool decayed, const Range& all, double* norms,
                      int threads) {
  const LambConstants c(rule, step, decayed);
  double* const w_squares = norms;
  double* const u_squares = norms + blocks_of(all.n);
  float* __restrict w = all.w;
  const float* __restrict g = all.g;
  float* __restrict m = all.m;
  float* __restrict v = all.v;
  parallel_chunks(all.n, norm_block, threads, [&, w, g, m, v](std::int64_t begin, std::int64_t end) {
    float u[norm_block];
    for (std::int64_t i = begin; i < end; ++i) lamb_moments(c, g[i], m[i], v[i]);
    for (std::int64_t i = begin; i < end; ++i) u[i - begin] = lamb_direction(c, w[i], m[i], v[i]);
    const std::size_t block = static_cast<std::size_t>(begin) / norm_block, n = static_cast<std::size_t>(end - begin);
    w_squares[block] = sum_squares(w + begin, n);
    u_squares[block] = sum_squares(u, n);
  });
  const double w_norm = root_of_sum(w_squares, all.n), u_norm = root_of_sum(u_squares, all.n);
  const double ratio = decayed && w_norm > 0 && u_norm > 0 ? w_norm / u_norm : 1.0;
  const auto rate = static_cast<float>(static_cast<double>(step.learning_rate) * ratio);
  parallel_chunks(all.n, grain, threads, [&, w, m, v](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) w[i] -= rate * lamb_direction(c, w[i], m[i], v[i]);
  });
}

/// Muon for a parameter with matrices.
struct OrthogonalRule {
  Muon rule;
  const FlatParam& param;
  void* scratch;
};
void update_parameter(const OrthogonalRule& r, const StepState& step, bool decayed, const Range& all, double* norms,
                      int threads) {
  const double decay = decayed ? r.rule.weight_decay : 0.0;
  update_matrices(r.rule, step, decay, {r.param, all.w, all.g, all.m}, r.scratch, norms, threads);
}

/// The rules that work element by element, in chunks.
template <class Rule>
void update_parameter(const Rule& rule, const StepState& step, bool decayed, const Range& all, double*, int threads) {
  parallel_chunks(all.n, grain, threads, [&](std::int64_t begin, std::int64_t end) {
    update_range(rule, step, decayed, part(all, begin, end));
  });
}

// ---- with a ledger -----------------------------------------------------------------------------------------------

/// What a ledger is told of a range.
struct LedgerEntry {
  LedgerSums read, written;
};

/// Calls apply(g, w, m, v) for each element and sums the bits on the way, while they are at hand.
template <int states, class Apply>
LedgerEntry each_with_bits(const Range& r, const Apply& apply) {
  float* __restrict w = r.w;
  const float* __restrict g = r.g;
  float* __restrict m = r.m;
  float* __restrict v = r.v;
  std::uint32_t w_read = 0, m_read = 0, v_read = 0, w_written = 0, m_written = 0, v_written = 0;
  for (std::int64_t i = 0; i < r.n; ++i) {
    float wi = w[i], mi = 0, vi = 0;
    if constexpr (states > 0) mi = m[i];
    if constexpr (states > 1) vi = v[i];
    w_read += std::bit_cast<std::uint32_t>(wi);
    m_read += std::bit_cast<std::uint32_t>(mi);
    v_read += std::bit_cast<std::uint32_t>(vi);
    apply(g[i], wi, mi, vi);
    w_written += std::bit_cast<std::uint32_t>(wi);
    m_written += std::bit_cast<std::uint32_t>(mi);
    v_written += std::bit_cast<std::uint32_t>(vi);
    w[i] = wi;
    if constexpr (states > 0) m[i] = mi;
    if constexpr (states > 1) v[i] = vi;
  }
  return {{{w_read, m_read, v_read}}, {{w_written, m_written, v_written}}};
}

LedgerEntry range_with_bits(const Sgd& rule, const StepState& step, bool decayed, const Range& r) {
  const SgdConstants c(rule, step, decayed);
  if (rule.momentum == 0) return each_with_bits<0>(r, [&c](float g, float& w, float&, float&) { sgd_plain(c, g, w); });
  if (rule.nesterov)
    return each_with_bits<1>(r, [&c](float g, float& w, float& m, float&) { sgd_nesterov(c, g, w, m); });
  return each_with_bits<1>(r, [&c](float g, float& w, float& m, float&) { sgd_momentum(c, g, w, m); });
}
LedgerEntry adam_with_bits(const AdamConstants& c, const Range& r) {
  return each_with_bits<2>(r, [&c](float g, float& w, float& m, float& v) { adam(c, g, w, m, v); });
}
LedgerEntry range_with_bits(const Adam& rule, const StepState& step, bool decayed, const Range& r) {
  return adam_with_bits(AdamConstants(rule, step, decayed ? rule.weight_decay : 0.0, 0.0), r);
}
LedgerEntry range_with_bits(const AdamW& rule, const StepState& step, bool decayed, const Range& r) {
  return adam_with_bits(AdamConstants(rule, step, 0.0, decayed ? rule.weight_decay : 0.0), r);
}

LedgerSums sums_of(const Range& r) {
  LedgerSums s;
  const float* const of[LedgerSums::values] = {r.w, r.m, r.v};
  for (std::size_t i = 0; i < LedgerSums::values; ++i)
    if (of[i] != nullptr) s.sums[i] = sum_of_bits(of[i], static_cast<std::size_t>(r.n));
  return s;
}

/// Where a parameter's place in a ledger is.
struct LedgerPlace {
  UpdateLedger* ledger;
  std::size_t param;
};

template <class Rule>
void update_with_ledger(const Rule& rule, const StepState& step, bool decayed, const Range& all, double* norms,
                        int threads, LedgerPlace to) {
  if constexpr (std::is_same_v<Rule, Lars> || std::is_same_v<Rule, Lamb> ||
                std::is_same_v<Rule, OrthogonalRule>) {  // several passes, over the whole parameter
    const LedgerSums read = sums_of(all);
    update_parameter(rule, step, decayed, all, norms, threads);
    to.ledger->add(to.param, read, sums_of(all));
  } else {
    parallel_chunks(all.n, grain, threads, [&](std::int64_t begin, std::int64_t end) {
      const LedgerEntry entry = range_with_bits(rule, step, decayed, part(all, begin, end));
      to.ledger->add(to.param, entry.read, entry.written);
    });
  }
}

void apply_update(const UpdateRule& rule, const UpdateArgs& a, int threads) {
  if (a.step->nonfinite != 0) return;  // the step is skipped
  const int states = state_count(rule);
  for (const FlatParam& p : a.layout->params) {
    const std::size_t begin = std::max(p.offset, a.begin), end = std::min(p.offset + p.size, a.end);
    if (begin >= end) continue;
    if (needs_whole_parameters(rule) && end - begin != p.size)
      throw BugError("an update that needs the norm of a parameter got a part of it");
    const auto state = [&](int i) { return i < states ? a.state[i] + (begin - a.state_begin) : nullptr; };
    const Range range{a.params + begin, a.gradients + begin, state(0), state(1),
                      static_cast<std::int64_t>(end - begin)};
    StepState step = *a.step;
    step.learning_rate *= static_cast<float>(p.update.learning_rate_factor);
    const auto update = [&](const auto& r) {
      if (a.ledger == nullptr) return update_parameter(r, step, p.decay, range, a.norms, threads);
      const auto place = static_cast<std::size_t>(&p - a.layout->params.data());
      update_with_ledger(r, step, p.decay, range, a.norms, threads, {a.ledger, place});
    };
    const auto with_decay = [&p](auto r) {
      r.weight_decay = p.update.weight_decay.value_or(r.weight_decay);
      return r;
    };
    std::visit(
        [&](const auto& r) {
          if constexpr (!std::is_same_v<std::decay_t<decltype(r)>, Muon>)
            return update(with_decay(r));
          else if (!p.matrices.empty())
            return update(OrthogonalRule{with_decay(r), p, a.matrices});
          else {
            step.learning_rate *= muon_adamw_factor(r);
            update(with_decay(r.adamw));
          }
        },
        rule.kind);
  }
}

void apply_state_update(const StateUpdateArgs& a) {
  if (a.step->nonfinite != 0) return;
  const float inverse = 1.0f / a.step->micro_batches;
  for (const FlatState& s : a.layout->states) {
    const auto momentum = static_cast<float>(s.momentum);
    for (std::size_t i = s.offset; i < s.offset + s.size; ++i)
      running_statistic(momentum, inverse, a.gradients[i], a.params[i]);
  }
}

void average_range(float* average, const float* params, std::size_t n, float rate, int threads) {
  parallel_chunks(static_cast<std::int64_t>(n), grain, threads, [=](std::int64_t from, std::int64_t to) {
    float* __restrict a = average + from;
    const float* __restrict w = params + from;
    for (std::int64_t i = 0; i < to - from; ++i) move_average(rate, w[i], a[i]);
  });
}

}  // namespace

void CpuKernels::update(const UpdateRule& rule, const UpdateArgs& args, Stream& stream) {
  stream.host(HostTask::of([&rule, args, threads = threads_] { apply_update(rule, args, threads); }));
}

void CpuKernels::update_states(const StateUpdateArgs& args, Stream& stream) {
  stream.host(HostTask::of([args] { apply_state_update(args); }));
}

void CpuKernels::average(float* average, const float* params, std::size_t n, double decay, const StepState& step,
                         Stream& stream) {
  stream.host(HostTask::of([=, step = &step, threads = threads_] {
    if (step->nonfinite == 0) average_range(average, params, n, average_rate(decay, *step), threads);
  }));
}

}  // namespace dtrain::cpu
