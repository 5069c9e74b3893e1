// Starts the kernels of embedding.
#include "runtime/cuda/ops/embedding.hpp"

namespace dtrain::cuda {

void embedding(const Launch& where, Element element, const EmbeddingPlace& p, const float* weight, void* y) {
  with_width(element, p.channels, aligned(weight, y), [&](auto tag, auto w) {
    using T = decltype(tag);
    using Body = EmbeddingBody<T, w.value>;
    const std::int64_t blocks = divide_up(p.positions * (p.channels / w.value), Body::threads);
    launch(where, blocks < most_blocks ? blocks : most_blocks, Body{p, weight, static_cast<T*>(y)});
  });
}

void embedding_gradient(const Launch& where, Element element, const EmbeddingPlace& p, const void* gy, Slot weight) {
  with_width(element, p.channels, aligned(gy, weight.to), [&](auto tag, auto w) {
    using T = decltype(tag);
    using Body = EmbeddingGradientBody<T, w.value>;
    launch(where, divide_up(p.vocabulary, Body::rows), Body{p, as<T>(gy), weight});
  });
}

}  // namespace dtrain::cuda
