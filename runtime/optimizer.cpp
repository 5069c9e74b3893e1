#include "runtime/optimizer.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace dtrain {

int state_count(const UpdateRule& rule) noexcept {
  if (const auto* sgd = std::get_if<Sgd>(&rule.kind)) return sgd->momentum != 0 ? 1 : 0;
  return 2;
}

std::string state_name(const UpdateRule& rule, int index) {
  if (std::holds_alternative<Sgd>(rule.kind)) return "momentum";
  return index == 0 ? "first_moment" : "second_moment";
}

double base_learning_rate(const UpdateRule& rule) noexcept {
  return std::visit([](const auto& r) { return r.learning_rate; }, rule.kind);
}

double learning_rate(const Schedule& s, double base, std::int64_t step, std::int64_t total) {
  if (step < s.warmup_steps) return base * static_cast<double>(step + 1) / static_cast<double>(s.warmup_steps);
  if (s.decay == Schedule::Decay::constant) return base;
  if (s.decay == Schedule::Decay::step) {
    const std::int64_t times = s.every_steps > 0 ? step / s.every_steps : 0;
    return base * std::pow(s.factor, static_cast<double>(times));
  }
  // Progress 0 at the first step after warm-up, 1 at the last step.
  const auto span = static_cast<double>(std::max<std::int64_t>(total - 1 - s.warmup_steps, 1));
  const double t = std::min(static_cast<double>(step - s.warmup_steps) / span, 1.0);
  double left = 1.0 - t;
  if (s.decay == Schedule::Decay::cosine) left = 0.5 * (1.0 + std::cos(std::numbers::pi * t));
  if (s.decay == Schedule::Decay::polynomial) left = std::pow(1.0 - t, s.power);
  return base * (s.final_factor + (1.0 - s.final_factor) * left);
}

}  // namespace dtrain
