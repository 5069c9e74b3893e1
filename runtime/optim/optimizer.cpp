#include "runtime/optim/optimizer.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "runtime/device/device.hpp"
#include "runtime/plan/flat.hpp"

namespace dtrain {

int state_count(const UpdateRule& rule) noexcept {
  if (const auto* sgd = std::get_if<Sgd>(&rule.kind)) return sgd->momentum != 0 ? 1 : 0;
  if (const auto* lars = std::get_if<Lars>(&rule.kind)) return lars->momentum != 0 ? 1 : 0;
  return 2;
}

std::string state_name(const UpdateRule& rule, int index) {
  if (std::holds_alternative<Sgd>(rule.kind) || std::holds_alternative<Lars>(rule.kind)) return "momentum";
  return index == 0 ? "first_moment" : "second_moment";
}

double base_learning_rate(const UpdateRule& rule) noexcept {
  return std::visit([](const auto& r) { return r.learning_rate; }, rule.kind);
}

bool needs_whole_parameters(const UpdateRule& rule) noexcept {
  return std::holds_alternative<Lars>(rule.kind) || std::holds_alternative<Lamb>(rule.kind) ||
         std::holds_alternative<Muon>(rule.kind);
}

bool has_state(const FlatParam& param, int index) noexcept {
  return param.matrices.empty() || index == 0;
}

std::size_t norm_scratch(const FlatLayout& layout) noexcept {
  std::size_t blocks = 0;
  for (const FlatParam& p : layout.trained()) blocks += (p.size + norm_block - 1) / norm_block;
  return 2 * blocks + layout.trained().size();
}

double learning_rate(const Schedule& s, double unscaled, std::int64_t global_batch, std::int64_t step,
                     std::int64_t total) {
  const double scale =
      s.reference_batch > 0 ? static_cast<double>(global_batch) / static_cast<double>(s.reference_batch) : 1.0;
  const double base = unscaled * scale;
  if (step < s.warmup_steps) {
    const auto steps = static_cast<double>(s.warmup_steps), done = static_cast<double>(step);
    return scale > 1 ? unscaled + (base - unscaled) * done / steps : base * (done + 1) / steps;
  }
  if (s.decay == Schedule::Decay::constant) return base;
  if (s.decay == Schedule::Decay::step) {
    const std::int64_t times = s.every_steps > 0 ? step / s.every_steps : 0;
    return base * std::pow(s.factor, static_cast<double>(times));
  }
  if (s.decay == Schedule::Decay::inverse_sqrt) {
    const auto warmed = static_cast<double>(std::max<std::int64_t>(s.warmup_steps, 1));
    return base * std::sqrt(warmed / static_cast<double>(step + 1));
  }
  if (s.decay == Schedule::Decay::wsd) {
    const std::int64_t steps =
        s.decay_steps > 0 ? s.decay_steps : std::llround(s.decay_fraction * static_cast<double>(total));
    const std::int64_t begin = std::max(total - steps, s.warmup_steps);
    if (step < begin) return base;
    const double t = std::min(
        static_cast<double>(step + 1 - begin) / static_cast<double>(std::max<std::int64_t>(total - begin, 1)), 1.0);
    const double left = s.decay_shape == Schedule::Shape::linear ? 1.0 - t : 1.0 - std::sqrt(t);
    return base * (s.final_factor + (1.0 - s.final_factor) * left);
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
