// The optimizers' rules as plain data.
// Constant over a run, and without any other header of the runtime: device code includes them.
#pragma once

namespace dtrain {

/// PyTorch's SGD: g += decay * w; m = momentum * m + g; g = nesterov ? g + momentum * m : m; w -= lr * g. Momentum
/// starts as g (m0 = 0).
struct Sgd {
  double learning_rate = 0.01, momentum = 0, weight_decay = 0;
  bool nesterov = false;
};
/// Kingma & Ba 2015; weight_decay is added to the gradient (L2).
struct Adam {
  double learning_rate = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0;
};
/// Loshchilov & Hutter 2019: w -= lr * weight_decay * w, then Adam.
struct AdamW {
  double learning_rate = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0.01;
};

/// Jordan et al. 2024, as torch.optim.Muon, for the hidden matrices of a model (matrices.hpp says which those are): m
/// += (g - m) * (1 - momentum); u = nesterov ? g + momentum * (m - g) : m; w -= learning_rate * weight_decay * w, then
/// w -= learning_rate * scale * orthogonal(u), where orthogonal() is newton_schulz. All other parameters go by `adamw`.
struct Muon {
  /// original: sqrt(max(1, rows / columns)). match_rms_adamw: 0.2 * sqrt(max(rows, columns)), so that a step is as long
  /// as AdamW's (Liu et al. 2025).
  enum class Scale : unsigned char { match_rms_adamw, original };
  /// What the products of newton_schulz multiply and leave; sums are float32.
  enum class Products : unsigned char { float32, bfloat16 };
  double learning_rate = 0.001, momentum = 0.95, weight_decay = 0.1, epsilon = 1e-7;
  bool nesterov = true;
  Scale scale = Scale::match_rms_adamw;
  Products products = Products::float32;
  AdamW adamw = {};
};
/// x = u / max(|u|, epsilon), then so many times x = a x + (b g + c g g) x with g = x x^T (of the shorter side).
namespace newton_schulz {
inline constexpr int steps = 5;
inline constexpr float a = 3.4445f, b = -4.7750f, c = 2.0315f;
}  // namespace newton_schulz

/// You et al. 2017: the rate of each parameter is learning_rate * ratio, ratio = trust_coefficient * |w| / (|g| +
/// weight_decay * |w| + epsilon), or 1 where |w| or |g| is 0; then u = rate * (g + weight_decay * w), m = momentum * m
/// + u, w -= nesterov ? momentum * m + u : m. Parameters without decay (biases, norms) have ratio 1.
struct Lars {
  double learning_rate = 0.1, momentum = 0.9, weight_decay = 0.0001, trust_coefficient = 0.001, epsilon = 1e-9;
  bool nesterov = false;
};
/// You et al. 2020: u = Adam's direction (with bias correction) + weight_decay * w, w -= learning_rate * |w| / |u| * u;
/// the ratio is 1 where a norm is 0. Parameters without decay (biases, norms) have ratio 1: plain Adam.
struct Lamb {
  double learning_rate = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-6, weight_decay = 0.01;
};

}  // namespace dtrain
