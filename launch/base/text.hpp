// Numbers and tables as people read them.
// Pure functions, and a table that owns its cells.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dtrain::launch {

/// "1,234,567"
std::string grouped(std::int64_t);
/// A path with `~/`, $NAME and ${NAME} replaced, as a shell does. Throws ConfigError where the environment lacks NAME.
std::string expand_path(const std::string&);
/// Text with at most 200 bytes of whatever stands in quotation marks, and at most 4000 in all: what an error repeats
/// may be a whole file.
std::string cut_quotes(std::string_view);
/// "12.3 MiB"
std::string bytes_text(double);
/// "1.23 G", to be followed by a unit: powers of 1000.
std::string quantity(double);
/// "1.23 ms"
std::string seconds_text(double);

/// "25m", by the value of each unit: 25 of "m". Nothing where it is no number above 0 in one of these units.
std::optional<double> in_units(std::string_view text, const std::map<std::string_view, double>& units);

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
