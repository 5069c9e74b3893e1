// Reads IDX files, the format of MNIST, gzip-compressed or not; internal to io/.
// An IdxReader owns its open file and reads it once, front to back, on one thread; the header's counts are never
// trusted with memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace dtrain::io {

class IdxReader {
 public:
  /// Unsigned bytes of rank `rank` (magic 0x0000080R). Throws DataError: missing, another magic number, absurd extents,
  /// damaged or truncated.
  IdxReader(const std::string& path, int rank);
  const std::vector<std::uint64_t>& dims() const noexcept { return dims_; }
  std::size_t row_bytes() const noexcept;
  /// Fills `out`; `row` is for the message.
  void read(std::span<std::byte> out, std::uint64_t row);
  /// Throws DataError where bytes are left over.
  void finish();

 private:
  struct Close {
    void operator()(void*) const noexcept;
  };
  std::string path_;
  std::unique_ptr<void, Close> file_;
  std::vector<std::uint64_t> dims_;
};

}  // namespace dtrain::io
