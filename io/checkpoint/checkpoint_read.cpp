// Reading one step directory front to back, every byte checked.
#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <fmt/format.h>

#include "io/checkpoint/checkpoint_digest.hpp"
#include "io/checkpoint/checkpoint_manifest.hpp"

namespace dtrain::io {
namespace {

constexpr std::uint64_t manifest_cap = std::uint64_t{16} << 20;
constexpr std::size_t piece_bytes = std::size_t{4} << 20;

using Kind = CheckpointError::Kind;

[[noreturn]] void fail(const std::string& path, Kind kind, const std::string& what) {
  const char* word = kind == Kind::corrupt      ? "is corrupt"
                     : kind == Kind::incomplete ? "is incomplete"
                                                : "cannot be read by this program";
  throw CheckpointError(fmt::format("checkpoint {} {}: {}", path, word, what), kind);
}

/// Hands the bytes of the stream to the sink and to the hash of the tensor that they belong to.
class Walk {
 public:
  Walk(const std::string& path, const Manifest& manifest, TensorSink& sink)
      : path_(path), manifest_(manifest), sink_(sink) {
    close_finished();
  }
  /// The bytes from `position` of the stream on; in order, without gaps.
  void take(std::uint64_t position, std::span<const std::byte> data) {
    const auto end = position + data.size();
    while (index_ < manifest_.tensors.size()) {
      const auto& tensor = manifest_.tensors[index_];
      const auto from = std::max(position, tensor.offset), to = std::min(end, tensor.offset + tensor.bytes);
      if (from >= to) return;
      const auto piece = data.subspan(from - position, to - from);
      hash_.add(piece);
      sink_.piece(index_, from - tensor.offset, piece);
      seen_ += piece.size();
      if (seen_ < tensor.bytes) return;
      close_finished();
    }
  }

 private:
  /// Ends every tensor of which all bytes have been seen (those without elements at once).
  void close_finished() {
    while (index_ < manifest_.tensors.size() && seen_ == manifest_.tensors[index_].bytes) {
      const auto& tensor = manifest_.tensors[index_];
      if (hash_.value() != tensor.xxh3) {
        fail(path_, Kind::corrupt, fmt::format("tensor {} does not match its checksum", tensor.name));
      }
      hash_.reset();
      seen_ = 0;
      ++index_;
    }
  }

  const std::string& path_;
  const Manifest& manifest_;
  TensorSink& sink_;
  Xxh3 hash_;
  std::size_t index_ = 0;
  std::uint64_t seen_ = 0;
};

/// Remembers the first tensor with a number that is not finite.
class FiniteSink final : public TensorSink {
 public:
  explicit FiniteSink(const Manifest& manifest) : manifest_(manifest) {}
  void piece(std::size_t index, std::uint64_t, std::span<const std::byte> data) override {
    // Pieces end at multiples of the alignment, or where the tensor does.
    const auto& tensor = manifest_.tensors[index];
    if (nonfinite == nullptr && holds_nonfinite(tensor.dtype, data)) nonfinite = &tensor;
  }
  const ManifestTensor* nonfinite = nullptr;

 private:
  const Manifest& manifest_;
};

}  // namespace

Manifest read_manifest(FileSystem& files, const std::string& path) {
  if (!look_at(files, path).exists)
    throw CheckpointError(fmt::format("there is no checkpoint {}", path), Kind::incomplete);
  const auto name = join_path(path, manifest_name);
  FileStatus status = look_at(files, name);
  if (!status.exists) fail(path, Kind::incomplete, "MANIFEST.json is missing");
  if (!status.regular) fail(path, Kind::corrupt, "MANIFEST.json is not a regular file");
  if (status.bytes == 0) fail(path, Kind::incomplete, "MANIFEST.json is empty");
  if (status.bytes > manifest_cap) fail(path, Kind::corrupt, "MANIFEST.json is too long");
  Manifest manifest;
  const auto text = read_text(files, name, manifest_cap);
  try {
    manifest = parse_manifest(text);
    check_state(manifest);
  } catch (const CheckpointError& e) {
    fail(path, e.kind(), e.what());
  }
  std::uint64_t step = 0;
  if (parse_step_name(last_name(path), step) && step != manifest.state.step) {
    fail(path, Kind::corrupt, fmt::format("MANIFEST.json is that of step {}", manifest.state.step));
  }
  for (std::size_t i = 0; i < manifest.shards.size(); ++i) {
    status = look_at(files, join_path(path, shard_name(i)));
    const auto expected = manifest.shards[i].end - manifest.shards[i].begin;
    if (!status.exists) fail(path, Kind::incomplete, fmt::format("{} is missing", shard_name(i)));
    if (!status.regular) fail(path, Kind::corrupt, fmt::format("{} is not a regular file", shard_name(i)));
    if (status.bytes < expected) {
      fail(path, Kind::incomplete, fmt::format("{} has {} of {} bytes", shard_name(i), status.bytes, expected));
    }
    if (status.bytes > expected) {
      fail(path, Kind::corrupt, fmt::format("{} has {} bytes, not {}", shard_name(i), status.bytes, expected));
    }
  }
  return manifest;
}

void read_stream(FileSystem& files, const std::string& path, const Manifest& manifest, TensorSink& sink) {
  std::vector<std::byte> buffer(std::min<std::uint64_t>(piece_bytes, manifest.total_bytes));
  Walk walk(path, manifest, sink);
  for (std::size_t i = 0; i < manifest.shards.size(); ++i) {
    const auto& shard = manifest.shards[i];
    File file(files, join_path(path, shard_name(i)), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    Sha256 digest;
    for (auto position = shard.begin; position < shard.end;) {
      const auto piece = std::span(buffer).first(std::min<std::uint64_t>(buffer.size(), shard.end - position));
      const auto n = file.read(piece);
      if (n < piece.size()) {
        fail(path, Kind::incomplete, fmt::format("{} ends {} bytes early", shard_name(i), shard.end - position - n));
      }
      digest.add(piece);
      walk.take(position, piece);
      position += n;
    }
    if (digest.hex() != shard.sha256) {
      fail(path, Kind::corrupt, fmt::format("{} does not match its SHA-256", shard_name(i)));
    }
  }
}

Manifest verify_checkpoint(FileSystem& files, const std::string& path) {
  auto manifest = read_manifest(files, path);
  FiniteSink sink(manifest);
  read_stream(files, path, manifest, sink);
  // No save writes one: somebody did, and made the checksums anew.
  if (sink.nonfinite != nullptr)
    fail(path, Kind::corrupt, fmt::format("tensor {} holds a NaN or an infinity", sink.nonfinite->name));
  return manifest;
}

std::vector<std::uint64_t> list_steps(FileSystem& files, const std::string& directory) {
  std::vector<std::string> names;
  if (const int r = files.list(directory, names); r < 0) {
    if (r == -ENOENT) return {};
    throw_file_error("list", directory, r);
  }
  std::vector<std::uint64_t> steps;
  for (const auto& name : names) {
    std::uint64_t step = 0;
    if (parse_step_name(name, step)) steps.push_back(step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

}  // namespace dtrain::io
