#include "launch/plan/statistics.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace dtrain::launch {

namespace {

/// How many of n ordered values from either end are outside of the median's interval: the largest k with
/// P(Binomial(n, 1/2) < k) <= 0.025.
int outside(int n) {
  double probability = std::exp2(-n), below = 0;  // P(X = k), P(X < k)
  int k = 0;
  while (below + probability <= 0.025 && k < n / 2) {
    below += probability;
    probability *= static_cast<double>(n - k) / (k + 1);
    ++k;
  }
  return k;
}

/// The 97.5 % point of Student's distribution.
double student(int freedom) {
  constexpr double table[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                              2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086};
  const auto i = static_cast<std::size_t>(freedom - 1);
  return i < std::size(table) ? table[i] : 1.96 + 2.5 / freedom;
}

}  // namespace

Estimate median_of(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  const double median = n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
  // A thousand values are enough for exp2(-n) to vanish; the normal approximation is exact by then.
  const auto k = n <= 1000 ? static_cast<std::size_t>(outside(static_cast<int>(n)))
                           : static_cast<std::size_t>(static_cast<double>(n) / 2 - 0.98 * std::sqrt(n));
  const std::size_t at = k > 0 ? k - 1 : 0;
  return {median, values[at], values[n - 1 - at], values.front(), static_cast<int>(n)};
}

Estimate mean_of(const std::vector<double>& values) {
  if (values.empty()) return {};
  const auto n = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0;
  for (const double v : values) squares += (v - mean) * (v - mean);
  const double half =
      values.size() < 2 ? 0 : student(static_cast<int>(values.size()) - 1) * std::sqrt(squares / (n - 1) / n);
  return {mean, mean - half, mean + half, *std::min_element(values.begin(), values.end()),
          static_cast<int>(values.size())};
}

nlohmann::ordered_json to_json(const Estimate& e) {
  return {{"value", e.value}, {"low", e.low}, {"high", e.high}, {"least", e.least}, {"count", e.count}};
}

std::string text_of(const Estimate& e, double scale, int digits) {
  return fmt::format("{:.{}f} ({:.{}f} to {:.{}f})", e.value * scale, digits, e.low * scale, digits, e.high * scale,
                     digits);
}

}  // namespace dtrain::launch
