// Signals that ask the run to stop (SIGTERM, SIGUSR1, SIGINT, SIGHUP, SIGQUIT), received as data: no handler, nothing
// global. Built on the main thread before any other thread starts, so that every thread inherits the mask; asked at
// step boundaries, and watched by a thread of its own where the others may be stuck.
#pragma once

#include <chrono>
#include <functional>
#include <initializer_list>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

namespace dtrain::launch {

/// For this thread and all it starts. A write that would raise SIGPIPE or SIGXFSZ fails like any other where these are
/// blocked.
void block_signals(std::initializer_list<int> signals);

class StopSignals {
 public:
  /// Ends the process, in two seconds or it is ended with ExitCode::stopped; `why` is a line for the user.
  using End = std::function<void(const std::string& why)>;

  /// Blocks the signals for this thread and all it starts, and those that a failed write raises. SIGHUP and SIGQUIT
  /// stay ignored where the caller ignores them, as nohup does. `again`: from when on after the first signal another
  /// one counts as a second one; `timeout` sends each twice.
  explicit StopSignals(std::chrono::milliseconds again = std::chrono::seconds(1));
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// From now on a thread waits for signals, whatever the others wait for. It calls `end` at the first one, as there is
  /// nothing to save yet; after answer_at_steps() at the second one. SIGUSR1 is not counted: schedulers send it as a
  /// warning before SIGTERM. Called again, it replaces `end`; an empty one is never called.
  void watch(End end);
  /// From now on there is something to save: the first signal is left to who asks pending().
  void answer_at_steps();

  /// As if such a signal had come: `why` in place of its name.
  void ask(std::string why);
  bool asked() const;
  /// True from the first such signal on, or where it was asked for. Does not wait.
  bool pending() noexcept;
  /// "SIGTERM", once pending() was true.
  std::string name() const;

 private:
  using Clock = std::chrono::steady_clock;
  void wait();
  // Under the mutex.
  void receive();
  void end(const std::string& why);

  int descriptor_ = -1, wake_ = -1;
  const std::chrono::milliseconds again_;
  mutable std::mutex mutex_;
  End end_;
  bool at_steps_ = false;
  int first_ = 0;  // number of the signal
  std::string asked_;
  std::optional<Clock::time_point> counted_;  // when the first one came that counts
  std::thread thread_;
};

}  // namespace dtrain::launch
