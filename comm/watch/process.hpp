// What Linux says of other processes of this host.
// Plain functions that neither allocate nor throw; whoever opens a descriptor closes it.
#pragma once

#include <cstdint>

#include <sys/types.h>

namespace dtrain::comm {

struct ProcessLook {
  bool alive = false;         // false also of a zombie
  bool stopped = false;       // by SIGSTOP, a terminal or a debugger
  std::uint32_t started = 0;  // clock ticks since boot, which wrap
  pid_t parent = 0;
};
ProcessLook look_at_process(pid_t) noexcept;

/// Which processes a pid of this process can name: equal numbers, equal meaning.
std::uint32_t own_pid_space() noexcept;

/// A descriptor that polls readable when the process dies; -1 where the system has none to give.
int open_process(pid_t) noexcept;

}  // namespace dtrain::comm
