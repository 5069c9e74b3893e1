// Watchdog: a thread that never calls MPI and watches all ranks of this host, since a blocking MPI call can be neither
// aborted nor waited for. It reports a rank that died, warns of one that the others wait for, and ends the run at the
// deadline; one rank a host speaks, all leave. Rank 0's hears of the other hosts' ranks by messages of their first
// ones. Owns its thread and the links to other hosts, and refers to the board, which outlives it; beat() and pause()
// may be called from any one thread at a time and neither lock nor allocate.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/watch/host_board.hpp"
#include "comm/watch/leader_link.hpp"

namespace dtrain::comm {

/// Where the sums of this rank are; asked several times a second on the watchdog's thread, which must not block: so it
/// asks neither the device nor a library that may hang.
class DeviceWatch {
 public:
  virtual ~DeviceWatch() = default;
  virtual DeviceNote look() noexcept = 0;
};

class Watchdog {
 public:
  struct Options {
    double timeout_seconds = 0;  // without progress, whatever a rank does; 0 or less: never
    double warn_seconds = 8;     // others wait for so long; at half the timeout where that is sooner
    int ranks = 1;               // of the whole run
    LinkTimes links = {};
    /// What happens then; the defaults print "error: <message>" and leave by _exit(5), print "warning: <message>". Each
    /// on the watchdog's thread. An error is reported once.
    std::function<void(const std::string&message)> on_error, on_warning;
  };

  /// Watches the ranks that have joined the board, this one included.
  Watchdog(HostBoard&, Options);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// Another timeout from now on, whatever a rank does; 0 or less: never.
  void limit(double timeout_seconds) noexcept;
  /// The deadlines of a run, each for its part.
  void limit(const CommConfig&) noexcept;
  /// Progress: `phase` ("load", "update", "save"; up to 24 characters) of `step` begins now, with this deadline.
  void beat(const char* phase, std::uint64_t step, Deadline = Deadline::step) noexcept;
  /// No deadline until the next beat: waiting for something that may rightly take long.
  void pause() noexcept;

  /// From now on the notes say where `device` is; null: nothing any more. It is not asked after the call.
  void follow(DeviceWatch* device);
  /// The calling thread waits for other ranks, as long as this lives; null: it does not. All ranks come to the same
  /// ones in the same order.
  class Wait {
   public:
    explicit Wait(Watchdog* watchdog) noexcept;
    ~Wait();
    Wait(const Wait&) = delete;
    Wait& operator=(const Wait&) = delete;

   private:
    Watchdog* watchdog_;
  };

  /// On rank 0, once: listens at these of its host's addresses for the first ranks of these other hosts, and returns
  /// where and with which secret. Throws CommError.
  std::string listen(const std::vector<std::string>& other_hosts, const std::vector<std::string>& addresses);
  /// On the first rank of another host, once.
  void connect(const std::string& address);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dtrain::comm
