#include "launch/base/error_text.hpp"

#include <new>
#include <sstream>

#include <fmt/format.h>

#include "launch/base/text.hpp"

namespace dtrain::launch {

std::string error_text(const std::exception& e, ExitCode& code) {
  std::string out;
  const auto add = [&out](const std::string& text) {
    out += "error: ";
    for (const char c : cut_quotes(text)) {
      out += c;
      if (c == '\n') out += "  ";
    }
    out += '\n';
  };
  if (const auto* config = dynamic_cast<const ConfigError*>(&e)) {
    code = config->code();
    // Another rank's problems arrive as one text.
    for (const auto& problem : config->problems()) {
      std::istringstream lines(problem.format());
      for (std::string line; std::getline(lines, line);) add(line);
    }
  } else if (const auto* error = dynamic_cast<const Error*>(&e)) {
    code = error->code();
    add(code == ExitCode::bug ? fmt::format("a bug in dtrain: {}", e.what()) : std::string(e.what()));
  } else if (dynamic_cast<const std::bad_alloc*>(&e) != nullptr) {
    code = ExitCode::device;
    add("out of host memory");
  } else {
    code = ExitCode::bug;
    add(fmt::format("a bug in dtrain: {}", e.what()));
  }
  return out;
}

}  // namespace dtrain::launch
