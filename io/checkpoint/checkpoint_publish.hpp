// The file calls of a save, in the order that makes it atomic: one rank's shard, then rank 0's publication.
// Free functions without state, run on the writer's thread; no exchange with other ranks. Inside io/ only.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "io/checkpoint/checkpoint_manifest.hpp"

namespace dtrain::io {

inline constexpr const char* temporary_prefix = ".tmp-";

/// Creates `temporary` if need be, writes this rank's shard into it and syncs both. Returns the shard's SHA-256.
/// Stops with CheckpointError soon after `cancel` is set.
std::string write_shard(FileSystem&, const std::string& temporary, int rank, std::span<const std::byte> shard,
                        const std::atomic<bool>& cancel);

struct Publication {
  std::string directory;  // of the checkpoints
  std::string temporary;  // path of the directory with all shards
  std::string unique;     // for names that must not collide
  Manifest manifest;
  std::set<std::uint64_t> own;  // steps that this run published
  bool has_base = false;        // it resumed from, or has published, ...
  std::uint64_t base = 0;       // ... this step; later ones of others belong to a given-up future
  int keep = 2;
  std::int64_t keep_every = 0;
  std::optional<std::uint64_t> best{};  // the step that the label shall name, once it is there
};
struct Published {
  bool renamed = false;
  bool durable = false;
  std::string error;
  std::vector<std::string> removed, remarks;
};
/// Never throws CheckpointError: `error` says what failed. Whatever fails before the rename leaves nothing behind but
/// what discard() removes.
Published publish(FileSystem&, const Publication&);

/// Removes an attempt's directory; a failure is a remark.
void discard(FileSystem&, const std::string& temporary, std::vector<std::string>& remarks);

/// Removes what dead runs left: temporary directories, unfinished exports and half-removed checkpoints. Only under the
/// lock.
void remove_leftovers(FileSystem&, const std::string& directory);

/// The name of an exported model until it is whole.
std::string unfinished_export(const std::string& step_directory);

}  // namespace dtrain::io
