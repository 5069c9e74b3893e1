#include "launch/cli/start_ranks.hpp"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm/place/launch_env.hpp"
#include "comm/watch/process.hpp"
#include "comm/world/libraries.hpp"
#include "launch/base/progress.hpp"
#include "launch/base/signals.hpp"
#include "launch/place/machine.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

namespace {

constexpr std::string_view option = "--ranks";
constexpr const char* result_variable = "DTRAIN_RESULT";  // a path of a process of this machine

bool runs(const std::string& file) {
  std::error_code ignored;
  return access(file.c_str(), X_OK) == 0 && std::filesystem::is_regular_file(file, ignored);
}

/// `mask`: of signals, as this process had it. Throws ConfigError.
pid_t start(std::vector<std::string> command, const sigset_t& mask) {
  std::vector<char*> words;
  for (std::string& word : command) words.push_back(word.data());
  words.push_back(nullptr);
  (void)std::fflush(nullptr);
  const pid_t parent = getpid();
  int failure[2];
  const pid_t child = pipe2(failure, O_CLOEXEC) == 0 ? fork() : -1;
  if (child < 0) throw ConfigError(fmt::format("cannot start {}: {}", command[0], std::strerror(errno)));
  if (child == 0) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);  // without this process the run ends
    if (getppid() != parent) _exit(static_cast<int>(ExitCode::communication));
    // A terminal would stop a group in the background that reads it.
    const int nothing = open("/dev/null", O_RDONLY);
    if (nothing >= 0) dup2(nothing, STDIN_FILENO);
    sigprocmask(SIG_SETMASK, &mask, nullptr);
    execv(words[0], words.data());
    const int error = errno;
    (void)!write(failure[1], &error, sizeof error);
    _exit(static_cast<int>(ExitCode::usage));
  }
  close(failure[1]);
  int error = 0;
  const bool failed = read(failure[0], &error, sizeof error) == static_cast<ssize_t>(sizeof error);
  close(failure[0]);
  if (!failed) return child;
  waitpid(child, nullptr, 0);
  throw ConfigError(fmt::format("cannot start {}: {}", command[0], std::strerror(error)));
}

}  // namespace

std::vector<std::string> mpirun_command(const RankStart& start, const std::vector<std::string>& arguments) {
  std::vector<std::string> words{start.mpirun, "-q"};  // a rank that fails says why; Open MPI would add ten lines
  if (start.root) words.emplace_back("--allow-run-as-root");
  if (start.ranks > start.cores) words.emplace_back("--oversubscribe");
  words.insert(words.end(), {"--bind-to", "none", "-np", std::to_string(start.ranks), start.program});
  words.insert(words.end(), arguments.begin(), arguments.end());
  return words;
}

std::string find_mpirun(const std::string& program) {
  if (const char* bundle = std::getenv("DTRAIN_BUNDLE"); bundle != nullptr && runs(std::string(bundle) + "/mpirun"))
    return std::string(bundle) + "/mpirun";
  std::string beside = (std::filesystem::path(program).parent_path() / "mpirun").string();
  return runs(beside) ? beside : find_program("mpirun");
}

std::vector<std::string> without_ranks(const std::vector<std::string>& arguments) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == option) {
      ++i;  // its value
    } else if (!arguments[i].starts_with(std::string(option) + "=")) {
      out.push_back(arguments[i]);
    }
  }
  return out;
}

int code_of_run(int wait_status, bool asked, int told) {
  const int code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
  constexpr int stopped = static_cast<int>(ExitCode::stopped);
  return told == stopped || (asked && code == 128 + SIGUSR1) ? stopped : code;
}

void tell_starter(ExitCode code) noexcept {
  const char* const path = std::getenv(result_variable);
  const int file = path == nullptr ? -1 : open(path, O_WRONLY | O_CLOEXEC);
  if (file < 0) return;
  const int number = static_cast<int>(code);
  (void)!write(file, &number, sizeof number);
  close(file);
}

int start_ranks(int ranks, const std::vector<std::string>& arguments, bool saves) {
  const comm::LaunchEnvironment launch = comm::discover_launch(comm::process_environment());
  if (launch.launcher != comm::Launcher::none)
    throw ConfigError(
        fmt::format("--ranks starts ranks by itself, but {} has started this process as one of {} already; "
                    "leave out --ranks, or {}",
                    comm::name_of(launch.launcher), launch.size, comm::name_of(launch.launcher)));
  RankStart how;
  how.program = std::filesystem::read_symlink("/proc/self/exe").string();
  how.mpirun = find_mpirun(how.program);
  if (how.mpirun.empty())
    throw ConfigError(
        "--ranks needs mpirun, which is neither beside dtrain nor in PATH; install Open MPI (Debian: openmpi-bin)");
  how.ranks = ranks;
  how.root = geteuid() == 0;
  how.cores = read_machine().cores;
  const int result = memfd_create("dtrain-result", MFD_CLOEXEC);
  if (result >= 0) setenv(result_variable, fmt::format("/proc/{}/fd/{}", getpid(), result).c_str(), 1);
  sigset_t mask;
  sigprocmask(SIG_BLOCK, nullptr, &mask);
  StopSignals stop;
  const pid_t mpirun = start(mpirun_command(how, without_ranks(arguments)), mask);
  std::atomic<bool> at_once = false;
  stop.answer_at_steps();
  stop.watch([&](const std::string& why) {
    at_once = true;
    print_line(stderr, why);
    kill(mpirun, SIGTERM);
  });
  bool asked = false;
  int status = 0;
  pollfd end{comm::open_process(mpirun), POLLIN, 0};
  while (waitpid(mpirun, &status, WNOHANG) == 0) {
    if (!asked && stop.pending()) {
      asked = true;
      if (saves)
        print_line(stderr, fmt::format("{}: the ranks save and stop; a second signal ends them at once", stop.name()));
      kill(mpirun, saves ? SIGUSR1 : SIGTERM);
    }
    poll(&end, 1, 50);
  }
  if (end.fd >= 0) close(end.fd);
  stop.watch({});
  int told = -1;
  if (result < 0 || pread(result, &told, sizeof told, 0) != static_cast<ssize_t>(sizeof told)) told = -1;
  return at_once ? static_cast<int>(ExitCode::stopped) : code_of_run(status, asked && saves, told);
}

}  // namespace dtrain::launch
