// Reads the lines of a CSV file, compressed or not, and their fields; internal to io/.
// A CsvReader owns its open file and one line; fields point into it and are valid until the next line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/import/text_file.hpp"

namespace dtrain::io {

struct CsvField {
  std::string_view text;   // without quotes and blanks around it
  std::size_t column = 1;  // where it begins in its line, in bytes from 1
  bool quoted = false;
};

class CsvReader {
 public:
  static constexpr std::size_t max_line = std::size_t{64} << 20;

  /// Lines end with LF, CRLF or CR. Without a delimiter it is what a first line `sep=;` says, or the first of
  /// semicolon, tab, comma and | that the first two lines have equally often outside of quotes, or a comma. Throws
  /// DataError where the file cannot be read.
  CsvReader(const std::string& path, std::optional<char> delimiter);
  char delimiter() const noexcept { return delimiter_; }
  /// The next line that is not blank; false at the end. Throws DataError: damaged, too long, quotes that do not match.
  bool next(std::vector<CsvField>& fields);
  std::uint64_t line() const noexcept { return line_; }
  /// "table.csv:3:17"
  std::string where(const CsvField&) const;
  [[noreturn]] void fail(std::size_t column, const std::string& why) const;

 private:
  bool read_line();
  void find_delimiter(std::optional<char> given);
  std::size_t read_field(std::size_t at, CsvField& field);

  std::string path_;
  char delimiter_ = ',';
  TextFile file_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0, end_ = 0;
  bool after_cr_ = false;  // the line before ended with CR: LF belongs to it
  std::string text_;
  std::uint64_t line_ = 0;
};

}  // namespace dtrain::io
