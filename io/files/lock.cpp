#include "io/files/lock.hpp"

#include <cerrno>
#include <chrono>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

namespace dtrain::io {
namespace {

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "unknown";
}

struct Holder {
  std::string text = "a process that has not written its name";
  bool ending = false;  // it was killed, and is still here only for a write under way
};

/// A killed process whose write the kernel is still busy with keeps its locks; its main thread is gone by then.
bool is_ending(std::int64_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string line;
  if (!std::getline(file, line)) return true;
  const auto name_end = line.rfind(')');  // "PID (NAME) STATE ..."
  if (name_end == std::string::npos || name_end + 2 >= line.size()) return false;
  const char state = line[name_end + 2];
  return state == 'Z' || state == 'X';
}

/// Best effort: the holder may be about to write its name.
Holder find_holder(FileSystem& files, const std::string& path) {
  try {
    const auto owner = nlohmann::json::parse(read_text(files, path, 4096));
    const auto pid = owner.at("pid").get<std::int64_t>();
    const auto host = owner.at("host").get<std::string>();
    return {fmt::format("process {} on host {}, run {}", pid, host, owner.at("run_id").get<std::string>()),
            host == host_name() && is_ending(pid)};
  } catch (const std::exception&) {
    return {};
  }
}

}  // namespace

DirectoryLock::DirectoryLock(FileSystem& files, const std::string& directory, const std::string& run_id,
                             LockedDirectory of, double grace_seconds)
    : files_(&files), directory_(directory), run_id_(run_id), of_(of) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::seconds patience{60};  // with a holder that is ending
  const auto path = join_path(directory, of.file);
  File file(files, path, O_RDWR | O_CREAT | O_NOFOLLOW);
  const auto begin = Clock::now();
  const auto grace = std::chrono::duration<double>(grace_seconds);
  for (;;) {
    const int r = files.try_lock(file.descriptor());
    if (r == 0) break;
    if (r != -EWOULDBLOCK) {
      throw_file_error("lock", path, r,
                       fmt::format("the file system must support flock; choose another {}", of.setting));
    }
    const auto waited = Clock::now() - begin;
    if (waited >= grace) {
      const Holder holder = find_holder(files, path);
      if (!holder.ending || waited >= patience)
        throw CheckpointError(fmt::format("{} {} is in use by {}; stop that job or choose another {}", of.what,
                                          directory, holder.text, of.setting));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  const nlohmann::json owner = {
      {"host", host_name()}, {"pid", static_cast<std::int64_t>(::getpid())}, {"run_id", run_id}};
  const auto text = owner.dump() + "\n";
  file.truncate(0);
  file.write(std::as_bytes(std::span(text)));
  inode_ = look_at(files, path).inode;
  file_ = std::move(file);
}

bool DirectoryLock::renew() {
  if (!held() || look_at(*files_, join_path(directory_, of_.file)).inode == inode_) return false;
  make_directories(*files_, directory_);
  *this = DirectoryLock(*files_, directory_, run_id_, of_);
  return true;
}

}  // namespace dtrain::io
