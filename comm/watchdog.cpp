#include "comm/watchdog.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <thread>

#include <fmt/format.h>
#include <unistd.h>

#include "runtime/error.hpp"

namespace dtrain::comm {

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void print_and_leave(const std::string& message) {
  // One write: other threads and ranks may print at the same time.
  const std::string line = fmt::format("error: {}\n", message);
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
  _exit(static_cast<int>(ExitCode::communication));
}

}  // namespace

struct Watchdog::State {
  int rank = 0;
  std::string host;
  double timeout = 0, grace = 0;
  OnExpiry on_expiry;

  // Since when, in ticks of the steady clock; 0: paused. Read last and checked again, so that a report never mixes two
  // beats.
  std::atomic<Clock::rep> since{0};
  std::atomic<const char*> phase{"start"};
  std::atomic<std::uint64_t> step{0};

  std::mutex mutex;
  std::condition_variable ended_changed;
  bool ended = false;
  std::thread thread;

  void watch() {
    const auto tick = std::chrono::duration<double>(std::clamp(timeout / 10, 0.01, 0.5));
    std::unique_lock lock(mutex);
    while (!ended_changed.wait_for(lock, tick, [&] { return ended; })) {
      const Clock::rep begin = since.load();
      if (begin == 0) continue;
      const double idle =
          std::chrono::duration<double>(Clock::now().time_since_epoch() - Clock::duration(begin)).count();
      if (idle < timeout + grace) continue;
      const char* const where = phase.load();
      const std::uint64_t at = step.load();
      if (since.load() != begin) continue;
      on_expiry(
          fmt::format("rank {} (host {}) made no progress for {:.0f} s in phase {} of step {}; another rank or the "
                      "network is lost or stuck (communication.timeout_seconds is {:.0f})",
                      rank, host, idle, where, at, timeout));
      since.store(0);  // a handler that returns is told once
    }
  }
};

Watchdog::Watchdog(int rank, std::string host, double timeout_seconds, OnExpiry on_expiry)
    : state_(std::make_unique<State>()) {
  state_->rank = rank;
  state_->host = std::move(host);
  state_->timeout = timeout_seconds;
  state_->grace = rank == 0 ? 0 : 2;
  state_->on_expiry = on_expiry ? std::move(on_expiry) : print_and_leave;
  if (timeout_seconds > 0) state_->thread = std::thread([s = state_.get()] { s->watch(); });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->ended = true;
  }
  state_->ended_changed.notify_all();
  if (state_->thread.joinable()) state_->thread.join();
}

void Watchdog::beat(const char* phase, std::uint64_t step) noexcept {
  state_->phase.store(phase);
  state_->step.store(step);
  state_->since.store(Clock::now().time_since_epoch().count());
}

void Watchdog::pause() noexcept {
  state_->since.store(0);
}

}  // namespace dtrain::comm
