// MANIFEST.json as plain data: what a checkpoint holds, where each tensor lies, and the checksums of both.
// Values only; parse_manifest trusts nothing it reads. Inside io/ only: the public face is checkpoint.hpp.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "io/checkpoint/checkpoint.hpp"
#include "io/files/file.hpp"

namespace dtrain::io {

inline constexpr std::uint64_t checkpoint_alignment = 64;  // bytes, of every tensor and every cut between shards
inline constexpr int checkpoint_format = 2;                // format 1, which lacks `good_steps`, is read as well
inline constexpr const char* manifest_name = "MANIFEST.json";

struct ManifestTensor {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  std::uint64_t offset = 0;  // in the stream: all shards one behind the other
  std::uint64_t bytes = 0;
  std::uint64_t xxh3 = 0;
};

struct ManifestShard {
  std::uint64_t begin = 0, end = 0;  // of the stream
  std::string sha256;                // 64 hex digits
};

struct Manifest {
  RunState state;
  std::vector<ManifestTensor> tensors;       // in stream order
  std::vector<ManifestShard> shards;         // in stream order: shard k is the file shard_name(k)
  std::uint64_t total_bytes = 0;             // of the stream
  std::uint64_t format = checkpoint_format;  // of the file that was read
};

std::string shard_name(std::size_t index);  // "shard-00000.bin"
std::string step_name(std::uint64_t step);  // "step-000000500"
/// Inverse of step_name; false where the name is not one.
bool parse_step_name(const std::string& name, std::uint64_t& step);
std::uint64_t align_up(std::uint64_t bytes) noexcept;
/// Shard [begin, end) of rank `rank` of `size` in a stream of `total` bytes.
std::array<std::uint64_t, 2> part_of(std::uint64_t total, int rank, int size) noexcept;
/// Offsets and total from names, dtypes and shapes; no checksums.
Manifest lay_out(std::span<const StateTensor> tensors);

/// The text of the file, its own SHA-256 in the last line.
std::string format_manifest(const Manifest&);
/// Throws CheckpointError (corrupt, or other for an unknown format) whose text starts with the thing that is wrong;
/// the caller says of which file.
Manifest parse_manifest(const std::string& text);
/// Fields tell of one run: an edit of one of them alone, with new checksums, is found by the others. Throws as
/// parse_manifest does. The configuration's own fields are compared by who can read it.
void check_state(const Manifest&);

/// Reads, parses, and checks that the shards are there with their sizes. Throws CheckpointError naming `path`.
Manifest read_manifest(FileSystem&, const std::string& path);

/// Receives the stream's tensors in order, piece by piece.
class TensorSink {
 public:
  virtual ~TensorSink() = default;
  virtual void piece(std::size_t tensor, std::uint64_t offset, std::span<const std::byte> data) = 0;
};
/// Reads all shards of the step directory once, front to back; checks the SHA-256 of each and the XXH3 of each tensor.
/// Throws CheckpointError (corrupt, incomplete) after the sink may have seen wrong bytes.
void read_stream(FileSystem&, const std::string& path, const Manifest&, TensorSink&);
/// read_manifest and read_stream into nothing; all numbers are finite.
Manifest verify_checkpoint(FileSystem&, const std::string& path);

/// A step directory itself, or the one that a label means, or the newest valid one of a directory of them. Throws
/// CheckpointError where there is none.
std::string pick_checkpoint(FileSystem&, const std::string& given);
/// One element of a tensor.
double element_value(DType, const std::byte* data);

/// Step directories of `directory`, ascending. Empty where it does not exist.
std::vector<std::uint64_t> list_steps(FileSystem&, const std::string& directory);

}  // namespace dtrain::io
