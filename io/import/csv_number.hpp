// What a field of a table is as a number: missing values, truth values, decimal points and commas.
// Plain functions and values; a CsvNumbers remembers which decimal sign the numbers before had, on one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "io/import/csv.hpp"

namespace dtrain::io {

enum class DecimalSign : std::uint8_t { automatic, point, comma };

/// The whole text as an integer.
std::optional<std::int64_t> integer_in(std::string_view);
/// 1 of True, 0 of False, in the spellings that pandas knows.
std::optional<double> truth_in(std::string_view);

class CsvNumbers {
 public:
  /// `words`: NA, None, ?, ... are words and not missing values.
  CsvNumbers(DecimalSign sign, bool words) : sign_(sign), words_(words) {}
  /// NaN where the field is empty or missing, nothing where it is no number. Automatic: commas are decimal signs where
  /// fields are separated by semicolons.
  std::optional<double> operator()(const CsvField&, char delimiter) const;
  /// Throws DataError where the decimal sign of a number differs from that of those before, and no option says which.
  void check_sign(const CsvReader&, const CsvField&);

 private:
  DecimalSign sign_;
  bool words_;
  std::string points_at_, commas_at_;  // the first of each
};

}  // namespace dtrain::io
