#include "launch/infer/sampler.hpp"

#include <cmath>
#include <limits>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::launch {
namespace {

using Tokens = std::vector<io::TokenId>;

const std::vector<float> logits{1.0f, 3.0f, 2.0f, 3.0f, -1.0f};

/// Which tokens come, and how often, in 20,000 draws.
std::map<io::TokenId, double> shares(const SamplingOptions& options, const Tokens& text = {}) {
  Sampler sampler(options);
  std::map<io::TokenId, double> found;
  constexpr std::uint64_t draws = 20'000;
  for (std::uint64_t prompt = 0; prompt < draws; ++prompt) found[sampler.choose(logits, text, prompt)] += 1.0 / draws;
  return found;
}

std::set<io::TokenId> tokens_of(const SamplingOptions& options) {
  std::set<io::TokenId> found;
  for (const auto& [token, share] : shares(options)) found.insert(token);
  return found;
}

TEST(Sampler, WithoutTemperatureIsTheLikeliestWithTheSmallestId) {
  EXPECT_EQ(Sampler({.temperature = 0}).choose(logits, {}, 5), 1u);
  EXPECT_EQ(Sampler({.temperature = 0, .repetition_penalty = 2}).choose(logits, Tokens{1}, 5), 3u);
}

TEST(Sampler, DrawsAsOftenAsTheSoftmaxSays) {
  for (const double temperature : {0.5, 1.0, 2.0}) {
    double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit) / temperature);
    const auto seen = shares({.temperature = temperature, .seed = 3});
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const double p = std::exp(static_cast<double>(logits[i]) / temperature) / sum;
      const auto at = seen.find(static_cast<io::TokenId>(i));
      // Five standard deviations.
      EXPECT_NEAR(at == seen.end() ? 0 : at->second, p, 5 * std::sqrt(p / 20'000) + 1e-9) << i << " " << temperature;
    }
  }
}

TEST(Sampler, LeavesOutWhatTheFiltersDo) {
  EXPECT_EQ(tokens_of({.top_k = 1}), (std::set<io::TokenId>{1}));
  EXPECT_EQ(tokens_of({.top_k = 3}), (std::set<io::TokenId>{1, 2, 3}));
  // Probabilities: 0.054, 0.398, 0.147, 0.398, 0.007.
  EXPECT_EQ(tokens_of({.top_p = 0.39}), (std::set<io::TokenId>{1}));
  EXPECT_EQ(tokens_of({.top_p = 0.4}), (std::set<io::TokenId>{1, 3}));
  EXPECT_EQ(tokens_of({.top_p = 0.9}), (std::set<io::TokenId>{1, 2, 3}));
  EXPECT_EQ(tokens_of({.min_p = 0.3}), (std::set<io::TokenId>{1, 2, 3}));
  EXPECT_EQ(tokens_of({.min_p = 1}), (std::set<io::TokenId>{1, 3}));
}

TEST(Sampler, HangsOnSeedPromptAndPlace) {
  const auto draw = [](std::uint64_t seed, std::uint64_t prompt, std::size_t place) {
    return Sampler({.temperature = 5, .seed = seed}).choose(logits, Tokens(place, 0), prompt);
  };
  std::set<io::TokenId> seeds, prompts, places;
  for (std::uint64_t i = 0; i < 50; ++i) {
    EXPECT_EQ(draw(i, 2, 3), draw(i, 2, 3));
    seeds.insert(draw(i, 0, 0));
    prompts.insert(draw(0, i, 0));
    places.insert(draw(0, 0, static_cast<std::size_t>(i)));
  }
  EXPECT_GT(seeds.size(), 2u);
  EXPECT_GT(prompts.size(), 2u);
  EXPECT_GT(places.size(), 2u);
}

TEST(Sampler, TakesNoLogitThatIsNotFinite) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> one{nan, 1, nan}, none{nan, nan};
  EXPECT_EQ(Sampler({}).choose(one, {}, 0), 1u);
  EXPECT_THROW(Sampler({}).choose(none, {}, 0), DataError);
}

}  // namespace
}  // namespace dtrain::launch
