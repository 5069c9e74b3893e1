#include "launch/infer/sampler.hpp"

#include <algorithm>
#include <cmath>

#include "runtime/random/rng.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

io::TokenId Sampler::choose(std::span<const float> logits, std::span<const io::TokenId> text, std::uint64_t prompt) {
  candidates_.clear();
  for (std::size_t i = 0; i < logits.size(); ++i) candidates_.push_back({logits[i], static_cast<io::TokenId>(i)});
  if (options_.repetition_penalty != 1) {
    const auto penalty = static_cast<float>(options_.repetition_penalty);
    for (const io::TokenId id : text) {
      if (id >= logits.size()) continue;
      const float logit = logits[id];  // once, however often the token was there
      candidates_[id].logit = logit > 0 ? logit / penalty : logit * penalty;
    }
  }
  std::erase_if(candidates_, [](const Candidate& c) { return !std::isfinite(c.logit); });
  if (candidates_.empty()) throw DataError("the model gives no finite logit: it diverged in training");
  const auto before = [](const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
  };
  if (options_.temperature == 0) return std::min_element(candidates_.begin(), candidates_.end(), before)->id;
  if (options_.top_k > 0 && static_cast<std::size_t>(options_.top_k) < candidates_.size()) {
    const auto end = candidates_.begin() + options_.top_k;
    std::nth_element(candidates_.begin(), end - 1, candidates_.end(), before);
    candidates_.erase(end, candidates_.end());
  }
  if (options_.top_p < 1) std::sort(candidates_.begin(), candidates_.end(), before);
  const auto largest = static_cast<double>(std::min_element(candidates_.begin(), candidates_.end(), before)->logit);
  probabilities_.clear();
  double sum = 0;
  for (const Candidate& c : candidates_)
    sum += probabilities_.emplace_back(std::exp((static_cast<double>(c.logit) - largest) / options_.temperature));
  std::size_t kept = candidates_.size();
  if (options_.top_p < 1) {
    double together = 0;
    kept = 0;
    while (kept < candidates_.size() && together < options_.top_p * sum) together += probabilities_[kept++];
  }
  sum = 0;
  for (std::size_t i = 0; i < kept; ++i) {
    if (probabilities_[i] < options_.min_p) probabilities_[i] = 0;  // the likeliest one's is 1
    sum += probabilities_[i];
  }
  const Random4 draw =
      draw4(random_key(options_.seed, Purpose::generation), prompt, 0, static_cast<std::uint32_t>(text.size()));
  const std::uint64_t bits = (static_cast<std::uint64_t>(draw.v[0]) << 21) ^ draw.v[1] >> 11;
  double left = static_cast<double>(bits) * 0x1p-53 * sum;
  std::size_t last = 0;
  for (std::size_t i = 0; i < kept; ++i) {
    if (probabilities_[i] == 0) continue;
    last = i;
    if (left < probabilities_[i]) break;
    left -= probabilities_[i];
  }
  return candidates_[last].id;
}

}  // namespace dtrain::launch
