#include "io/checkpoint/checkpoint_best.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "io/checkpoint/checkpoint_manifest.hpp"
#include "io/checkpoint/checkpoint_publish.hpp"

namespace dtrain::io {
namespace {

constexpr std::uint64_t label_cap = 64;  // bytes: "step-" and a number

bool is_there(FileSystem& files, const std::string& directory, std::uint64_t step) {
  return look_at(files, join_path(directory, step_name(step))).directory;
}

}  // namespace

std::optional<std::uint64_t> read_best(FileSystem& files, const std::string& directory) {
  const auto path = join_path(directory, best_name);
  const FileStatus status = look_at(files, path);
  if (!status.regular || status.bytes > label_cap) return std::nullopt;
  auto text = read_text(files, path, label_cap);
  if (text.ends_with('\n')) text.pop_back();
  std::uint64_t step = 0;
  if (!parse_step_name(text, step)) return std::nullopt;
  return step;
}

void point_best(FileSystem& files, const std::string& directory, std::optional<std::uint64_t> best,
                const std::string& unique) {
  const auto now = read_best(files, directory);
  if (best && is_there(files, directory, *best)) {
    if (now == best) return;
    // Not there under its name before it is on the disk; what a death leaves is removed as any attempt is.
    const auto temporary = join_path(directory, fmt::format("{}{}-{}", temporary_prefix, best_name, unique));
    write_text(files, temporary, step_name(*best) + "\n");
    rename(files, temporary, join_path(directory, best_name));
  } else {
    if (!now || is_there(files, directory, *now)) return;
    const auto path = join_path(directory, best_name);
    if (const int r = files.remove_file(path); r < 0) throw_file_error("remove", path, r);
  }
  sync_directory(files, directory);
}

std::string follow_label(FileSystem& files, const std::string& path) {
  const auto slash = path.find_last_of('/');
  const auto directory =
      slash == std::string::npos ? std::string(".") : path.substr(0, std::max<std::size_t>(slash, 1));
  if (path.substr(slash == std::string::npos ? 0 : slash + 1) != best_name) return path;
  const FileStatus status = look_at(files, path);
  if (status.directory) return path;
  if (!status.exists) {
    throw CheckpointError(fmt::format("{} is not there: no checkpoint was labelled best; set checkpoint.best while "
                                      "training, or name a step directory",
                                      path),
                          CheckpointError::Kind::incomplete);
  }
  const auto step = read_best(files, directory);
  if (!step) {
    throw CheckpointError(fmt::format("{} is not the label of a checkpoint; name a step directory", path),
                          CheckpointError::Kind::corrupt);
  }
  auto target = join_path(directory, step_name(*step));
  if (!is_there(files, directory, *step)) {
    throw CheckpointError(fmt::format("{} names {}, which is not there; name a step directory", path, target),
                          CheckpointError::Kind::incomplete);
  }
  return target;
}

}  // namespace dtrain::io
