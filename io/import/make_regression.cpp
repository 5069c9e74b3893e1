#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "io/files/output.hpp"
#include "io/hdf5/hdf5_writer.hpp"
#include "io/import/import_mnist.hpp"
#include "runtime/random/rng.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

/// A standard normal draw (Box, Muller): a pure function of its arguments.
double normal(RandomKey key, std::uint64_t item, std::uint32_t block) {
  const Random4 r = draw4(key, item, 0, block);
  const double u = (static_cast<double>(r.v[0]) + 1.0) * 0x1p-32;  // in (0, 1]
  const double v = static_cast<double>(r.v[1]) * 0x1p-32;
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
}

}  // namespace

RegressionTruth make_regression(const std::string& out, const RegressionOptions& options) {
  check_output(out, {});
  if (options.samples < 1 || options.features < 1 || options.features > (1 << 20)) {
    throw ConfigError(
        fmt::format("make regression: {} samples of {} features; both must be at least 1, and features at most {}",
                    options.samples, options.features, 1 << 20));
  }
  if (!(options.noise >= 0) || !std::isfinite(options.noise))
    throw ConfigError("make regression: noise must be 0 or more");
  const RandomKey key = random_key(options.seed, Purpose::data);
  constexpr std::uint64_t truth_item = ~std::uint64_t{0};  // samples count from 0
  const auto features = static_cast<std::size_t>(options.features);
  RegressionTruth truth;
  std::vector<double> weight;
  for (std::size_t f = 0; f < features; ++f) {
    truth.weight.push_back(static_cast<float>(normal(key, truth_item, static_cast<std::uint32_t>(f))));
    weight.push_back(static_cast<double>(truth.weight[f]));
  }
  truth.bias = static_cast<float>(normal(key, truth_item, static_cast<std::uint32_t>(features)));

  h5::Writer writer(out);
  const std::array<std::uint64_t, 2> x_dims{options.samples, features}, y_dims{options.samples, 1};
  const std::size_t x_set = writer.add("x", StoredType::f32, x_dims), y_set = writer.add("y", StoredType::f32, y_dims);
  const std::uint64_t block = std::clamp<std::uint64_t>((1 << 20) / features, 1, options.samples);
  std::vector<float> x(block * features), y(block);
  for (std::uint64_t first = 0; first < options.samples; first += block) {
    const std::uint64_t rows = std::min(block, options.samples - first);
    for (std::uint64_t i = 0; i < rows; ++i) {
      double sum = static_cast<double>(truth.bias);
      for (std::size_t f = 0; f < features; ++f) {
        const auto value = static_cast<float>(normal(key, first + i, static_cast<std::uint32_t>(f)));
        x[i * features + f] = value;
        sum += static_cast<double>(value) * weight[f];
      }
      y[i] = static_cast<float>(sum + options.noise * normal(key, first + i, static_cast<std::uint32_t>(features)));
    }
    writer.write(x_set, first, rows, x.data());
    writer.write(y_set, first, rows, y.data());
  }
  const double bias = static_cast<double>(truth.bias), seed = static_cast<double>(options.seed);
  writer.attribute(y_set, "true_weight", weight);
  writer.attribute(y_set, "true_bias", std::span(&bias, 1));
  writer.attribute(y_set, "noise", std::span(&options.noise, 1));
  writer.attribute(y_set, "seed", std::span(&seed, 1));
  writer.commit();
  truth.text = fmt::format(
      "wrote {}: {} samples of {} features (float32); y = x . [{:.4f}] + {:.4f} + noise of standard deviation {}", out,
      options.samples, features, fmt::join(weight, ", "), bias, options.noise);
  return truth;
}

}  // namespace dtrain::io
