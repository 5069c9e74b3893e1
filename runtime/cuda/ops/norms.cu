// Starts the kernels of layer and batch normalization.
#include "runtime/cuda/ops/norm_bodies.hpp"

namespace dtrain::cuda {

std::size_t sums_bytes(const Matrix& shape) {
  // One channel a thread makes the most chunks.
  std::int64_t chunks = 0;
  for (const int width : {1, width_of<float>, width_of<Bf16>}) {
    const std::int64_t of_width = sums_tiling(shape, width).chunks;
    chunks = of_width > chunks ? of_width : chunks;
  }
  return static_cast<std::size_t>(2 * chunks * shape.channels) * sizeof(double);
}

void layer_norm(const Launch& where, Element element, const Matrix& shape, float epsilon, const void* x,
                const float* weight, const float* bias, void* y, float* mean, float* inverse) {
  with_width(element, shape.channels, aligned(x, weight, bias, y), [&](auto tag, auto w) {
    using T = decltype(tag);
    using Body = LayerNormBody<T, w.value>;
    launch(where, divide_up(shape.rows, Body::rows),
           Body{{}, shape, epsilon, as<T>(x), weight, bias, static_cast<T*>(y), mean, inverse});
  });
}

void layer_norm_gradient(const Launch& where, Element element, const Matrix& shape, const void* x, const void* gy,
                         const float* weight, const float* mean, const float* inverse, Slot gx) {
  with_width(element, shape.channels, aligned(x, gy, weight, gx.to), [&](auto tag, auto w) {
    using T = decltype(tag);
    using Body = LayerNormGradientBody<T, w.value>;
    launch(where, divide_up(shape.rows, Body::rows), Body{{}, shape, as<T>(x), as<T>(gy), weight, mean, inverse, gx});
  });
}

void layer_norm_params_gradient(const Launch& where, Element element, const Matrix& shape, const void* x,
                                const void* gy, const float* mean, const float* inverse, Slot weight, Slot bias,
                                void* workspace) {
  with_width(element, shape.channels, aligned(x, gy), [&](auto tag, auto w) {
    using T = decltype(tag);
    sum_columns(where, shape, workspace,
                LayerNormParamsTerms<T, w.value>{shape.channels, as<T>(x), as<T>(gy), mean, inverse},
                LayerNormParamsFinish{weight, bias});
  });
}

void batch_moments(const Launch& where, Element element, const Matrix& shape, const void* x, double* moments,
                   void* workspace) {
  with_width(element, shape.channels, aligned(x), [&](auto tag, auto w) {
    using T = decltype(tag);
    sum_columns(where, shape, workspace, MomentTerms<T, w.value>{shape.channels, as<T>(x)},
                MomentsFinish<T>{shape, as<T>(x), moments});
  });
}

void batch_moments_gradient(const Launch& where, Element element, const Matrix& shape, const void* x,
                            const double* gradients, Slot gx) {
  with_width(element, shape.channels, aligned(x, gx.to), [&](auto tag, auto w) {
    using T = decltype(tag);
    apply_columns(where, shape, BatchMomentsGradientBody<T, w.value>{shape.channels, as<T>(x), gradients, gx});
  });
}

void batch_statistics(const Launch& where, Element element, const BatchNormPlace& place, const void* x,
                      const Statistics& statistics, void* workspace) {
  with_width(element, place.shape.channels, aligned(x), [&](auto tag, auto w) {
    using T = decltype(tag);
    sum_columns(where, place.shape, workspace, MomentTerms<T, w.value>{place.shape.channels, as<T>(x)},
                StatisticsFinish<T>{place.shape, place.epsilon, as<T>(x), statistics});
  });
}

void add_statistics(const Launch& where, const BatchNormPlace& place, const Statistics& statistics) {
  launch(where, divide_up(place.shape.channels, block_threads), AddStatistics{place.shape, place.epsilon, statistics});
}

void statistics_of_moments(const Launch& where, const BatchNormPlace& place, const double* moments,
                           const Statistics& statistics) {
  launch(where, divide_up(place.shape.channels, block_threads),
         StatisticsOfMoments{place.shape.channels, place.epsilon, moments, statistics});
}

void normalize(const Launch& where, Element element, const BatchNormPlace& place, const void* x, const float* centre,
               const float* spread, bool running, const float* weight, const float* bias, void* y) {
  with_width(element, place.shape.channels, aligned(x, centre, spread, weight, bias, y), [&](auto tag, auto w) {
    using T = decltype(tag);
    apply_columns(where, place.shape,
                  NormalizeBody<T, w.value>{place.activation, place.epsilon, running, as<T>(x), centre, spread, weight,
                                            bias, static_cast<T*>(y)});
  });
}

void normalize_params_gradient(const Launch& where, Element element, const BatchNormPlace& place,
                               const NormalizeBackward& b, Slot weight, Slot bias, void* workspace) {
  const std::int64_t channels = place.shape.channels;
  with_width(element, channels, aligned(b.x, b.y, b.gy, b.mean, b.inverse, b.weight, b.bias), [&](auto tag, auto w) {
    using T = decltype(tag);
    sum_columns(where, place.shape, workspace, NormalizeParamsTerms<T, w.value>{channels, place.activation, b},
                NormalizeParamsFinish{channels, b.inverse, b.sums, weight, bias});
  });
}

void normalize_gradient(const Launch& where, Element element, const BatchNormPlace& place, const NormalizeBackward& b,
                        bool moments_held, Slot gx) {
  const bool suits = aligned(b.x, b.y, b.gy, b.mean, b.inverse, b.weight, b.bias, b.sums, gx.to);
  with_width(element, place.shape.channels, suits, [&](auto tag, auto w) {
    using T = decltype(tag);
    apply_columns(where, place.shape,
                  NormalizeGradientBody<T, w.value>{place.shape, place.activation, moments_held, b, gx});
  });
}

void moments_gradient(const Launch& where, const Matrix& shape, const NormalizeBackward& b, const double* moments,
                      Slot gradients) {
  launch(where, divide_up(shape.channels + 1, block_threads),
         MomentsGradientBody{shape.channels, b, moments, gradients});
}

}  // namespace dtrain::cuda
