// Sampler: from the logits of the next token to a token.
// Owns the memory that it works in; one thread uses it. What it draws hangs on seed, prompt and place alone.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "io/text/tokenizer.hpp"

namespace dtrain::launch {

struct SamplingOptions {
  double temperature = 1;         // 0: always the likeliest token
  std::int64_t top_k = 0;         // only so many likeliest tokens; 0: all
  double top_p = 1;               // the likeliest tokens that have this probability together (Holtzman et al. 2020)
  double min_p = 0;               // no token below this part of the likeliest one's probability
  double repetition_penalty = 1;  // logits of tokens that were there are divided, or if negative multiplied, by it
  std::uint64_t seed = 0;
};

class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options) : options_(options) {}
  /// `text`: the tokens so far, of the prompt too. Filters apply in the order of the options. Equal logits: the smaller
  /// id comes first. Throws DataError where no logit is finite.
  io::TokenId choose(std::span<const float> logits, std::span<const io::TokenId> text, std::uint64_t prompt);

 private:
  struct Candidate {
    float logit;
    io::TokenId id;
  };
  SamplingOptions options_;
  std::vector<Candidate> candidates_;
  std::vector<double> probabilities_;
};

}  // namespace dtrain::launch
