// Starts the kernels of attention.
#include "runtime/cuda/ops/attention.hpp"

namespace dtrain::cuda {

void attention_ranges(const Launch& where, const VisibleRule& rule, std::int64_t samples, const std::int32_t* documents,
                      VisibleRange* ranges) {
  for_count(where, samples * rule.positions, AttentionRangesBody{rule, documents, ranges});
}

void attention_turns(const Launch& where, const AttentionFrequencies& frequencies, std::int64_t positions,
                     std::int64_t half, float* turns) {
  for_count(where, positions * half, AttentionTurnsBody{frequencies, half, turns});
}

void attention(const Launch& where, Element element, const AttentionPlace& p, void* y, float* log_sums) {
  with_element(element, [&](auto tag) {
    using Body = AttentionBody<decltype(tag)>;
    launch(where, p.samples * p.heads * divide_up(p.positions, Body::tile), Body{{p}, typed(y), log_sums});
  });
}

void attention_gradient(const Launch& where, Element element, const AttentionPlace& p, const void* y, const void* gy,
                        const float* log_sums, float* shared, const AttentionGradients& to) {
  with_element(element, [&](auto tag) {
    using T = decltype(tag);
    using Queries = AttentionQueriesGradientBody<T>;
    using Keys = AttentionKeysGradientBody<T>;
    for_count(where, p.samples * p.positions * p.heads, AttentionSharedBody<T>{p.size, typed(y), typed(gy), shared});
    const HeadRows gradient{gy, p.heads * p.size};
    const std::int64_t tiles = p.samples * divide_up(p.positions, Queries::tile);
    if (to.k.put != Put::none || to.v.put != Put::none)
      launch(where, tiles * p.kv_heads, Keys{{{p}, gradient, log_sums, shared, to}});
    if (to.q.put != Put::none) launch(where, tiles * p.heads, Queries{{{p}, gradient, log_sums, shared, to}});
  });
}

void attention_rows(const Launch& where, Element element, const AttentionPlace& p, std::int64_t heads,
                    const HeadRows& from, bool back, const Slot& to, std::int64_t row) {
  with_element(element, [&](auto tag) {
    using Body = AttentionRowsBody<decltype(tag)>;
    for_count(where, p.samples * p.positions * heads * p.size, Body{p, heads, from, back, to, row});
  });
}

}  // namespace dtrain::cuda
