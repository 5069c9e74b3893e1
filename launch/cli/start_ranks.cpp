#include "launch/cli/start_ranks.hpp"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>

#include <fmt/format.h>
#include <unistd.h>

#include "comm/place/launch_env.hpp"
#include "comm/world/libraries.hpp"
#include "launch/place/machine.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

namespace {

constexpr std::string_view option = "--ranks";

bool runs(const std::string& file) {
  std::error_code ignored;
  return access(file.c_str(), X_OK) == 0 && std::filesystem::is_regular_file(file, ignored);
}

}  // namespace

std::vector<std::string> mpirun_command(const RankStart& start, const std::vector<std::string>& arguments) {
  std::vector<std::string> words{start.mpirun};
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

void start_ranks(int ranks, const std::vector<std::string>& arguments) {
  const comm::LaunchEnvironment launch = comm::discover_launch(comm::process_environment());
  if (launch.launcher != comm::Launcher::none)
    throw ConfigError(
        fmt::format("--ranks starts ranks by itself, but {} has started this process as one of {} already; "
                    "leave out --ranks, or {}",
                    comm::name_of(launch.launcher), launch.size, comm::name_of(launch.launcher)));
  RankStart start;
  start.program = std::filesystem::read_symlink("/proc/self/exe").string();
  start.mpirun = find_mpirun(start.program);
  if (start.mpirun.empty())
    throw ConfigError(
        "--ranks needs mpirun, which is neither beside dtrain nor in PATH; install Open MPI (Debian: openmpi-bin)");
  start.ranks = ranks;
  start.root = geteuid() == 0;
  start.cores = read_machine().cores;
  std::vector<std::string> command = mpirun_command(start, without_ranks(arguments));
  std::vector<char*> words;
  for (std::string& word : command) words.push_back(word.data());
  words.push_back(nullptr);
  (void)std::fflush(nullptr);
  execv(words[0], words.data());
  throw ConfigError(fmt::format("cannot start {}: {}", start.mpirun, std::strerror(errno)));
}

}  // namespace dtrain::launch
