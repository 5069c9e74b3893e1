// What the columns of a table look like, so that odd ones are told of: an index, a copy of the label, a constant.
// Plain values and functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/import/csv.hpp"

namespace dtrain::io {

/// A header of 0, 1, 2, ..., as pandas writes columns without names; `but`: the column of labels.
bool counts_columns(const std::vector<CsvField>& header, std::optional<std::size_t> but);
/// Empty, or `Unnamed: 0` of pandas.
bool is_nameless(std::string_view name);

/// Of one column.
struct ColumnFacts {
  bool empty = true, integers = true;                      // all of them
  bool counts = true, constant = true, like_label = true;  // the rows; as far as they are numbers
  double first = 0;
  std::string truth_at, number_at;  // the first truth value, and the first number that is none

  void see(const CsvField&, std::optional<double> value, std::optional<double> label, std::uint64_t row);
  /// What is odd about them, or null. `pixels`: many are constant.
  const char* odd(std::uint64_t rows, bool pixels) const;
};

}  // namespace dtrain::io
