// The copy that a save writes from: this rank's shard of the state, taken while every tensor is hashed and looked at
// for NaN and infinity in the same pass. Owns the host buffer and keeps it from save to save; used by one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "io/checkpoint/checkpoint_manifest.hpp"

namespace dtrain::io {

class Snapshot {
 public:
  /// Copies [begin, end) of the stream that `manifest` lays out and fills in the tensors' checksums. Where there is
  /// no memory for the copy failed() is true; it does not throw, because the other ranks must hear of it.
  void take(std::span<const StateTensor>, Manifest&, std::uint64_t begin, std::uint64_t end);
  std::span<const std::byte> bytes() const noexcept { return {buffer_.get(), size_}; }
  bool failed() const noexcept { return failed_; }
  /// Index of the first floating-point tensor that holds a NaN or an infinity; -1: none.
  std::int64_t nonfinite() const noexcept { return nonfinite_; }

 private:
  struct Free {
    void operator()(std::byte*) const noexcept;
  };
  std::unique_ptr<std::byte[], Free> buffer_;
  std::uint64_t size_ = 0, capacity_ = 0;
  std::int64_t nonfinite_ = -1;
  bool failed_ = false;
};

/// Collective: all ranks save the same step of the same finite state and have a copy of their shard. Throws the same
/// error on all ranks: NumericError naming tensor and rank, OutOfMemory or BugError. Returns rank 0's `word`.
std::string compare_ranks(Group&, std::uint64_t step, const Manifest&, const Snapshot&, const std::string& word);

}  // namespace dtrain::io
