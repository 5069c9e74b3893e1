#include "io/checkpoint/checkpoint_best.hpp"

#include <algorithm>
#include <charconv>
#include <string_view>
#include <system_error>

#include <fmt/format.h>

#include "io/checkpoint/checkpoint.hpp"
#include "io/checkpoint/checkpoint_manifest.hpp"
#include "io/checkpoint/checkpoint_publish.hpp"

namespace dtrain::io {
namespace {

constexpr std::uint64_t label_cap = 64;  // bytes: "step-" and a number

bool is_there(FileSystem& files, const std::string& directory, std::uint64_t step) {
  return look_at(files, join_path(directory, step_name(step))).directory;
}

/// Of "500", "step-500" or "step-000000500".
std::optional<std::uint64_t> step_of(std::string_view word) {
  constexpr std::string_view prefix = "step-";
  if (word.starts_with(prefix)) word.remove_prefix(prefix.size());
  std::uint64_t step = 0;
  const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), step);
  if (word.empty() || error != std::errc{} || stop != word.data() + word.size()) return std::nullopt;
  return step;
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

std::string checkpoints_of(FileSystem& files, const std::string& given) {
  auto below = join_path(given, "checkpoints");
  return look_at(files, below).directory ? below : given;
}

bool names_checkpoint(std::string_view word) {
  return word == best_name || step_of(word);
}

std::string follow_label(FileSystem& files, const std::string& given) {
  const auto slash = given.find_last_of('/');
  const auto parent = slash == std::string::npos ? std::string(".") : given.substr(0, std::max<std::size_t>(slash, 1));
  const auto word = given.substr(slash == std::string::npos ? 0 : slash + 1);
  if (!names_checkpoint(word)) return checkpoints_of(files, given);
  const FileStatus status = look_at(files, given);
  if (status.directory) return checkpoints_of(files, given);  // a run may have such a name, too
  if (status.exists && step_of(word)) return given;
  const auto directory = checkpoints_of(files, parent);
  if (!look_at(files, directory).exists) {
    throw CheckpointError(
        fmt::format("{} is not there; name the folder of a run, or a directory of checkpoints", parent),
        CheckpointError::Kind::incomplete);
  }
  if (const auto step = step_of(word)) {
    if (is_there(files, directory, *step)) return join_path(directory, step_name(*step));
    throw CheckpointError(fmt::format("{} has no checkpoint of step {}; `dtrain checkpoint list {}` shows those it has",
                                      directory, *step, directory),
                          CheckpointError::Kind::incomplete);
  }
  const auto path = join_path(directory, best_name);
  if (!look_at(files, path).exists) {
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
