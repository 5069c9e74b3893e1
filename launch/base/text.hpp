// Numbers and tables as people read them.
// Pure functions, and a table that owns its cells.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dtrain::launch {

/// "1,234,567"
std::string grouped(std::int64_t);
/// "12.3 MiB"
std::string bytes_text(double);
/// "1.23 G", to be followed by a unit: powers of 1000.
std::string quantity(double);
/// "1.23 ms"
std::string seconds_text(double);

/// Rows of text in aligned columns, two spaces apart.
class TextTable {
 public:
  /// A name that begins with '<' makes a column of texts, flush left; others are numbers, flush right.
  explicit TextTable(std::vector<std::string> columns);
  void row(std::vector<std::string> cells);
  std::string str(const std::string& indent = "") const;

 private:
  std::vector<bool> left_;
  std::vector<std::vector<std::string>> rows_;  // the first holds the names
};

}  // namespace dtrain::launch
