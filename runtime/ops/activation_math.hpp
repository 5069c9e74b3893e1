// One element of an activation and of its gradient, shared by every device: PyTorch's definitions, in float.
// Free functions that own nothing. No branch and no call, so that loops over them become vector code (hence always
// inlined); NaN stays NaN.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "runtime/ops/activation.hpp"
#include "runtime/random/rng.hpp"

namespace dtrain {

/// e^x (Cody and Waite's reduction, Cephes' polynomial; relative error below 2e-7). Beyond -60 and 60 it gives e^-60
/// and e^60: no activation can tell, and no product with them is a denormal number, which processors are slow with.
DTRAIN_HOST_DEVICE [[gnu::always_inline]] inline float exp_bounded(float x) {
  x = x < -60.0f ? -60.0f : x;
  x = x > 60.0f ? 60.0f : x;
  constexpr float to_integer = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const float shifted = x * 1.44269504f + to_integer;
  const float n = shifted - to_integer;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * std::bit_cast<float>((std::bit_cast<std::uint32_t>(shifted) + 127u) << 23);
}

DTRAIN_HOST_DEVICE [[gnu::always_inline]] inline float sigmoid(float x) {
  return 1.0f / (1.0f + exp_bounded(-x));
}

/// Near zero x + x^3 P(x^2) (least relative error within 0.625, 5e-9), beyond it 1 - 2 / (e^2x + 1).
DTRAIN_HOST_DEVICE [[gnu::always_inline]] inline float tanh_of(float x) {
  const float z = x * x, size = x < 0.0f ? -x : x;
  float p = -5.704042524521565e-3f;
  p = p * z + 2.063786148881002e-2f;
  p = p * z - 5.373915650350176e-2f;
  p = p * z + 1.3331431753507386e-1f;
  p = p * z - 3.3333281284113025e-1f;
  const float near = x + x * (z * p);
  const float far = 1.0f - 2.0f / (exp_bounded(2.0f * size) + 1.0f);
  const float signed_far = x < 0.0f ? -far : far;
  return size < 0.625f ? near : signed_far;
}

/// The normal distribution's function and density at x. The tail at -|x| is its density times t P(t),
/// t = 1 / (1 + 0.35 |x|) (least relative error, 4e-8), so that it keeps its digits.
struct Normal {
  float cumulative, density_times_root;  // the second is e^(-x^2 / 2)
};
DTRAIN_HOST_DEVICE [[gnu::always_inline]] inline Normal normal(float x) {
  const float size = x < 0.0f ? -x : x;
  const float t = 1.0f / (1.0f + 0.35f * size);
  float p = -2.9146134583801556e-2f;
  p = p * t + 1.4397268329310184e-1f;
  p = p * t - 2.5571626908204e-1f;
  p = p * t + 1.591764328574956e-1f;
  p = p * t - 2.3111376337848377e-2f;
  p = p * t + 1.0550864516311627e-1f;
  p = p * t + 1.1983270849131275e-1f;
  p = p * t + 1.3986189115856712e-1f;
  p = p * t + 1.3962140309291668e-1f;
  const float e = exp_bounded(-0.5f * size * size);
  const float tail = e * (t * p);
  return {x < 0.0f ? tail : 1.0f - tail, e};
}

/// 2 sqrt(2 / pi) (x + 0.044715 x^3) and its derivative: gelu's approximation by tanh is x * sigmoid of it.
struct GeluTanh {
  float argument, slope;
};
DTRAIN_HOST_DEVICE [[gnu::always_inline]] inline GeluTanh gelu_tanh(float x) {
  constexpr float factor = 1.5957691216f;
  const float square = x * x;
  return {factor * (x + 0.044715f * square * x), factor * (1.0f + 0.134145f * square)};
}

template <Activation kind>
DTRAIN_HOST_DEVICE [[gnu::always_inline]] inline float activate(float x) {
  if constexpr (kind == Activation::relu) return x < 0.0f ? 0.0f : x;
  if constexpr (kind == Activation::gelu) return x * normal(x).cumulative;
  if constexpr (kind == Activation::gelu_tanh) return x * sigmoid(gelu_tanh(x).argument);
  if constexpr (kind == Activation::silu) return x * sigmoid(x);
  if constexpr (kind == Activation::tanh) return tanh_of(x);
  if constexpr (kind == Activation::sigmoid) return sigmoid(x);
  if constexpr (kind == Activation::hard_swish) {
    float gate = x + 3.0f;
    gate = gate < 0.0f ? 0.0f : gate;
    gate = gate > 6.0f ? 6.0f : gate;
    return x * gate * (1.0f / 6.0f);
  }
  return x;
}

/// derivative_of_output() as a constant.
template <Activation kind>
inline constexpr bool derivative_of_output_v =
    kind == Activation::relu || kind == Activation::tanh || kind == Activation::sigmoid;

/// The gradient of the input from that of the output. `seen` is the output where derivative_of_output(kind), else the
/// input.
template <Activation kind>
DTRAIN_HOST_DEVICE [[gnu::always_inline]] inline float activation_gradient(float seen, float gradient) {
  if constexpr (kind == Activation::relu) return seen > 0.0f ? gradient : 0.0f;
  if constexpr (kind == Activation::tanh) return gradient * (1.0f - seen * seen);
  if constexpr (kind == Activation::sigmoid) return gradient * (seen * (1.0f - seen));
  if constexpr (kind == Activation::gelu) {
    const Normal n = normal(seen);
    return gradient * (n.cumulative + seen * (n.density_times_root * 0.3989422804f));
  }
  if constexpr (kind == Activation::gelu_tanh) {
    const GeluTanh g = gelu_tanh(seen);
    const float s = sigmoid(g.argument);
    return gradient * (s + seen * (s * (1.0f - s)) * g.slope);
  }
  if constexpr (kind == Activation::silu) {
    const float s = sigmoid(seen);
    return gradient * (s * (1.0f + seen * (1.0f - s)));
  }
  if constexpr (kind == Activation::hard_swish) {
    const float middle = seen * (1.0f / 3.0f) + 0.5f;
    const float slope = seen < -3.0f ? 0.0f : (seen > 3.0f ? 1.0f : middle);
    return gradient * slope;
  }
  return gradient;
}

// ---- the choice of one, made once for a loop -----------------------------------------------------------------------

template <Activation kind>
using ActivationConstant = std::integral_constant<Activation, kind>;

/// Calls body(ActivationConstant<kind>{}).
template <class Body>
DTRAIN_HOST_DEVICE inline void with_activation(Activation kind, const Body& body) {
  if (kind == Activation::relu) return body(ActivationConstant<Activation::relu>{});
  if (kind == Activation::gelu) return body(ActivationConstant<Activation::gelu>{});
  if (kind == Activation::gelu_tanh) return body(ActivationConstant<Activation::gelu_tanh>{});
  if (kind == Activation::silu) return body(ActivationConstant<Activation::silu>{});
  if (kind == Activation::tanh) return body(ActivationConstant<Activation::tanh>{});
  if (kind == Activation::sigmoid) return body(ActivationConstant<Activation::sigmoid>{});
  if (kind == Activation::hard_swish) return body(ActivationConstant<Activation::hard_swish>{});
  body(ActivationConstant<Activation::none>{});
}
/// The same for what may stand in an epilogue: none and those whose derivative_of_output.
template <class Body>
DTRAIN_HOST_DEVICE inline void with_epilogue(Activation kind, const Body& body) {
  if (kind == Activation::relu) return body(ActivationConstant<Activation::relu>{});
  if (kind == Activation::tanh) return body(ActivationConstant<Activation::tanh>{});
  if (kind == Activation::sigmoid) return body(ActivationConstant<Activation::sigmoid>{});
  body(ActivationConstant<Activation::none>{});
}

}  // namespace dtrain
