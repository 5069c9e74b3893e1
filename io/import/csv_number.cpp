#include "io/import/csv_number.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

namespace dtrain::io {
namespace {

/// What pandas reads as a missing value, beside an empty field, and the sign of the UCI repository.
constexpr std::array<std::string_view, 19> missing_words{
    "#N/A", "#N/A N/A", "#NA",  "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>",
    "N/A",  "NA",       "NULL", "NaN",     "None",     "n/a",  "nan",  "null",   "?"};

std::optional<double> number_in(std::string_view text) {
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end != text.data() + text.size()) return std::nullopt;
  if (error == std::errc::result_out_of_range) return text.find("e-") != std::string_view::npos ? 0.0 : HUGE_VAL;
  return error == std::errc() ? std::optional(value) : std::nullopt;
}

}  // namespace

std::optional<std::int64_t> integer_in(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty() ? std::optional(value)
                                                                                   : std::nullopt;
}

std::optional<double> truth_in(std::string_view text) {
  if (text == "True" || text == "TRUE" || text == "true") return 1.0;
  if (text == "False" || text == "FALSE" || text == "false") return 0.0;
  return std::nullopt;
}

std::optional<double> CsvNumbers::operator()(const CsvField& field, char delimiter) const {
  if (field.text.empty()) return std::nan("");
  const auto comma = field.text.find(',');
  if (comma == std::string_view::npos) {
    // An explicit comma makes a point a sign of thousands, which is not read.
    const bool thousands = sign_ == DecimalSign::comma && field.text.find('.') != std::string_view::npos;
    if (const auto value = thousands ? std::nullopt : number_in(field.text)) return value;
    const bool missing = std::find(missing_words.begin(), missing_words.end(), field.text) != missing_words.end();
    return missing && !words_ ? std::optional(std::nan("")) : std::nullopt;
  }
  constexpr std::size_t longest = 64;
  const bool decimal = sign_ == DecimalSign::comma || (sign_ == DecimalSign::automatic && delimiter == ';');
  if (!decimal || field.text.size() > longest || field.text.find('.') != std::string_view::npos) return std::nullopt;
  std::array<char, longest> copy{};
  std::copy(field.text.begin(), field.text.end(), copy.begin());
  copy[comma] = '.';
  return number_in({copy.data(), field.text.size()});
}

void CsvNumbers::check_sign(const CsvReader& reader, const CsvField& field) {
  if (sign_ != DecimalSign::automatic || reader.delimiter() != ';') return;
  const auto at = field.text.find_first_of(".,");
  if (at == std::string_view::npos) return;
  std::string& first = field.text[at] == '.' ? points_at_ : commas_at_;
  if (first.empty()) first = reader.where(field);
  if (points_at_.empty() || commas_at_.empty()) return;
  reader.fail(field.column,
              fmt::format("{} has a decimal {}, but there is a decimal {} at {}; say --decimal point or "
                          "--decimal comma",
                          field.text, field.text[at] == '.' ? "point" : "comma",
                          field.text[at] == '.' ? "comma" : "point", field.text[at] == '.' ? commas_at_ : points_at_));
}

}  // namespace dtrain::io
