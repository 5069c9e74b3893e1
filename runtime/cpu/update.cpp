#include <algorithm>

#include "runtime/cpu/kernels.hpp"
#include "runtime/cpu/parallel.hpp"
#include "runtime/error.hpp"
#include "runtime/flat.hpp"
#include "runtime/update_math.hpp"

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

}  // namespace

void apply_update(const UpdateRule& rule, const UpdateArgs& a, int threads) {
  if (a.step->nonfinite != 0) return;  // the step is skipped
  const int states = state_count(rule);
  for (const FlatParam& p : a.layout->params) {
    const std::size_t begin = std::max(p.offset, a.begin), end = std::min(p.offset + p.size, a.end);
    if (begin >= end) continue;
    parallel_chunks(static_cast<std::int64_t>(end - begin), grain, threads, [&](std::int64_t from, std::int64_t to) {
      const std::size_t at = begin + static_cast<std::size_t>(from);
      const Range range{a.params + at, a.gradients + at, states > 0 ? a.state[0] + at : nullptr,
                        states > 1 ? a.state[1] + at : nullptr, to - from};
      std::visit([&](const auto& r) { update_range(r, *a.step, p.decay, range); }, rule.kind);
    });
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

}  // namespace dtrain::cpu
