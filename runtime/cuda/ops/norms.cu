// Starts the kernels of layer and batch normalization: one file, as each costs seconds of compilation.
#include "runtime/cuda/ops/batch_norm.hpp"
#include "runtime/cuda/ops/batch_normalize.hpp"
#include "runtime/cuda/ops/layer_norm.hpp"

namespace dtrain::cuda {

void layer_norm(const Launch& where, Element element, const Matrix& shape, float epsilon, const void* x,
                const float* weight, const float* bias, void* y, float* mean, float* inverse) {
  for_rows<LayerNormBody>(where, element, shape, aligned(x, weight, bias, y), epsilon, x, weight, bias, y, mean,
                          inverse);
}
void layer_norm_gradient(const Launch& where, Element element, const Matrix& shape, const void* x, const void* gy,
                         const float* weight, const float* mean, const float* inverse, Slot gx) {
  for_rows<LayerNormGradientBody>(where, element, shape, aligned(x, gy, weight, gx.to), x, gy, weight, mean, inverse,
                                  gx);
}
void layer_norm_params_gradient(const Launch& where, Element element, const Matrix& shape, const void* x,
                                const void* gy, const float* mean, const float* inverse, Slot weight, Slot bias,
                                void* workspace) {
  sum_columns<LayerNormParamsTerms>(where, element, shape, aligned(x, gy), workspace,
                                    LayerNormParamsFinish{weight, bias}, shape.channels, x, gy, mean, inverse);
}

void batch_moments(const Launch& where, Element element, const Matrix& shape, const void* x, double* moments,
                   void* workspace) {
  sum_columns<MomentTerms>(where, element, shape, aligned(x), workspace, MomentsFinish{shape, element, x, moments},
                           shape.channels, x);
}
void batch_moments_gradient(const Launch& where, Element element, const Matrix& shape, const void* x,
                            const double* gradients, Slot gx) {
  apply_columns<BatchMomentsGradientBody>(where, element, shape, aligned(x, gx.to), shape.channels, x, gradients, gx);
}

void batch_statistics(const Launch& where, Element element, const BatchNormPlace& place, const void* x,
                      const Statistics& statistics, void* workspace) {
  sum_columns<MomentTerms>(where, element, place.shape, aligned(x), workspace,
                           StatisticsFinish{place.shape, place.epsilon, element, x, statistics}, place.shape.channels,
                           x);
}
void add_statistics(const Launch& where, const BatchNormPlace& place, const Statistics& statistics) {
  for_count(where, place.shape.channels, AddStatistics{place.shape, place.epsilon, statistics});
}
void hold_statistics(const Launch& where, const BatchNormPlace& place, const float* mean, const float* variance,
                     const Statistics& statistics) {
  for_count(where, place.shape.channels, HoldStatistics{place.epsilon, mean, variance, statistics});
}

void statistics_of_moments(const Launch& where, const BatchNormPlace& place, const double* moments,
                           const Statistics& statistics) {
  const std::int64_t channels = place.shape.channels;
  for_count(where, channels, StatisticsOfMoments{channels, place.epsilon, moments, statistics});
}
void moments_gradient(const Launch& where, const Matrix& shape, const NormalizeBackward& b, const double* moments,
                      Slot gradients) {
  for_count(where, shape.channels + 1, MomentsGradientBody{shape.channels, b, moments, gradients});
}

void normalize(const Launch& where, Element element, const BatchNormPlace& place, const void* x, const float* centre,
               const float* spread, bool running, const float* weight, const float* bias, void* y) {
  apply_columns<NormalizeBody>(where, element, place.shape, aligned(x, centre, spread, weight, bias, y),
                               place.activation, place.epsilon, running, x, centre, spread, weight, bias, y);
}
void normalize_params_gradient(const Launch& where, Element element, const BatchNormPlace& place,
                               const NormalizeBackward& b, Slot weight, Slot bias, void* workspace) {
  const std::int64_t channels = place.shape.channels;
  sum_columns<NormalizeParamsTerms>(
      where, element, place.shape, aligned(b.x, b.y, b.gy, b.mean, b.inverse, b.weight, b.bias), workspace,
      NormalizeParamsFinish{channels, b.inverse, b.sums, weight, bias}, channels, place.activation, b);
}
void normalize_gradient(const Launch& where, Element element, const BatchNormPlace& place, const NormalizeBackward& b,
                        bool moments_held, Slot gx) {
  const bool suits = aligned(b.x, b.y, b.gy, b.mean, b.inverse, b.weight, b.bias, b.sums, gx.to);
  apply_columns<NormalizeGradientBody>(where, element, place.shape, suits, place.shape, place.activation, moments_held,
                                       b, gx);
}

}  // namespace dtrain::cuda
