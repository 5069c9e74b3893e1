// Makes HDF5 files from what people have: MNIST-like IDX files, and a linear regression set with a known truth.
// Functions on the caller's thread; a file appears under its name only when it is complete (temporary file, rename).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dtrain::io {

struct ImportReport {
  std::string path;
  std::uint64_t samples = 0;
  std::int64_t height = 0, width = 0;
  std::int64_t classes = 0;
  /// "wrote data/mnist-train.h5: 60000 images of 1x28x28 (uint8), 10 classes"
  std::string text() const;
};

/// IDX (gzip or not), uint8 images [N, H, W] and uint8 labels [N] -> /images u8 [N, 1, H, W], /labels u8 [N],
/// contiguous. Throws DataError: missing, wrong magic, counts that differ, truncated, bytes left over, output not
/// writable.
ImportReport import_mnist(const std::string& images, const std::string& labels, const std::string& out);

struct RegressionOptions {
  std::uint64_t samples = 1000;
  std::int64_t features = 10;
  std::uint64_t seed = 1;
  double noise = 0.1;  // standard deviation
};
struct RegressionTruth {
  std::vector<float> weight;  // [features]
  float bias = 0;
  std::string text;  // what the command prints
};
/// x f32 [N, features] standard normal, y f32 [N, 1] = x . weight + bias + noise. The truth is kept as attributes
/// `true_weight`, `true_bias`, `noise` and `seed` of /y, so that a test may check what was learnt.
RegressionTruth make_regression(const std::string& out, const RegressionOptions&);

}  // namespace dtrain::io
