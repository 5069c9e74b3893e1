#include "io/import/csv.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr std::size_t buffer_bytes = std::size_t{1} << 18;

bool is_blank(char c) {
  return c == ' ' || c == '\t';
}

/// Of `sep=;`, as Excel writes and reads it; 0 of any other line.
char separator_in(std::string_view line) {
  if (line.size() == 7 && line.starts_with('"') && line.ends_with('"')) line = line.substr(1, 5);
  const bool says =
      line.size() == 5 && line[3] == '=' &&
      std::equal(line.begin(), line.begin() + 3, "sep", [](unsigned char a, char b) { return std::tolower(a) == b; });
  return says ? line[4] : '\0';
}

/// Outside of quotes.
std::ptrdiff_t count_in(std::string_view line, char wanted) {
  bool quoted = false;
  return std::count_if(line.begin(), line.end(), [&](char c) {
    if (c == '"') quoted = !quoted;
    return c == wanted && !quoted;
  });
}

/// In a field between semicolons, outside of quotes.
std::ptrdiff_t most_commas(std::string_view line) {
  bool quoted = false;
  std::ptrdiff_t most = 0, here = 0;
  for (const char c : line) {
    if (c == '"') quoted = !quoted;
    if (c == ';' && !quoted) here = 0;
    if (c == ',' && !quoted) most = std::max(most, ++here);
  }
  return most;
}

}  // namespace

CsvReader::CsvReader(const std::string& path, std::optional<char> delimiter)
    : path_(path), file_(path), buffer_(buffer_bytes) {
  find_delimiter(delimiter);
}

/// Leaves the reader before the first line of the table.
void CsvReader::find_delimiter(std::optional<char> given) {
  std::array<std::string, 2> lines;
  for (std::string& line : lines)
    if (read_line()) line = text_;
  const char said = separator_in(lines[0]);
  line_ = 1;
  if (said != 0 && given && said != *given)
    fail(1, fmt::format("the first line says that {} stands between fields, but --delimiter says {}", said, *given));
  delimiter_ = said != 0 ? said : given.value_or(',');
  if (said == 0 && !given) {
    // Tags may be joined by semicolons in a table of commas; where these are decimal signs, a number has one.
    const auto separates = [&](char c) {
      const auto count = count_in(lines[0], c);
      return count > 0 && (lines[1].empty() || count_in(lines[1], c) == count) &&
             (c != ';' || most_commas(lines[0]) <= 1);
    };
    for (const char c : {'|', ',', '\t', ';'})
      if (separates(c)) delimiter_ = c;
  }
  // Once more from the beginning.
  file_ = TextFile(path_);
  begin_ = end_ = line_ = 0;
  after_cr_ = false;
  if (said != 0) read_line();
}

void CsvReader::fail(std::size_t column, const std::string& why) const {
  throw DataError(fmt::format("{}:{}:{}: {}", path_, line_, column, why));
}
std::string CsvReader::where(const CsvField& field) const {
  return fmt::format("{}:{}:{}", path_, line_, field.column);
}

bool CsvReader::read_line() {
  text_.clear();
  bool any = false;
  for (;;) {
    if (begin_ == end_) {
      begin_ = 0;
      end_ = file_.read(buffer_.data(), buffer_.size());
      if (end_ == 0) break;
    }
    if (std::exchange(after_cr_, false) && buffer_[begin_] == '\n') {
      ++begin_;
      continue;
    }
    any = true;
    const char* const from = buffer_.data() + begin_;
    std::size_t bytes = end_ - begin_;
    if (const auto* stop = static_cast<const char*>(std::memchr(from, '\n', bytes)))
      bytes = static_cast<std::size_t>(stop - from);
    if (const auto* stop = static_cast<const char*>(std::memchr(from, '\r', bytes)))
      bytes = static_cast<std::size_t>(stop - from);
    if (text_.size() + bytes > max_line) fail(1, "the line is too long; is this a CSV file?");
    text_.append(from, bytes);
    begin_ += bytes;
    if (begin_ == end_) continue;
    after_cr_ = buffer_[begin_++] == '\r';
    break;
  }
  if (!any) return false;
  ++line_;
  if (const auto zero = text_.find('\0'); zero != std::string::npos) {
    const bool many = 3 * std::count(text_.begin(), text_.end(), '\0') > static_cast<std::ptrdiff_t>(text_.size());
    fail(zero + 1, many ? "there are zero bytes; if this is UTF-16 without a byte order mark, save it as UTF-8"
                        : "there is a zero byte; this is no CSV file");
  }
  return true;
}

std::size_t CsvReader::read_field(std::size_t at, CsvField& field) {
  const std::size_t end = text_.size();
  while (at < end && is_blank(text_[at]) && text_[at] != delimiter_) ++at;
  field.column = at + 1;
  field.quoted = at < end && text_[at] == '"';
  if (!field.quoted) {
    const std::size_t stop = std::min(text_.find(delimiter_, at), end);
    std::size_t last = stop;
    while (last > at && is_blank(text_[last - 1])) --last;
    field.text = std::string_view(text_).substr(at, last - at);
    return stop;
  }
  // Doubled quotes are moved together within the line.
  const std::size_t begin = ++at;
  std::size_t to = begin;
  for (;; ++at) {
    if (at >= end) fail(field.column, "a quote is not closed on its line");
    if (text_[at] == '"') {
      if (at + 1 >= end || text_[at + 1] != '"') break;
      ++at;
    }
    text_[to++] = text_[at];
  }
  field.text = std::string_view(text_).substr(begin, to - begin);
  ++at;
  while (at < end && is_blank(text_[at]) && text_[at] != delimiter_) ++at;
  if (at < end && text_[at] != delimiter_) fail(at + 1, "text follows a closed quote");
  return at;
}

bool CsvReader::next(std::vector<CsvField>& fields) {
  fields.clear();
  do {
    if (!read_line()) return false;
  } while (std::all_of(text_.begin(), text_.end(), is_blank));
  std::size_t at = 0;
  for (;;) {
    at = read_field(at, fields.emplace_back());
    if (at >= text_.size()) return true;
    ++at;
  }
}

}  // namespace dtrain::io
