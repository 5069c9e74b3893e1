#include "runtime/tensor/error.hpp"

namespace dtrain {

std::string ConfigProblem::format() const {
  std::string place;
  const auto append = [&place](const std::string& part) {
    if (!place.empty()) place += ':';
    place += part;
  };
  if (!file.empty()) append(file);
  if (line > 0) append(std::to_string(line));
  if (line > 0 && column > 0) append(std::to_string(column));
  return place.empty() ? text : place + ": " + text;
}

namespace {
std::string joined(const std::vector<ConfigProblem>& problems) {
  std::string lines;
  for (const auto& problem : problems) {
    if (!lines.empty()) lines += '\n';
    lines += problem.format();
  }
  return lines;
}
}  // namespace

ConfigError::ConfigError(std::vector<ConfigProblem> problems)
    : Error(ExitCode::usage, joined(problems)), problems_(std::move(problems)) {}

}  // namespace dtrain
