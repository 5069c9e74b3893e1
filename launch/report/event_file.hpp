// Event files of TensorBoard (events.out.tfevents.*): scalars by step, so that `tensorboard --logdir runs` shows them.
// Owned by rank 0's training thread. A record is: length (u64), its masked CRC32C, an Event message, its masked CRC32C.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "launch/report/append_file.hpp"

namespace dtrain::launch {

struct Scalar {
  std::string tag;  // "loss", "seconds/step"
  double value = 0;
};

/// CRC-32C (Castagnoli), and the form in which records carry it.
std::uint32_t crc32c(std::string_view) noexcept;
std::uint32_t masked_crc32c(std::string_view) noexcept;

/// Whether dtrain writes files of this name.
bool is_event_file(const std::string& name) noexcept;

class EventFile {
 public:
  /// Begins a new file in `directory`. What older files of dtrain say of steps after `step` belongs to work that was
  /// lost and is cut off first, with a half-written record; files that hold nothing else are removed. Throws DataError
  /// naming the path.
  EventFile(const std::string& directory, std::int64_t step);
  void write(std::int64_t step, std::span<const Scalar>);

 private:
  AppendFile file_;
};

}  // namespace dtrain::launch
