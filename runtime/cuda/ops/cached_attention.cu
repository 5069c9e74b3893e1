// Starts the kernels of attention over a cache.
#include "runtime/cuda/ops/cached_attention.hpp"

namespace dtrain::cuda {

void extend_cache(const Launch& where, Element element, const CachedAttentionPlace& p) {
  with_element(element, [&](auto tag) {
    for_count(where, p.samples * p.positions * p.kv_heads * p.size, ExtendCacheBody<decltype(tag)>{p});
  });
}

void cached_attention(const Launch& where, Element element, const CachedAttentionPlace& p, void* y) {
  with_element(element, [&](auto tag) {
    launch(where, p.samples * p.positions * p.heads, CachedAttentionBody<decltype(tag)>{p, typed(y)});
  });
}

}  // namespace dtrain::cuda
