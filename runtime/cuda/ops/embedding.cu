// Starts the kernels of embedding.
#include "runtime/cuda/ops/embedding.hpp"

namespace dtrain::cuda {

void embedding(const Launch& where, Element element, const EmbeddingPlace& p, const float* weight, void* y) {
  for_channels<EmbeddingBody>(where, element, p.positions, p.channels, aligned(weight, y), p, weight, y);
}

void embedding_gradient(const Launch& where, Element element, const EmbeddingPlace& p, const void* gy, Slot weight) {
  with_width(element, p.channels, aligned(gy, weight.to), [&](auto tag, auto width) {
    using Body = EmbeddingGradientBody<decltype(tag), decltype(width)::value>;
    launch(where, divide_up(p.vocabulary, Body::rows), Body{p, typed(gy), weight});
  });
}

}  // namespace dtrain::cuda
