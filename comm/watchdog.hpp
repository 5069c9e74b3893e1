// Watchdog: a thread that never calls MPI and ends the process when the training thread stops making progress, since a
// blocking MPI call can be neither aborted nor waited for.
// Owns its thread; beat() may be called from any one thread at a time and neither locks nor allocates.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace dtrain::comm {

class Watchdog {
 public:
  /// What happens at the deadline; the default prints "error: <message>" on stderr and leaves by _exit(5).
  using OnExpiry = std::function<void(const std::string& message)>;

  /// `timeout_seconds` from one beat to the next; 0 or less: never. Rank 0 fires first, the others two seconds later,
  /// so that one line is printed where rank 0 is alive.
  Watchdog(int rank, std::string host, double timeout_seconds, OnExpiry on_expiry = {});
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// Progress: `phase` (a string literal: "load", "step", "all_reduce", "save") of `step` begins now.
  void beat(const char* phase, std::uint64_t step) noexcept;
  /// No deadline until the next beat: waiting for something that may rightly take long.
  void pause() noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dtrain::comm
