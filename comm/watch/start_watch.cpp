#include "comm/watch/start_watch.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

#include "comm/watch/launcher_watch.hpp"
#include "comm/watch/process.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

namespace {

namespace fs = std::filesystem;

/// Of "NAME=value" entries that end with a zero.
std::optional<std::string> variable(const std::string& environment, std::string_view name) {
  for (std::size_t at = 0; at < environment.size();) {
    const std::size_t end = std::min(environment.find('\0', at), environment.size());
    const std::string_view entry(environment.data() + at, end - at);
    if (entry.size() > name.size() && entry.starts_with(name) && entry[name.size()] == '=')
      return std::string(entry.substr(name.size() + 1));
    at = end + 1;
  }
  return std::nullopt;
}

std::optional<int> whole_number(const std::optional<std::string>& text) {
  int value = 0;
  if (!text) return std::nullopt;
  const char* const end = text->data() + text->size();
  const auto parsed = std::from_chars(text->data(), end, value);
  return parsed.ec == std::errc{} && parsed.ptr == end ? std::optional(value) : std::nullopt;
}

std::string text_of_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string name_of(const fs::path& process) {
  std::string name = text_of_file(process / "comm");
  while (!name.empty() && name.back() == '\n') name.pop_back();
  return name;
}

constexpr const char* job = "PMIX_NAMESPACE";

}  // namespace

std::vector<StartedRank> ranks_started_here() {
  const char* const mine = std::getenv(job);
  if (mine == nullptr) return {};
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  std::map<int, StartedRank> found;
  for (fs::directory_iterator entry("/proc", error), end; !error && entry != end; entry.increment(error)) {
    const auto pid = whole_number(entry->path().filename().string());
    if (!pid) continue;
    const std::string environment = text_of_file(entry->path() / "environ");  // empty for others' and the dead
    if (variable(environment, job) != mine) continue;
    const auto rank = whole_number(variable(environment, "PMIX_RANK"));
    auto local = whole_number(variable(environment, "OMPI_COMM_WORLD_LOCAL_RANK"));
    if (!local) local = whole_number(variable(environment, "SLURM_LOCALID"));
    const ProcessLook look = look_at_process(*pid);
    if (!rank || !local || !look.alive) continue;
    StartedRank r{.rank = *rank, .local_rank = *local, .pid = *pid, .stopped = look.stopped};
    r.program = name_of(entry->path());
    if (r.program == LauncherWatch::process_name) continue;
    std::error_code unreadable;
    r.same_program = fs::read_symlink(entry->path() / "exe", unreadable) == program;
    const auto at = found.try_emplace(*local, r).first;
    if (r.same_program && !at->second.same_program) at->second = r;
  }
  std::vector<StartedRank> out;
  for (const auto& [local, r] : found) out.push_back(r);
  return out;
}

pid_t launcher_of_this_rank() {
  const char* const mine = std::getenv(job);
  if (mine == nullptr) return 0;
  constexpr int most_wrappers = 8;
  pid_t pid = getppid();
  for (int i = 0; i < most_wrappers && pid > 1; ++i) {
    const fs::path process = fmt::format("/proc/{}", pid);
    if (variable(text_of_file(process / "environ"), job) == mine) {
      pid = look_at_process(pid).parent;
      continue;
    }
    const std::string name = name_of(process);
    for (const char* known : {"mpirun", "mpiexec", "orterun", "orted", "prterun", "prted"})
      if (name == known) return pid;
    return 0;
  }
  return 0;
}

double StartWatch::limit_seconds(const Environment& environment) {
  const char* const text = environment(setting);
  if (text == nullptr || *text == '\0') return default_limit_seconds;
  char* end = nullptr;
  const double seconds = std::strtod(text, &end);
  if (*end != '\0' || !(seconds >= 0 && seconds <= 1e9))
    throw ConfigError(fmt::format("{} is \"{}\"; expected a number of seconds (0: no limit)", setting, text));
  return seconds;
}

struct StartWatch::State {
  LaunchEnvironment launch;
  std::string host;
  Options options;
  std::mutex mutex;
  std::condition_variable changed;
  bool over = false;
  std::thread thread;

  // Of the thread alone.
  struct Seen {
    StartedRank last;
    double gone = -1;  // since when it is; -1: it is there
  };
  std::map<int, Seen> seen;  // by local rank
  std::vector<StartedRank> here;
  double trouble = -1;
  bool speaks = false;

  bool wait(double seconds) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return over; });
  }

  void watch() {
    using Clock = std::chrono::steady_clock;
    const auto begin = Clock::now();
    while (!wait(trouble < 0 ? options.look_seconds : options.look_seconds / 10)) {
      const double now = std::chrono::duration<double>(Clock::now() - begin).count();
      if (trouble < 0) look(now);
      const bool late = options.limit_seconds > 0 && now >= options.limit_seconds;
      if (trouble < 0 && !late && !someone_died(now)) continue;
      if (trouble < 0) {
        trouble = now;
        // One that was there a moment ago has come to the limit first: it has spoken, and did not die.
        speaks = std::none_of(seen.begin(), seen.end(), [&](const auto& s) {
          const StartedRank& r = s.second.last;
          return r.local_rank < launch.local_rank && r.same_program && !r.stopped &&
                 (s.second.gone < 0 || now - s.second.gone < options.settle_seconds);
        });
      }
      // The first rank of a host speaks, that of rank 0 first; the launcher ends the others then.
      const bool first_host = launch.rank == launch.local_rank;
      if (now - trouble < (first_host ? 0 : 2 * options.look_seconds) + (speaks ? 0 : options.look_seconds)) continue;
      options.on_end(speaks ? text(now) : std::string());
      return;
    }
  }

  void look(double now) {
    here = options.look();
    for (auto& [local, s] : seen)
      if (s.gone < 0) s.gone = now;
    for (const StartedRank& r : here) seen[r.local_rank] = {r, -1};
  }

  bool someone_died(double now) const {
    return std::any_of(seen.begin(), seen.end(), [&](const auto& s) {
      return s.second.gone >= 0 && now - s.second.gone >= options.settle_seconds;
    });
  }

  std::string name(const StartedRank& r) const { return fmt::format("rank {} (host {}, pid {})", r.rank, host, r.pid); }

  std::string text(double now) const {
    for (const auto& [local, s] : seen) {
      if (s.gone < 0) continue;
      return fmt::format(
          "{} died {}, before the ranks could meet; it was killed (by the kernel for want of memory, say) or "
          "crashed; run the same command again",
          name(s.last), s.last.same_program ? "inside MPI_Init" : "before it started dtrain");
    }
    return fmt::format("MPI_Init has not returned for {:.0f} s ({} is {:g}; raise it where that is too short): {}", now,
                       setting, options.limit_seconds, cause());
  }

  std::string cause() const {
    const bool one_host = launch.size == launch.local_size;
    for (int local = 0; !here.empty() && local < launch.local_size; ++local) {
      const auto at = std::find_if(here.begin(), here.end(), [&](const auto& r) { return r.local_rank == local; });
      if (at == here.end())
        return fmt::format(
            "{} {} has no process on host {}: it has died, or was not started; see what the launcher says "
            "of it, and run the same command again",
            one_host ? "rank" : "the rank with local number", local, host);
      if (at->stopped) return name(*at) + " is stopped (SIGSTOP or a debugger)";
      if (!at->same_program)
        return fmt::format("{} has not started dtrain: its process runs \"{}\"; see what that waits for", name(*at),
                           at->program);
    }
    return one_host ? "all ranks are there, so MPI itself is stuck; run the same command again, and see `dtrain doctor`"
                    : fmt::format(
                          "no rank of host {} is missing; look for a rank of another host that died or was not "
                          "started, and whether the hosts reach each other by the network that MPI uses",
                          host);
  }
};

StartWatch::StartWatch(const LaunchEnvironment& launch, std::string host, Options options)
    : state_(std::make_unique<State>()) {
  state_->launch = launch;
  state_->host = std::move(host);
  state_->options = std::move(options);
  if (!state_->options.on_end)
    state_->options.on_end = [](const std::string& message) {
      // Past stdio, whose lock a stuck thread may hold.
      const std::string line = message.empty() ? message : fmt::format("error: {}\n", message);
      (void)!write(STDERR_FILENO, line.data(), line.size());
      _exit(static_cast<int>(ExitCode::communication));
    };
  state_->thread = std::thread([s = state_.get()] { s->watch(); });
}

StartWatch::~StartWatch() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->over = true;
  }
  state_->changed.notify_all();
  state_->thread.join();
}

}  // namespace dtrain::comm
