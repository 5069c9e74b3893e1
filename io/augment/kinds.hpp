// Settings of augmentations: changes of one training image, and mixtures of two samples.
// Plain values with torchvision's defaults; launch/ fills them from YAML.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <variant>
#include <vector>

namespace dtrain::io {

// Random changes of training images. Geometric ones are composed, in their order, into one resampling; colours change
// after it, then RandAugment works on bytes, and random erasing on the normalized image.
struct RandomCrop {
  std::int64_t padding = 4;  // pixels of 0 on each side before the crop
};
struct RandomResizedCrop {
  std::array<double, 2> scale{0.08, 1}, ratio{0.75, 4.0 / 3};  // of the area; of width to height
};
struct Flip {
  double horizontal = 0.5, vertical = 0;  // probabilities
};
struct Rotation {
  double degrees = 15;  // either way, about the centre
};
struct Scaling {
  std::array<double, 2> factor{0.9, 1.1};  // about the centre
};
struct ColorJitter {
  double brightness = 0, contrast = 0, saturation = 0;  // factors lie in 1 +- this
  double hue = 0;                                       // parts of the circle
  bool random_order = false;                            // else in this order
};
/// Zhong et al., 2017: a rectangle of the normalized image is replaced.
struct RandomErasing {
  double probability = 0.5;
  std::array<double, 2> scale{0.02, 0.33};  // of the image's area
  std::array<double, 2> ratio{0.3, 3.3};    // of height to width
  static constexpr double random = std::numeric_limits<double>::infinity();
  double value = 0;  // normalized; random: each value is drawn from the standard normal distribution
};

/// Cubuk et al., 2019: some operations of a list, one after the other, all of one strength.
struct RandAugment {
  std::int64_t operations = 2, magnitude = 9;  // magnitude: 0 ... 30
};

using Augmentation =
    std::variant<RandomCrop, RandomResizedCrop, Flip, Rotation, Scaling, ColorJitter, RandomErasing, RandAugment>;
/// As users write it.
std::string name_of(const Augmentation&);
/// Whether any of them changes where pixels lie.
bool moves(const std::vector<Augmentation>&);
/// Whether one of them is of a kind that no device computes: images are augmented on the host then.
bool on_host(const std::vector<Augmentation>&);
/// Whether nearest pixels of another image cannot follow, as one of them moves pixels step by step.
bool cannot_be_followed(const std::vector<Augmentation>&);

/// Pairs of samples of a step become one, with both labels (Zhang et al., 2017, and Yun et al., 2019).
struct Mix {
  double mixup = 0, cutmix = 0;     // the parameter of the beta distribution of each; 0: not used
  double probability = 1;           // that a sample is mixed
  double cutmix_probability = 0.5;  // where both are used: that it is cutmix
  bool on() const noexcept { return mixup > 0 || cutmix > 0; }
};

}  // namespace dtrain::io
