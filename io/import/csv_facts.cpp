#include "io/import/csv_facts.hpp"

#include <cmath>

#include "io/import/csv_number.hpp"

namespace dtrain::io {

bool counts_columns(const std::vector<CsvField>& header, std::optional<std::size_t> but) {
  constexpr std::size_t enough = 3;  // two may well be a sample
  std::size_t counted = 0;
  for (std::size_t i = 0; i < header.size(); ++i) {
    if (i == but || (i == 0 && header[i].text.empty())) continue;  // an index has no name
    if (integer_in(header[i].text) != static_cast<std::int64_t>(counted++)) return false;
  }
  return counted >= enough;
}

bool is_nameless(std::string_view name) {
  return name.empty() || name.starts_with("Unnamed: ");
}

void ColumnFacts::see(const CsvField& field, std::optional<double> value, std::optional<double> label,
                      std::uint64_t row) {
  empty = empty && field.text.empty();
  integers = integers && integer_in(field.text).has_value();
  const double held = value.value_or(std::nan(""));
  if (row == 0) first = held;
  counts = counts && held == first + static_cast<double>(row);
  constant = constant && held == first;
  like_label = like_label && label && *label == held;
}

const char* ColumnFacts::odd(std::uint64_t rows, bool pixels) const {
  if (like_label) return "is the label again";
  if (rows > 2 && counts) return "counts the rows";
  return rows > 1 && constant && !pixels ? "has one value in all rows" : nullptr;
}

}  // namespace dtrain::io
