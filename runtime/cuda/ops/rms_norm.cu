// Starts the kernels of RMS normalization.
#include "runtime/cuda/ops/rms_norm.hpp"

namespace dtrain::cuda {

void rms_norm(const Launch& where, Element element, const RmsNormPlace& p, float epsilon, void* y, float* inverse) {
  for_rows<RmsNormBody>(where, element, p.shape, aligned(p.x, p.weight, y), epsilon, p.x, p.weight, y, inverse);
}
void rms_norm_gradient(const Launch& where, Element element, const RmsNormPlace& p, const void* gy,
                       const float* inverse, Slot gx) {
  for_rows<RmsNormGradientBody>(where, element, p.shape, aligned(p.x, gy, p.weight, gx.to), p.x, gy, p.weight, inverse,
                                gx);
}
void rms_norm_weight_gradient(const Launch& where, Element element, const RmsNormPlace& p, const void* gy,
                              const float* inverse, Slot weight, void* workspace) {
  sum_columns<RmsNormWeightTerms>(where, element, p.shape, aligned(p.x, gy), workspace, RmsNormWeightFinish{weight},
                                  p.shape.channels, p.x, gy, inverse);
}

}  // namespace dtrain::cuda
