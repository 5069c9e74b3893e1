// HostBoard: a page of memory that all ranks of one host share, with a few cache lines a rank that say what the rank is
// doing, so that a lost or stuck rank can be named by the others.
// World owns the board of this process and lets the ranks join at start. A rank writes its own line only, from any
// thread and without locks; everybody reads all of them. The page has no name and goes with its last process.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include <sys/types.h>

#include "comm/collective/deadlines.hpp"

namespace dtrain::comm {

enum class RankState : std::uint8_t {
  absent,   // has not joined
  running,  // progress is expected
  paused,   // alive, no progress expected
  leaving,  // the orderly end, which all ranks have come to
  failed,   // ends on its own, and has said why
};

/// Where a rank's sums over all ranks are: the host may be ahead of its device.
struct DeviceNote {
  static constexpr std::size_t state_room = 96;
  bool asynchronous = false;                    // its device is asynchronous
  int bucket = -1;                              // whose sum has begun last; -1: none yet
  std::uint64_t step = 0;                       // in which that was, counted from 1
  std::uint64_t sequence = 0;                   // of the collective library's latest call; 0: not known
  std::array<char, state_room + 1> state = {};  // what the library says of itself: "NCCL: remote error"; may be empty
};

/// What a rank wrote, as another one reads it.
struct RankNote {
  static constexpr std::size_t phase_room = 24;
  RankState state = RankState::absent;
  int exit_code = 0;  // of leaving and failed
  int rank = 0;
  pid_t pid = 0;
  std::uint32_t pid_space = 0;  // pids of different spaces mean different things
  std::uint32_t started = 0;    // start time of the process: a pid may be used again
  std::uint32_t beats = 0;      // odd: phase and step were read while the rank wrote them, and may not fit together
  // Exchanges with other ranks, over all threads: it waits inside one where they differ.
  std::uint32_t entered = 0, left = 0;
  std::uint64_t step = 0;
  Deadline deadline = Deadline::set_up;  // of what it does
  std::array<char, phase_room + 1> phase{};
  DeviceNote device = {};

  bool waits() const noexcept { return entered != left; }
  bool ends() const noexcept { return state == RankState::leaving || state == RankState::failed; }
};

class HostBoard {
 public:
  /// A new page for `slots` ranks. Throws CommError.
  explicit HostBoard(int slots);
  /// The page that `owner`, a process of this host, holds under `descriptor`. Throws CommError.
  HostBoard(pid_t owner, int descriptor, int slots);
  /// Where the rank has not said how it ends: it failed.
  ~HostBoard();
  HostBoard(const HostBoard&) = delete;
  HostBoard& operator=(const HostBoard&) = delete;

  /// For others to attach; not valid any more after close_descriptor().
  int descriptor() const noexcept { return descriptor_; }
  void close_descriptor() noexcept;

  /// This process is `rank` and writes line `slot` from now on; state running, phase "start".
  void join(int slot, int rank, std::string host);
  int slots() const noexcept { return slots_; }
  /// -1 before join().
  int slot() const noexcept { return slot_; }
  const std::string& host() const noexcept { return host_; }

  // The own line. One thread at a time for beat(), any thread for the others; nothing allocates. Without a slot:
  // no-ops.
  void beat(const char* phase, std::uint64_t step, Deadline = Deadline::step) noexcept;
  void pause() noexcept;
  void end(RankState, int exit_code) noexcept;
  void enter_exchange() noexcept;
  void leave_exchange() noexcept;
  /// By one thread at a time, which need not be that of beat().
  void note(const DeviceNote&) noexcept;

  RankNote read(int slot) const noexcept;

  // One rank speaks for all: the first to claim. The others see when it has spoken.
  bool claim() noexcept;
  void spoken() noexcept;
  bool was_claimed() const noexcept;
  bool was_spoken() const noexcept;

 private:
  struct alignas(64) Head;
  struct alignas(64) Line;
  void map(bool fresh);
  Line& line(int slot) const noexcept;
  bool mine() const noexcept;
  DeviceNote read_device(int slot) const noexcept;

  int descriptor_ = -1, slots_ = 0, slot_ = -1;
  Head* head_ = nullptr;
  std::string host_;
};

/// The board of a process alone.
std::unique_ptr<HostBoard> make_lone_board(int rank, const std::string& host);

}  // namespace dtrain::comm
