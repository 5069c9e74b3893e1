#include "launch/bench/process.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

namespace {

class Pipe {
 public:
  Pipe() {
    if (pipe2(ends_.data(), O_CLOEXEC) != 0)
      throw ConfigError(fmt::format("cannot make a pipe: {}", std::strerror(errno)));
  }
  ~Pipe() {
    for (const int end : ends_)
      if (end >= 0) close(end);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  int out() const noexcept { return ends_[0]; }
  int in() const noexcept { return ends_[1]; }
  void close_in() noexcept {
    close(ends_[1]);
    ends_[1] = -1;
  }

 private:
  std::array<int, 2> ends_{-1, -1};
};

/// What Open MPI, PMIx and PMI set in the processes that they start; a user's own OMPI_MCA_ settings stay.
bool of_a_launcher(std::string_view variable) {
  for (const std::string_view own : {"OMPI_MCA_ess", "OMPI_MCA_orte_", "OMPI_MCA_pmix", "OMPI_MCA_initial_wdir",
                                     "OMPI_MCA_shmem_RUNTIME", "OMPI_MCA_mpi_yield_when_idle"})
    if (variable.starts_with(own)) return true;
  if (variable.starts_with("OMPI_MCA_")) return false;
  for (const std::string_view prefix : {"OMPI_", "PMIX_", "PMI_", "PRTE_"})
    if (variable.starts_with(prefix)) return true;
  return false;
}

std::vector<char*> environment_of_child() {
  std::vector<char*> out;
  for (char** at = environ; *at != nullptr; ++at)
    if (!of_a_launcher(*at)) out.push_back(*at);
  out.push_back(nullptr);
  return out;
}

void read_both(const Pipe& out, const Pipe& err, ProcessResult& result) {
  std::array<pollfd, 2> ends{pollfd{out.out(), POLLIN, 0}, {err.out(), POLLIN, 0}};
  std::array<std::string*, 2> texts{&result.out, &result.err};
  while (ends[0].fd >= 0 || ends[1].fd >= 0) {
    if (poll(ends.data(), ends.size(), -1) < 0 && errno != EINTR) return;
    for (std::size_t i = 0; i < ends.size(); ++i) {
      if (ends[i].fd < 0 || ends[i].revents == 0) continue;
      char block[4096];
      const ssize_t n = read(ends[i].fd, block, sizeof block);
      if (n > 0) texts[i]->append(block, static_cast<std::size_t>(n));
      if (n == 0 || (n < 0 && errno != EINTR)) ends[i].fd = -1;
    }
  }
}

}  // namespace

ProcessResult run_process(const std::vector<std::string>& command) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const std::vector<char*> environment = environment_of_child();
  Pipe out, err;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out.in(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err.in(), STDERR_FILENO);
  pid_t child = 0;
  const int failed = posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) throw ConfigError(fmt::format("cannot start {}: {}", command[0], std::strerror(failed)));
  out.close_in();
  err.close_in();
  ProcessResult result;
  read_both(out, err, result);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace dtrain::launch
