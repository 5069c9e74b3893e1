#include "io/checkpoint/checkpoint_publish.hpp"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <fmt/format.h>

#include "io/checkpoint/checkpoint_best.hpp"
#include "io/checkpoint/checkpoint_digest.hpp"

namespace dtrain::io {
namespace {

constexpr std::size_t chunk_bytes = std::size_t{4} << 20;

void check_shards(FileSystem& files, const Publication& p) {
  for (std::size_t i = 0; i < p.manifest.shards.size(); ++i) {
    const auto path = join_path(p.temporary, shard_name(i));
    const auto expected = p.manifest.shards[i].end - p.manifest.shards[i].begin;
    const FileStatus status = look_at(files, path);
    if (!status.exists) {
      throw CheckpointError(
          fmt::format("rank 0 does not see {}: checkpoint.directory must lie on a file system that "
                      "all ranks share",
                      path));
    }
    if (status.bytes != expected) {
      throw CheckpointError(fmt::format("{} has {} bytes, not {}", path, status.bytes, expected));
    }
  }
}

/// Checkpoints that this run neither wrote nor builds on must not be taken for its future.
void set_aside(FileSystem& files, const Publication& p, std::vector<std::string>& remarks) {
  const auto current = p.manifest.state.step;
  bool any = false;
  for (const auto step : list_steps(files, p.directory)) {
    const bool foreign = (!p.has_base || step > p.base) && p.own.count(step) == 0;
    if (step != current && !foreign) continue;
    const auto from = join_path(p.directory, step_name(step));
    const auto to = join_path(p.directory, fmt::format("aside-{}-{}", step_name(step), p.unique));
    rename(files, from, to);
    remarks.push_back(fmt::format("{} is not part of this run; it is now {}", from, to));
    any = true;
  }
  // Must not be undone by a crash that keeps the new checkpoint.
  if (any) sync_directory(files, p.directory);
}

void prune(FileSystem& files, const Publication& p, Published& out) {
  auto steps = list_steps(files, p.directory);
  const auto current = p.manifest.state.step;
  std::erase_if(steps, [&](auto step) { return step > current; });
  const auto keep = static_cast<std::size_t>(std::max(p.keep, 2));
  if (steps.size() <= keep) return;
  steps.resize(steps.size() - keep);
  const auto labelled = read_best(files, p.directory);
  for (const auto step : steps) {
    if (step == labelled || step == p.best) continue;
    if (p.keep_every > 0 && step % static_cast<std::uint64_t>(p.keep_every) == 0) continue;
    const auto path = join_path(p.directory, step_name(step));
    // Away under its name first: a death in the middle leaves no checkpoint that is half there.
    const auto away = join_path(p.directory, fmt::format("{}remove-{}-{}", temporary_prefix, step, p.unique));
    rename(files, path, away);
    out.removed.push_back(path);
    remove_tree(files, away);
  }
}

}  // namespace

std::string write_shard(FileSystem& files, const std::string& temporary, int rank, std::span<const std::byte> shard,
                        const std::atomic<bool>& cancel) {
  make_directories(files, temporary);  // with parents: somebody may have removed them
  File file(files, join_path(temporary, shard_name(static_cast<std::size_t>(rank))),
            O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW);
  if (!shard.empty()) file.allocate(shard.size());
  Sha256 digest;
  for (std::size_t done = 0; done < shard.size();) {
    if (cancel.load(std::memory_order_relaxed)) throw CheckpointError("the save was given up");
    const auto chunk = shard.subspan(done, std::min(chunk_bytes, shard.size() - done));
    file.write(chunk);
    // The disk works on this chunk while it is being hashed.
    file.start_writeback(done, chunk.size());
    digest.add(chunk);
    done += chunk.size();
  }
  file.sync();
  file.close();
  sync_directory(files, temporary);
  return digest.hex();
}

Published publish(FileSystem& files, const Publication& p) {
  Published out;
  try {
    check_shards(files, p);
    const auto text = format_manifest(p.manifest);
    parse_manifest(text);  // what cannot be read back must not be published
    write_text(files, join_path(p.temporary, manifest_name), text);
    sync_directory(files, p.temporary);
    set_aside(files, p, out.remarks);
    rename(files, p.temporary, join_path(p.directory, step_name(p.manifest.state.step)));
    out.renamed = true;
    sync_directory(files, p.directory);
    out.durable = true;
  } catch (const Error& e) {
    out.error = e.what();
    if (!out.renamed) discard(files, p.temporary, out.remarks);
    return out;
  }
  try {
    point_best(files, p.directory, p.best, p.unique);
  } catch (const CheckpointError& e) {
    out.remarks.push_back(fmt::format("the best checkpoint could not be labelled: {}", e.what()));
  }
  try {
    prune(files, p, out);
  } catch (const CheckpointError& e) {
    out.remarks.push_back(fmt::format("an old checkpoint could not be removed: {}", e.what()));
  }
  return out;
}

void discard(FileSystem& files, const std::string& temporary, std::vector<std::string>& remarks) {
  try {
    remove_tree(files, temporary);
  } catch (const CheckpointError& e) {
    remarks.push_back(fmt::format("what a failed save left could not be removed: {}", e.what()));
  }
}

void remove_leftovers(FileSystem& files, const std::string& directory) {
  for (const auto& name : list_names(files, directory))
    if (name.starts_with(temporary_prefix)) remove_tree(files, join_path(directory, name));
  for (const auto step : list_steps(files, directory))
    remove_tree(files, unfinished_export(join_path(directory, step_name(step))));
}

std::string unfinished_export(const std::string& step_directory) {
  return join_path(step_directory, fmt::format("{}{}", temporary_prefix, exported_model));
}

}  // namespace dtrain::io
