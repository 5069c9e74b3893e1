// What repeated measurements say: medians with confidence intervals that assume nothing of the distribution, and means
// of few repeats. Pure functions over values.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace dtrain::launch {

/// A value with its 95 % confidence interval.
struct Estimate {
  double value = 0, low = 0, high = 0;
  double least = 0;  // of all measurements: what a machine that does other work disturbs least
  int count = 0;
};

/// The median. The interval is between order statistics; below six values, where none covers 95 %, it is their range.
Estimate median_of(std::vector<double>);
/// The mean, with Student's interval (of one value: the value itself, without width).
Estimate mean_of(const std::vector<double>&);

/// {"value", "low", "high", "least", "count"}
nlohmann::ordered_json to_json(const Estimate&);
/// "12.3 (12.1 to 12.6)", each value times `scale`
std::string text_of(const Estimate&, double scale, int digits);

}  // namespace dtrain::launch
