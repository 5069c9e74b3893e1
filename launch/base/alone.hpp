// Errors of one rank alone, inside a step or an evaluation: the others do not know of it, so the run must be aborted.
// A function and a type that own nothing; for the training thread.
#pragma once

#include <exception>
#include <new>

#include <fmt/format.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

class RankFailure : public Error {
 public:
  using Error::Error;
};

/// Whatever `work` throws is this rank's alone. Nothing escapes as another type: the other ranks would wait for ever.
template <class F>
auto alone(F work) {
  try {
    return work();
  } catch (const Error& e) {
    throw RankFailure(e.code(), e.code() == ExitCode::bug ? fmt::format("a bug in dtrain: {}", e.what()) : e.what());
  } catch (const std::bad_alloc&) {
    throw RankFailure(ExitCode::device, "out of host memory");
  } catch (const std::exception& e) {
    throw RankFailure(ExitCode::bug, fmt::format("a bug in dtrain: {}", e.what()));
  }
}

}  // namespace dtrain::launch
