#include "io/lock.hpp"

#include <cerrno>
#include <chrono>
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

/// Best effort: the holder may be about to write its name.
std::string describe_holder(FileSystem& files, const std::string& path) {
  try {
    const auto owner = nlohmann::json::parse(read_text(files, path, 4096));
    return fmt::format("process {} on host {}, run {}", owner.at("pid").get<std::int64_t>(),
                       owner.at("host").get<std::string>(), owner.at("run_id").get<std::string>());
  } catch (const std::exception&) {
    return "a process that has not written its name";
  }
}

}  // namespace

DirectoryLock::DirectoryLock(FileSystem& files, const std::string& directory, const std::string& run_id,
                             double grace_seconds) {
  using Clock = std::chrono::steady_clock;
  const auto path = join_path(directory, "LOCK");
  File file(files, path, O_RDWR | O_CREAT | O_NOFOLLOW);
  const auto deadline = Clock::now() + std::chrono::duration<double>(grace_seconds);
  for (;;) {
    const int r = files.try_lock(file.descriptor());
    if (r == 0) break;
    if (r != -EWOULDBLOCK) {
      throw_file_error("lock", path, r, "the file system must support flock; choose another checkpoint.directory");
    }
    if (Clock::now() >= deadline) {
      throw CheckpointError(
          fmt::format("checkpoint directory {} is in use by {}; stop that job or choose another checkpoint.directory",
                      directory, describe_holder(files, path)));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  const nlohmann::json owner = {
      {"host", host_name()}, {"pid", static_cast<std::int64_t>(::getpid())}, {"run_id", run_id}};
  const auto text = owner.dump() + "\n";
  file.truncate(0);
  file.write(std::as_bytes(std::span(text)));
  file_ = std::move(file);
}

}  // namespace dtrain::io
