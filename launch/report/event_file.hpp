// Event files of TensorBoard (events.out.tfevents.*): scalars by step, so that `tensorboard --logdir runs` shows them.
// Owned by rank 0's training thread. A record is: length (u64), its masked CRC32C, an Event message, its masked CRC32C.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dtrain::launch {

struct Scalar {
  std::string tag;  // "loss", "seconds/step"
  double value = 0;
};

/// CRC-32C (Castagnoli), and the form in which records carry it.
std::uint32_t crc32c(std::string_view) noexcept;
std::uint32_t masked_crc32c(std::string_view) noexcept;

class EventFile {
 public:
  /// Begins a new file in `directory`. What older files of dtrain say of steps after `step` belongs to work that was
  /// lost and is cut off first, with a half-written record; files that hold nothing else are removed. Throws DataError
  /// naming the path.
  EventFile(const std::string& directory, std::int64_t step);
  /// Output that cannot be written is lost; a warning says so once.
  void write(std::int64_t step, std::span<const Scalar>);

 private:
  void put(std::string_view event);
  struct Close {
    void operator()(std::FILE* f) const noexcept { (void)std::fclose(f); }  // each record was flushed
  };
  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
  bool failed_ = false;
};

}  // namespace dtrain::launch
