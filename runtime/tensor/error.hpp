// The typed errors of dtrain, each with the exit code that scripts rely on.
// Plain values: whoever throws owns the text; a message is one line that says what is wrong, where, and what to do.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace dtrain {

/// Exit codes of the program (interface.md).
enum class ExitCode : int {
  ok = 0,
  usage = 2,
  data = 3,
  checkpoint = 4,
  communication = 5,
  device = 6,
  numeric = 7,
  bug = 70,
  stopped = 75,
};

/// Base of all errors that dtrain throws on purpose. `what()` is the message without the leading "error: ".
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const noexcept { return code_; }

 private:
  ExitCode code_;
};

/// One problem of a configuration; line and column count from 1, 0 where there is no place.
struct ConfigProblem {
  std::string file;
  int line = 0;
  int column = 0;
  std::string field;  // dotted path
  std::string text;   // "what; expected ...; did you mean ...?"
  std::string format() const;
};

/// All problems of a configuration at once; `what()` joins them, one line each.
class ConfigError : public Error {
 public:
  explicit ConfigError(std::vector<ConfigProblem> problems);
  explicit ConfigError(const std::string& message) : Error(ExitCode::usage, message), problems_(1) {
    problems_[0].text = message;
  }
  const std::vector<ConfigProblem>& problems() const noexcept { return problems_; }

 private:
  std::vector<ConfigProblem> problems_;
};

/// Shapes that do not fit; the message names the layer and both shapes.
class ShapeError : public Error {
 public:
  explicit ShapeError(const std::string& message) : Error(ExitCode::usage, message) {}
};

class DataError : public Error {
 public:
  explicit DataError(const std::string& message) : Error(ExitCode::data, message) {}
};

class CheckpointError : public Error {
 public:
  /// Which promise failed: bytes that are wrong, parts that are missing, or a state that does not fit this run.
  enum class Kind { other, corrupt, incomplete, incompatible };
  explicit CheckpointError(const std::string& message, Kind kind = Kind::other)
      : Error(ExitCode::checkpoint, message), kind_(kind) {}
  Kind kind() const noexcept { return kind_; }

 private:
  Kind kind_;
};

/// A failed or stuck exchange; `rank` is the rank at fault where it is known, else -1.
class CommError : public Error {
 public:
  explicit CommError(const std::string& message, int rank = -1, std::uint64_t sequence = 0)
      : Error(ExitCode::communication, message), rank_(rank), sequence_(sequence) {}
  int rank() const noexcept { return rank_; }
  std::uint64_t sequence() const noexcept { return sequence_; }

 private:
  int rank_;
  std::uint64_t sequence_;
};

class DeviceError : public Error {
 public:
  explicit DeviceError(const std::string& message) : Error(ExitCode::device, message) {}
};

class OutOfMemory : public Error {
 public:
  explicit OutOfMemory(const std::string& message) : Error(ExitCode::device, message) {}
};

class NumericError : public Error {
 public:
  explicit NumericError(const std::string& message) : Error(ExitCode::numeric, message) {}
};

/// A broken promise inside dtrain itself.
class BugError : public Error {
 public:
  explicit BugError(const std::string& message) : Error(ExitCode::bug, message) {}
};

}  // namespace dtrain
