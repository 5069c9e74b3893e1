// Mixer: which samples of a step become one, and how much of each: mixup and cutmix.
// Immutable and owns nothing but settings; for any thread. Draws depend on the seed and the position in the stream.
#pragma once

#include <cstdint>

#include "io/augment/kinds.hpp"
#include "runtime/random/rng.hpp"
#include "runtime/tensor/tensor.hpp"

namespace dtrain::io {

class Mixer {
 public:
  /// `input`: a micro batch of what is mixed, f32. Cutmix needs images.
  Mixer(const Mix&, const TensorDesc& input, std::uint64_t seed);

  struct Draw {
    float own = 1;     // how much of the sample itself counts; the rest is its partner's
    bool cut = false;  // a rectangle is the partner's; else all values are means
    int left = 0, top = 0, right = 0, bottom = 0;
  };
  Draw draw(std::uint64_t position) const;
  /// The sample at `position` becomes the mixture; `values`: a sample's floats, channels last, and so is `partner`.
  void mix(const Draw&, const float* partner, float* values) const;

 private:
  double beta(std::uint64_t position, double alpha) const;
  double log_gamma_draw(std::uint64_t position, double shape, std::uint32_t first_block) const;
  Mix mix_;
  RandomKey key_;
  std::int64_t values_ = 0;  // of a sample
  int height_ = 1, width_ = 1, channels_ = 1;
};

}  // namespace dtrain::io
