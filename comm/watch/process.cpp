#include "comm/watch/process.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace dtrain::comm {

// "PID (NAME) STATE ...", with the start time in field 22; NAME may hold anything.
ProcessLook look_at_process(pid_t pid) noexcept {
  char path[32], text[1024];
  (void)std::snprintf(path, sizeof path, "/proc/%d/stat", static_cast<int>(pid));
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return {};
  const ssize_t n = read(file, text, sizeof text - 1);
  close(file);
  if (n <= 0) return {};
  text[n] = '\0';
  const char* at = std::strrchr(text, ')');
  if (at == nullptr || at[1] == '\0') return {};
  const char state = at[2];
  at += 2;
  const long parent = std::strtol(at + 1, nullptr, 10);  // field 4
  for (int field = 3; field < 22 && at != nullptr; ++field) {
    at = std::strchr(at, ' ');
    if (at != nullptr) ++at;
  }
  ProcessLook look;
  look.alive = state != 'Z' && state != 'X' && state != 'x';
  look.parent = static_cast<pid_t>(parent);
  look.stopped = state == 'T' || state == 't';
  if (at != nullptr) look.started = static_cast<std::uint32_t>(std::strtoull(at, nullptr, 10));
  return look;
}

std::uint32_t own_pid_space() noexcept {
  struct stat s {};
  return stat("/proc/self/ns/pid", &s) == 0 ? static_cast<std::uint32_t>(s.st_ino) : 0;
}

int open_process(pid_t pid) noexcept {
  return static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
}

}  // namespace dtrain::comm
