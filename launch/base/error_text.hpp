// What an error tells the user.
// A pure function for any thread.
#pragma once

#include <exception>
#include <string>

#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

/// The lines of an error, "error: ..." each problem, further text indented; `code` gets its exit code.
std::string error_text(const std::exception&, ExitCode& code);

}  // namespace dtrain::launch
