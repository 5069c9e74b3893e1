// The rows of one HDF5 data set, read the fastest way its storage allows: pread, raw chunks with own decompression, or
// H5Dread. A Column owns a place among the open files and a small cache of decompressed bands; any thread may read.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "io/hdf5/hdf5.hpp"
#include "io/hdf5/open_files.hpp"

struct libdeflate_decompressor;

namespace dtrain::io {

/// Buffers of one thread that decodes chunks.
class ChunkDecoder {
 public:
  ChunkDecoder();
  ~ChunkDecoder();
  ChunkDecoder(const ChunkDecoder&) = delete;
  ChunkDecoder& operator=(const ChunkDecoder&) = delete;

  /// Where to read a raw chunk of up to `bytes` into.
  std::byte* raw(std::size_t bytes);
  /// Undoes `filters` (bit i of `skipped` set: filter i was not applied) on the `bytes` in raw(); writes exactly
  /// `chunk_bytes` to `out`. False: damaged.
  bool decode(std::size_t bytes, const std::vector<h5::Filter>& filters, std::uint32_t skipped, std::size_t chunk_bytes,
              std::byte* out);
  /// A whole chunk, for chunks that do not span whole rows.
  std::byte* chunk(std::size_t bytes);

 private:
  std::vector<std::byte> a_, b_, chunk_;
  libdeflate_decompressor* inflate_;
};

class Column {
 public:
  /// The number of bands that stay decompressed.
  static constexpr std::size_t cached_bands = 2 * 16 + 4;

  /// Opens the file when rows are read, as one of `files`; null: alone. Throws DataError where the data set is refused.
  Column(std::string path, const h5::DatasetInfo&, std::shared_ptr<OpenFiles> files = nullptr);
  ~Column();
  Column(const Column&) = delete;
  Column& operator=(const Column&) = delete;

  const h5::DatasetInfo& info() const noexcept { return info_; }
  std::uint64_t rows() const noexcept { return rows_; }
  std::size_t row_bytes() const noexcept { return row_bytes_; }
  /// Rows that are cheap to read together; 1 where single rows are.
  std::uint64_t band_rows() const noexcept { return mode_ == Mode::direct ? 1 : band_rows_; }

  /// All rows to `out` (rows() * row_bytes()), by up to `threads` threads. Throws DataError.
  void read_all(std::byte* out, int threads) const;
  /// The rows [first, first + count).
  void read_rows(std::uint64_t first, std::uint64_t count, std::byte* out, int threads) const;
  /// The same on this thread; allocates nothing after a while.
  void read_range(std::uint64_t first, std::uint64_t count, std::byte* out) const;
  /// One row to `out`. Throws DataError.
  void read_row(std::uint64_t row, std::byte* out) const;

 private:
  enum class Mode : std::uint8_t { direct, chunks, library };
  struct Band {
    std::uint64_t index = ~std::uint64_t{0};
    std::uint64_t used = 0;
    int pins = 0;
    bool loading = false;
    std::vector<std::byte> bytes;
  };
  std::shared_ptr<const OpenDataset> open() const;
  std::shared_ptr<const OpenDataset> open_now() const;
  std::uint64_t rows_of(std::uint64_t band) const noexcept;
  void read_direct(std::uint64_t first, std::uint64_t rows, std::byte* out) const;
  void read_of_band(std::uint64_t row, std::uint64_t count, std::byte* out) const;
  void read_band(std::uint64_t band, std::byte* out) const;
  void read_band_chunks(std::uint64_t band, std::byte* out) const;
  void read_band_library(std::uint64_t band, std::byte* out) const;
  void swap(std::byte* bytes, std::size_t count) const;
  std::unique_ptr<ChunkDecoder> take_decoder() const;
  void give_decoder(std::unique_ptr<ChunkDecoder>) const;
  [[noreturn]] void damaged(std::uint64_t row, const std::string& why) const;

  /// Which file it was when it was opened first.
  struct Identity {
    std::uint64_t device = 0, inode = 0, bytes = 0;
    std::int64_t seconds = 0, nanoseconds = 0;
    bool operator==(const Identity&) const = default;
  };
  std::string path_;
  std::shared_ptr<OpenFiles> files_;
  std::size_t place_ = 0;
  mutable std::optional<Identity> identity_;  // written while files_ holds its lock
  h5::DatasetInfo info_;
  Mode mode_ = Mode::direct;
  std::uint64_t rows_;
  std::size_t row_bytes_;
  std::uint64_t band_rows_ = 1;

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  mutable std::vector<Band> cache_;
  mutable std::uint64_t clock_ = 0;
  mutable std::vector<std::unique_ptr<ChunkDecoder>> decoders_;
};

}  // namespace dtrain::io
