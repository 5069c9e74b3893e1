#include "runtime/config/field_types.hpp"

#include <charconv>
#include <cmath>
#include <system_error>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace dtrain {

Reader::Scope::Scope(Reader& reader, std::string_view name) : reader_(reader), length_(reader.path_.size()) {
  if (!reader.path_.empty()) reader.path_ += '.';
  reader.path_ += name;
}

void Reader::problem(const Place& place, const std::string& text) {
  problems_.push_back({place, path_, path_.empty() ? text : path_ + ": " + text});
}

void Reader::unexpected(const Document& d, const std::string& expected, const std::string& hint) {
  problem(d.place, fmt::format("got {}; expected {}{}", d.describe(), expected,
                               hint.empty() ? "" : fmt::format("; did you mean {}?", hint)));
}

namespace fields {

namespace {

enum class Read : std::uint8_t { ok, not_a_number, leading_zero, too_large };

/// [+-]digits without leading zeros: YAML 1.1 reads 010 as 8 and 1.2 as 10, so it is refused.
Read parse_integer(std::string_view text, std::int64_t& value) {
  std::string_view digits = text;
  if (digits.starts_with('+')) text = digits = digits.substr(1);
  if (digits.starts_with('-')) digits = digits.substr(1);
  if (digits.empty() || digits.find_first_not_of("0123456789") != std::string_view::npos) return Read::not_a_number;
  if (digits.size() > 1 && digits[0] == '0') return Read::leading_zero;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() ? Read::ok : Read::too_large;
}

/// A decimal number: what JSON allows, and a leading + or point.
Read parse_number(std::string_view text, double& value) {
  if (text.starts_with('+')) text = text.substr(1);
  std::string_view digits = text.starts_with('-') ? text.substr(1) : text;
  if (digits.empty() || digits.find_first_not_of("0123456789.eE+-") != std::string_view::npos ||
      digits.find_first_of("0123456789") == std::string_view::npos) {
    return Read::not_a_number;
  }
  if (digits.size() > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9') return Read::leading_zero;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) return Read::too_large;
  return error == std::errc() && end == text.data() + text.size() ? Read::ok : Read::not_a_number;
}

/// Devices compute in float32: neither too large nor too small for it, nor rounded on to a bound that is excluded.
bool fits_float(double value, const NumberRange& range) {
  using Limits = std::numeric_limits<float>;
  if (value == 0) return true;
  if (std::abs(value) > static_cast<double>(Limits::max()) || std::abs(value) < static_cast<double>(Limits::min()))
    return false;
  const auto rounded = static_cast<double>(static_cast<float>(value));
  return !(range.above_least && rounded <= range.least) && !(range.below_most && rounded >= range.most);
}

std::string shown(double value) {
  return fmt::format("{}", value);
}

bool looks_like_something_else(const std::string& text) {
  double number = 0;
  if (text == "true" || text == "false" || text == "null" || text == "~") return true;
  return parse_number(text, number) != Read::not_a_number;
}

}  // namespace

std::optional<std::int64_t> read_integer(const Document& d, const IntRange& range, Reader& r) {
  std::int64_t value = 0;
  const Read result = d.kind == Document::Kind::plain ? parse_integer(d.text, value) : Read::not_a_number;
  if (result == Read::ok && value >= range.least && value <= range.most) return value;
  std::string hint;
  double number = 0;
  if (result == Read::leading_zero) {
    hint = d.text.substr(std::min(d.text.find_first_not_of("+-0"), d.text.size() - 1));
  } else if (result == Read::not_a_number && d.is_scalar() && parse_number(d.text, number) == Read::ok &&
             std::abs(number) < 1e15 && number == std::floor(number) && number >= static_cast<double>(range.least)) {
    hint = fmt::format("{}", static_cast<std::int64_t>(number));
  }
  r.unexpected(d, expected(range), hint);
  return std::nullopt;
}

std::optional<double> read_number(const Document& d, const NumberRange& range, Reader& r) {
  double value = 0;
  const Read result = d.kind == Document::Kind::plain ? parse_number(d.text, value) : Read::not_a_number;
  const bool above = range.above_least ? value > range.least : value >= range.least;
  const bool below = range.below_most ? value < range.most : value <= range.most;
  if (result == Read::ok && above && below) {
    if (fits_float(value, range)) return value;
    r.unexpected(d, expected(range) + " that float32 can hold");
    return std::nullopt;
  }
  const bool quoted = d.kind == Document::Kind::quoted && parse_number(d.text, value) == Read::ok;
  r.unexpected(d, expected(range), quoted ? d.text : std::string());
  return std::nullopt;
}

std::optional<bool> read_boolean(const Document& d, Reader& r) {
  if (d.kind == Document::Kind::plain && d.text == "true") return true;
  if (d.kind == Document::Kind::plain && d.text == "false") return false;
  std::string hint;
  for (const char* word : {"yes", "Yes", "YES", "on", "On", "ON", "y", "Y", "True", "TRUE", "1", "true"})
    if (d.is_scalar() && d.text == word) hint = "true";
  for (const char* word : {"no", "No", "NO", "off", "Off", "OFF", "n", "N", "False", "FALSE", "0", "false"})
    if (d.is_scalar() && d.text == word) hint = "false";
  r.unexpected(d, "true or false", hint);
  return std::nullopt;
}

std::optional<std::string> read_text(const Document& d, bool may_be_empty, Reader& r) {
  const bool other = d.kind == Document::Kind::plain && looks_like_something_else(d.text);
  if (!d.is_scalar() || other) {
    r.unexpected(d, "text", other ? json_string(d.text) : std::string());
    return std::nullopt;
  }
  for (const char c : d.text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      r.unexpected(d, "text without control characters");
      return std::nullopt;
    }
  }
  if (d.text.empty() && !may_be_empty) {
    r.unexpected(d, "text that is not empty");
    return std::nullopt;
  }
  return d.text;
}

bool check_name(const Document::Entry& entry, Reader& r) {
  const bool sound = !entry.key.empty() && entry.key.find_first_not_of(
                                               "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                               "0123456789_-") == std::string::npos;
  if (!sound) {
    r.problem(entry.place,
              fmt::format("the name {}; expected letters, digits, _ and - in a name", json_string(entry.key)));
  }
  return sound;
}

std::optional<std::size_t> read_choice(const Document& d, const std::vector<std::string>& names, Reader& r) {
  if (d.is_scalar())
    for (std::size_t i = 0; i < names.size(); ++i)
      if (names[i] == d.text) return i;
  r.unexpected(d, expected_choice(names), d.is_scalar() ? nearest_name(d.text, names) : std::string());
  return std::nullopt;
}

std::string expected(const IntRange& range) {
  if (range.most < std::numeric_limits<std::int32_t>::max())
    return fmt::format("an integer from {} to {}", range.least, range.most);
  if (range.least == std::numeric_limits<std::int64_t>::min()) return "an integer";
  return fmt::format("an integer of at least {}", range.least);
}

std::string expected(const NumberRange& range) {
  const bool has_least = std::isfinite(range.least), has_most = std::isfinite(range.most);
  const std::string least = range.above_least ? "above " : "of at least ",
                    most = range.below_most ? "below " : "at most ";
  if (has_least && has_most)
    return fmt::format("a number {}{} and {}{}", least, shown(range.least), most, shown(range.most));
  if (has_least) return fmt::format("a number {}{}", least, shown(range.least));
  if (has_most) return fmt::format("a number of {}{}", most, shown(range.most));
  return "a number";
}

std::string expected_choice(const std::vector<std::string>& names) {
  if (names.size() == 1) return names[0];
  if (names.size() == 2) return names[0] + " or " + names[1];
  return fmt::format("one of {}", fmt::join(names, ", "));
}

Document schema_of(std::string_view type) {
  return Document::map().set("type", Document::string(std::string(type)));
}

Document schema(const IntRange& range) {
  Document d = schema_of("integer");
  if (range.least != std::numeric_limits<std::int64_t>::min()) d.set("minimum", Document::integer(range.least));
  if (range.most != std::numeric_limits<std::int64_t>::max()) d.set("maximum", Document::integer(range.most));
  return d;
}

Document schema(const NumberRange& range) {
  Document d = schema_of("number");
  if (std::isfinite(range.least))
    d.set(range.above_least ? "exclusiveMinimum" : "minimum", Document::number(range.least));
  if (std::isfinite(range.most)) d.set(range.below_most ? "exclusiveMaximum" : "maximum", Document::number(range.most));
  return d;
}

Document schema_choice(const std::vector<std::string>& names) {
  Document list = Document::list();
  for (const auto& name : names) list.items.push_back(Document::string(name));
  return Document::map().set("enum", std::move(list));
}

Document Text::schema() const {
  Document d = schema_of("string");
  if (!may_be_empty_) d.set("minLength", Document::integer(1));
  return d;
}

}  // namespace fields

}  // namespace dtrain
