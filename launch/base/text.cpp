#include "launch/base/text.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "runtime/config/document.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

std::string grouped(std::int64_t value) {
  std::string text = std::to_string(value);
  for (std::size_t at = text.size(); at > 3;) text.insert(at -= 3, 1, ',');
  return text;
}

std::string bytes_text(double bytes) {
  if (bytes < 10'000) return fmt::format("{:.0f} B", bytes);
  const char* units[] = {"KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  bytes /= 1024;
  while (bytes >= 1000 && unit < 3) {
    bytes /= 1024;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", bytes, bytes < 10 ? 2 : bytes < 100 ? 1 : 0, units[unit]);
}

std::string quantity(double value) {
  const char* units[] = {"", "k", "M", "G", "T", "P"};
  std::size_t unit = 0;
  while (std::abs(value) >= 1000 && unit < 5) {
    value /= 1000;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f}", value) : fmt::format("{:.2f} {}", value, units[unit]);
}

std::string seconds_text(double s) {
  if (std::abs(s) < 1e-3) return fmt::format("{:.1f} us", s * 1e6);
  return std::abs(s) < 1 ? fmt::format("{:.2f} ms", s * 1e3) : fmt::format("{:.2f} s", s);
}

std::optional<double> in_units(std::string_view text, const std::map<std::string_view, double>& units) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const auto unit = units.find(text.substr(static_cast<std::size_t>(end - text.data())));
  if (error != std::errc{} || unit == units.end() || !(number > 0)) return std::nullopt;
  return number * unit->second;
}

TextTable::TextTable(std::vector<std::string> columns) {
  for (std::string& name : columns) {
    left_.push_back(name.starts_with('<'));
    if (left_.back()) name.erase(0, 1);
  }
  rows_.push_back(std::move(columns));
}

void TextTable::row(std::vector<std::string> cells) {
  cells.resize(left_.size());
  rows_.push_back(std::move(cells));
}

std::string TextTable::str(const std::string& indent) const {
  std::vector<std::size_t> width(left_.size(), 0);
  for (const auto& row : rows_)
    for (std::size_t i = 0; i < row.size(); ++i) width[i] = std::max(width[i], row[i].size());
  std::string out;
  for (const auto& row : rows_) {
    std::string line = indent;
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i > 0) line += "  ";
      line += left_[i] ? fmt::format("{:<{}}", row[i], width[i]) : fmt::format("{:>{}}", row[i], width[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + '\n';
  }
  return out;
}

namespace {

/// The first `bytes` of it, no character of UTF-8 cut.
std::string_view first_of(std::string_view text, std::size_t bytes) {
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xc0) == 0x80) --bytes;
  return text.substr(0, bytes);
}

}  // namespace

std::string expand_path(const std::string& path) {
  const auto value = [&path](const std::string& name) -> std::string {
    const char* const found = std::getenv(name.c_str());
    if (found == nullptr)
      throw ConfigError(fmt::format("{}: the environment has no variable {}", json_string(path), name));
    return found;
  };
  const auto in_name = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; };
  std::string out;
  std::size_t at = 0;
  if (path == "~" || path.starts_with("~/")) {
    out = value("HOME");
    at = 1;
  }
  while (at < path.size()) {
    if (path[at] != '$') {
      out += path[at++];
      continue;
    }
    const bool braces = path.compare(at, 2, "${") == 0;
    const std::size_t begin = at + (braces ? 2 : 1);
    std::size_t end = begin;
    while (end < path.size() && in_name(path[end])) ++end;
    if (end == begin || (braces && path.substr(end, 1) != "}")) {
      out += path[at++];
      continue;
    }
    out += value(path.substr(begin, end - begin));
    at = end + (braces ? 1 : 0);
  }
  return out;
}

std::string cut_quotes(std::string_view text) {
  constexpr std::size_t quote = 200, all = 4000;
  std::string out;
  while (!text.empty()) {
    const std::size_t begin = std::min(text.find('"'), text.size() - 1) + 1;
    out += text.substr(0, begin);
    text.remove_prefix(begin);
    std::size_t end = 0;
    while (end < text.size() && text[end] != '"') end += text[end] == '\\' ? 2 : 1;
    const bool cut = end < text.size() && end > quote;
    out += cut ? first_of(text, quote) : text.substr(0, end + 1);
    if (cut) out += "...\"";
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  if (out.size() <= all) return out;
  return fmt::format("{}... ({} bytes)", first_of(out, all), out.size());
}

}  // namespace dtrain::launch
