// Starts the kernels of RMS normalization.
#include "runtime/cuda/ops/rms_norm.hpp"

namespace dtrain::cuda {

void rms_norm(const Launch& where, Element element, const RmsNormPlace& p, float epsilon, void* y, float* inverse) {
  with_width(element, p.shape.channels, aligned(p.x, p.weight, y), [&](auto tag, auto w) {
    using T = decltype(tag);
    using Body = RmsNormBody<T, w.value>;
    launch(where, divide_up(p.shape.rows, Body::rows),
           Body{{}, p.shape, epsilon, as<T>(p.x), p.weight, static_cast<T*>(y), inverse});
  });
}

void rms_norm_gradient(const Launch& where, Element element, const RmsNormPlace& p, const void* gy,
                       const float* inverse, Slot gx) {
  with_width(element, p.shape.channels, aligned(p.x, gy, p.weight, gx.to), [&](auto tag, auto w) {
    using T = decltype(tag);
    using Body = RmsNormGradientBody<T, w.value>;
    launch(where, divide_up(p.shape.rows, Body::rows), Body{{}, p.shape, as<T>(p.x), as<T>(gy), p.weight, inverse, gx});
  });
}

void rms_norm_weight_gradient(const Launch& where, Element element, const RmsNormPlace& p, const void* gy,
                              const float* inverse, Slot weight, void* workspace) {
  with_width(element, p.shape.channels, aligned(p.x, gy), [&](auto tag, auto w) {
    using T = decltype(tag);
    sum_columns(where, p.shape, workspace,
                RmsNormWeightTerms<T, w.value>{p.shape.channels, as<T>(p.x), as<T>(gy), inverse},
                RmsNormWeightFinish{weight});
  });
}

}  // namespace dtrain::cuda
