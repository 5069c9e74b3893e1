// Which part of a data set each sample goes to: training and evaluation, or the folds of a cross-validation.
// Plain values and pure functions: the same parts for the same seed on any machine.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace dtrain::io {

struct SplitOptions {
  std::vector<std::pair<std::string, double>> parts;  // name and share, which add up to 1; empty: no split
  int folds = 0;          // in place of parts: so many pairs, NAME fold-1-train and fold-1-eval, ...; 0: none
  bool stratify = false;  // each class is shared out by itself
  std::uint64_t seed = 1;

  bool on() const noexcept { return !parts.empty() || folds > 0; }
};

/// "train=0.8,eval=0.2" -> names and shares. Throws ConfigError: no such list, a name twice or with a slash, a share
/// that is not above 0, shares that do not add up to 1.
std::vector<std::pair<std::string, double>> parse_parts(const std::string& text);

/// Counts of `n` things by these shares: rounded down, and what is left to the largest remainders, the first of equal
/// ones.
std::vector<std::uint64_t> shares_of(std::uint64_t n, std::span<const double> shares);

struct SplitPart {
  std::string name;
  std::vector<std::uint64_t> rows;  // ascending
};
/// The parts of `count` samples; a sample may lie in several parts only where there are folds. `labels`: of all
/// samples, wanted where `stratify`. Throws DataError where a part has no sample.
std::vector<SplitPart> split(std::uint64_t count, const SplitOptions&, std::span<const std::int64_t> labels);

/// "data/photos.h5", "train" -> "data/photos-train.h5"
std::string part_path(const std::string& out, const std::string& part);

}  // namespace dtrain::io
