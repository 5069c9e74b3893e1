// Own kernels of the CUDA device, as functions of pointers and sizes: each enqueues its work and returns.
// Pointers are device memory that the caller owns until the stream was there; images lie channels last.
#pragma once

#include <cstdint>

#include "runtime/cuda/grid.hpp"
#include "runtime/device/step_state.hpp"
#include "runtime/ops/activation.hpp"
#include "runtime/random/windows.hpp"

namespace dtrain::cuda {

enum class Element : std::uint8_t { f32, bf16, f16 };
enum class Put : std::uint8_t { none, overwrite, add };
/// A gradient's place, and how it is written.
struct Slot {
  void* to = nullptr;
  Put put = Put::none;
};

// ---- element by element: outputs may lie over inputs ---------------------------------------------------------------

void activate(const Launch&, Element, Activation, const void* x, void* y, std::int64_t n);
/// `seen`: the output where derivative_of_output, else the input.
void activation_gradient(const Launch&, Element, Activation, const void* seen, const void* gy, Slot gx, std::int64_t n);
/// y = act(a + b)
void add(const Launch&, Element, Activation, const void* a, const void* b, void* y, std::int64_t n);
void add_gradient(const Launch&, Element, Activation, const void* y, const void* gy, Slot ga, Slot gb, std::int64_t n);
void multiply(const Launch&, Element, const void* a, const void* b, void* y, std::int64_t n);
void multiply_gradient(const Launch&, Element, const void* a, const void* b, const void* gy, Slot ga, Slot gb,
                       std::int64_t n);
void cast(const Launch&, Element from_type, Element to_type, const void* from, Slot to, std::int64_t n);
/// Rows of `columns` elements, `from_step` and `to_step` elements apart.
struct Rows {
  std::int64_t rows, columns, from_step, to_step;
};
void copy_rows(const Launch&, Element, const Rows&, const void* from, Slot to);

struct DropoutShape {
  std::int64_t samples, features;
  std::uint32_t id, threshold;  // draws of 24 bits below it are dropped
  float scale;
  bool whole_sample;
};
/// `mask`: a byte a sample or an element.
void dropout(const Launch&, Element, const DropoutShape&, const StepState*, const std::uint64_t* positions,
             const void* x, void* y, std::uint8_t* mask);
void dropout_gradient(const Launch&, Element, const DropoutShape&, const std::uint8_t* mask, const void* gy, Slot gx);

// ---- pools ---------------------------------------------------------------------------------------------------------

/// `won` (or null): the window's element that was the largest.
void max_pool(const Launch&, Element, const WindowGrid&, const void* x, void* y, std::uint8_t* won);
void max_pool_gradient(const Launch&, Element, const WindowGrid&, const std::uint8_t* won, const void* gy, Slot gx);
void average_pool(const Launch&, Element, const WindowGrid&, bool count_padding, const void* x, void* y);
void average_pool_gradient(const Launch&, Element, const WindowGrid&, bool count_padding, const void* gy, Slot gx);

/// [samples, pixels, channels]
struct Images {
  std::int64_t samples, pixels, channels;
};
void global_average(const Launch&, Element, const Images&, const void* x, void* y);
void global_average_gradient(const Launch&, Element, const Images&, const void* gy, Slot gx);
/// y = a * b, b [samples, channels]
void scale_channels(const Launch&, Element, const Images&, const void* a, const void* b, void* y);
void scale_channels_gradient(const Launch&, Element, const Images&, const void* a, const void* b, const void* gy,
                             Slot ga, Slot gb);

// ---- norms ---------------------------------------------------------------------------------------------------------

/// [rows, channels]; workspace: sums_bytes().
struct Matrix {
  std::int64_t rows, channels;
};
/// Bytes of workspace for two sums a channel.
std::size_t sums_bytes(const Matrix&);

void layer_norm(const Launch&, Element, const Matrix&, float epsilon, const void* x, const float* weight,
                const float* bias, void* y, float* mean, float* inverse);  // the last two: null keeps nothing
void layer_norm_gradient(const Launch&, Element, const Matrix&, const void* x, const void* gy, const float* weight,
                         const float* mean, const float* inverse, Slot gx);
void layer_norm_params_gradient(const Launch&, Element, const Matrix&, const void* x, const void* gy, const float* mean,
                                const float* inverse, Slot weight, Slot bias, void* workspace);

struct BatchNormPlace {
  Matrix shape;
  Activation activation;
  double epsilon;
};
/// What batch norm keeps of a micro batch: to `mean` and `inverse`, and added to the step's sums (overwritten by the
/// first).
struct Statistics {
  float *mean, *inverse, *mean_sum, *variance_sum;
  bool first;
};
/// Sum, sum of squares of each channel and their count: [2 channels + 1].
void batch_moments(const Launch&, Element, const Matrix&, const void* x, double* moments, void* workspace);
void batch_moments_gradient(const Launch&, Element, const Matrix&, const void* x, const double* gradients, Slot gx);
void batch_statistics(const Launch&, Element, const BatchNormPlace&, const void* x, const Statistics&, void* workspace);
/// What a library kept in `mean` and `inverse`, added to the step's sums.
void add_statistics(const Launch&, const BatchNormPlace&, const Statistics&);
void statistics_of_moments(const Launch&, const BatchNormPlace&, const double* moments, const Statistics&);
/// y = act(...). `spread`: 1 / standard deviation, or a variance where `running`.
void normalize(const Launch&, Element, const BatchNormPlace&, const void* x, const float* centre, const float* spread,
               bool running, const float* weight, const float* bias, void* y);

/// What backward of batch norm reads; `sums` [2, channels]: of the gradient, and of its product with the normalized x.
struct NormalizeBackward {
  const void *x, *y, *gy;
  const float *mean, *inverse, *weight, *bias;
  float* sums;
};
void normalize_params_gradient(const Launch&, Element, const BatchNormPlace&, const NormalizeBackward&, Slot weight,
                               Slot bias, void* workspace);
/// `moments_held`: their gradient goes its own way.
void normalize_gradient(const Launch&, Element, const BatchNormPlace&, const NormalizeBackward&, bool moments_held,
                        Slot gx);
void moments_gradient(const Launch&, const Matrix&, const NormalizeBackward&, const double* moments, Slot gradients);

}  // namespace dtrain::cuda
