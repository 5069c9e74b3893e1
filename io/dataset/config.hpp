// Plain settings of data sets and of what is done to their samples, with their defaults.
// Values only; launch/ fills them from YAML, io/ reads them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace dtrain::io {

/// stored value -> (value * scale - mean) / standard_deviation; mean and standard_deviation have one entry, or one a
/// channel.
struct Normalize {
  double scale = 1.0;
  std::vector<double> mean;                // empty: 0
  std::vector<double> standard_deviation;  // empty: 1
};

// Random changes of training images. Geometric ones are composed, in their order, into one resampling; colours change
// after it.
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
};
using Augmentation = std::variant<RandomCrop, RandomResizedCrop, Flip, Rotation, Scaling, ColorJitter>;
/// As users write it.
std::string name_of(const Augmentation&);

struct DataConfig {
  std::vector<std::string> train;  // files or globs; several are shards, in this order
  std::vector<std::string> eval;   // may be empty: no evaluation
  std::string sample_key;          // HDF5 path of the samples; empty: detect
  std::string target_key;          // HDF5 path of labels or targets; empty: detect
  bool shuffle = true;
  Normalize normalize;
  std::vector<Augmentation> augment;  // training only; each kind at most once
  int prefetch_threads = 1;
  int prefetch_batches = 4;        // ring of micro batches
  std::int64_t open_files = 0;     // of a set that a rank has open at a time; 0: a quarter of what the system allows
  double cache_mib = 1024;         // a rank keeps the whole set in memory if it is not larger than this; 0: never
  double device_cache_mib = 4096;  // the same of a GPU's memory, for sets of bytes
};

}  // namespace dtrain::io
