#include "comm/watch/launcher_watch.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm/watch/process.hpp"

namespace dtrain::comm {

namespace {

constexpr int look_milliseconds = 100;

enum class Children : unsigned char { none, some, unknown };

Children children_of(pid_t pid) {
  char path[64];
  (void)std::snprintf(path, sizeof path, "/proc/%d/task", static_cast<int>(pid));
  DIR* const threads = opendir(path);
  if (threads == nullptr) return Children::unknown;
  Children found = Children::unknown;
  while (const dirent* const thread = readdir(threads)) {
    if (thread->d_name[0] == '.') continue;
    char file[400];
    (void)std::snprintf(file, sizeof file, "%s/%s/children", path, thread->d_name);
    const int descriptor = open(file, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) continue;
    char pids[4096];
    const ssize_t n = read(descriptor, pids, sizeof pids - 1);
    close(descriptor);
    if (n < 0) continue;
    pids[n] = '\0';
    if (found == Children::unknown) found = Children::none;
    // A launcher that is stuck leaves dead ones as they are.
    char* end = pids;
    for (const char* at = pids; const long child = std::strtol(at, &end, 10); at = end)
      if (look_at_process(static_cast<pid_t>(child)).alive) found = Children::some;
  }
  closedir(threads);
  return found;
}

/// Where its user reads.
void say_to_user_of(pid_t launcher) {
  char path[64], text[256];
  (void)std::snprintf(path, sizeof path, "/proc/%d/fd/2", static_cast<int>(launcher));
  const int errors = open(path, O_WRONLY | O_APPEND | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (errors < 0) return;
  const int length = std::snprintf(text, sizeof text,
                                   "warning: mpirun (pid %d) has no rank left and does not end, a fault of Open MPI's "
                                   "where a rank dies inside MPI_Init: dtrain ends it by SIGKILL\n",
                                   static_cast<int>(launcher));
  (void)!write(errors, text, static_cast<std::size_t>(length));
}

/// Whoever reads what the ranks print waits until nobody has it open any more.
void close_all_but(int a, int b) {
  const int nothing = open("/dev/null", O_RDWR);
  for (int i = 0; i < 3 && nothing >= 0; ++i) dup2(nothing, i);
  const auto [low, high] = std::minmax(a, b);
  const auto close_some = [](int first, int last) {
    if (first <= last && syscall(SYS_close_range, first, last, 0) != 0)
      for (int i = first; i <= std::min(last, 4096); ++i) close(i);
  };
  close_some(3, low - 1);
  close_some(low + 1, high - 1);
  close_some(high + 1, 1 << 20);
}

void watch(int line, int process, pid_t launcher, double patience_seconds) {
  pollfd events[] = {{line, POLLIN, 0}, {process, POLLIN, 0}};
  while (poll(events, std::size(events), -1) < 0 && errno == EINTR) {
  }
  char started = 0;
  if (events[1].revents != 0 || read(line, &started, 1) == 1) return;
  for (double without = 0; without < patience_seconds; without += look_milliseconds / 1000.0) {
    if (poll(&events[1], 1, look_milliseconds) > 0) return;
    const Children children = children_of(launcher);
    if (children == Children::unknown) return;
    if (children == Children::some) without = 0;
  }
  say_to_user_of(launcher);
  (void)syscall(SYS_pidfd_send_signal, process, SIGKILL, nullptr, 0);
}

}  // namespace

LauncherWatch::LauncherWatch(pid_t launcher, double patience_seconds) {
  const int process = launcher > 0 ? open_process(launcher) : -1;
  if (process < 0) return;
  int ends[2];
  const bool joined = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0;
  const pid_t child = joined ? fork() : -1;
  if (child == 0) {
    if (fork() != 0) _exit(0);  // so that nobody has to wait for its end
    setsid();                   // mpirun kills groups
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    prctl(PR_SET_NAME, process_name);
    close_all_but(ends[0], process);
    watch(ends[0], process, launcher, patience_seconds);
    _exit(0);
  }
  close(process);
  if (!joined) return;
  close(ends[0]);
  line_ = ends[1];
  if (child > 0) waitpid(child, nullptr, 0);
}

LauncherWatch::~LauncherWatch() {
  if (line_ < 0) return;
  const char started = 1;
  (void)send(line_, &started, 1, MSG_NOSIGNAL);
  close(line_);
}

}  // namespace dtrain::comm
