// Thin RAII over the HDF5 C library, hardened against hostile files; internal to io/ (no other folder includes it), and
// the library's own header is internal to io/hdf5.
// Every call into the library happens under h5::Lock, the one process-wide lock that HDF5 needs; Handles own their ids.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/hdf5/stored.hpp"

namespace dtrain::io::h5 {

// Bounds for files of unknown origin; far above what training data needs.
inline constexpr int max_rank = 6;                                         // of a data set, samples included
inline constexpr std::uint64_t max_extent = std::uint64_t{1} << 40;        // of one dimension
inline constexpr std::uint64_t max_bytes = std::uint64_t{1} << 52;         // of one data set
inline constexpr std::uint64_t max_chunk_bytes = std::uint64_t{64} << 20;  // what one read may have to decompress
inline constexpr std::uint64_t max_chunks = std::uint64_t{1} << 30;
inline constexpr std::uint64_t max_expansion =
    4096;                             // logical over stored bytes of a filtered data set above max_chunk_bytes
inline constexpr int max_depth = 16;  // of groups
inline constexpr int max_links = 16;  // soft links on the way to a data set
inline constexpr std::size_t max_objects = 4096;  // looked at by a listing

/// Held around library calls. Recursive, because closing a handle takes it too. Keeps the library from printing.
class Lock {
 public:
  Lock();

 private:
  std::unique_lock<std::recursive_mutex> lock_;
};

using Id = std::int64_t;  // hid_t

/// Owns one id; closes it under the lock.
class Handle {
 public:
  using Close = int (*)(Id);
  Handle() = default;
  Handle(Id id, Close close) : id_(id), close_(close) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, invalid)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Handle();
  Id get() const noexcept { return id_; }
  explicit operator bool() const noexcept { return id_ >= 0; }

 private:
  static constexpr Id invalid = -1;
  Id id_ = invalid;
  Close close_ = nullptr;
};

/// Text of the innermost error on the library's stack; empty if there is none. Call under the lock, right after a
/// failure.
std::string last_error();

enum class Storage : std::uint8_t { contiguous, chunked, compact, other };

/// In the order in which they were applied when writing.
struct Filter {
  enum class Kind : std::uint8_t { deflate, shuffle, fletcher32, zstd, lzf, other };
  Kind kind = Kind::other;
  std::size_t element = 1;  // shuffle: bytes of an element
  std::string text;         // "gzip", "shuffle", ..., "filter 32100"
  bool plugin = false;      // other: none that HDF5 itself has
};

struct DatasetInfo {
  std::string path;  // "/images"
  std::vector<std::uint64_t> dims;
  std::optional<StoredType> type;  // empty: not supported
  bool swapped = false;            // big-endian
  std::string type_text;           // "uint8", "float16", "string", ...
  Storage storage = Storage::other;
  std::vector<std::uint64_t> chunk;
  std::vector<Filter> filters;
  std::uint64_t offset = 0;  // of contiguous data in the file, bytes; 0: not allocated
  std::string refused;       // why it must not be read; empty: fine
  std::string link;          // of a soft link: the path that it leads to

  std::uint64_t rows() const noexcept { return dims.empty() ? 0 : dims[0]; }
  std::uint64_t row_bytes() const noexcept;
  /// "/images uint8 [60000, 1, 28, 28]"
  std::string text() const;
  /// "chunked [64, 1, 28, 28], shuffle, gzip"
  std::string storage_text() const;
};

/// One file, opened for reading.
class File {
 public:
  /// Throws DataError: missing, unreadable, a directory, not HDF5, truncated or damaged.
  explicit File(const std::string& path);
  const std::string& path() const noexcept { return path_; }
  std::uint64_t bytes() const noexcept { return bytes_; }

  struct Listing {
    std::vector<DatasetInfo> datasets;  // in path order
    std::vector<std::string> notes;     // groups that cannot be read, and a listing that was cut short
    /// "/images uint8 [60000, 1, 28, 28], /labels uint8 [60000]", or "no data sets"; at most a dozen
    std::string text() const;
  };
  /// Data sets that links within the file reach; what cannot be opened is `refused`.
  Listing list() const;
  /// One data set; throws DataError where there is none (with what there is), or the path leaves the file.
  DatasetInfo info(const std::string& dataset) const;
  /// Opened for reading. Throws DataError where `refused`.
  Handle open(const DatasetInfo&) const;
  /// A data set of any type, or nothing where there is none in this file.
  Handle find(const std::string& path) const;

 private:
  /// Why the library does not open a thing, from what it says.
  std::string why_unopened(const std::string& said) const;
  std::string path_;
  std::uint64_t bytes_ = 0;
  bool checksums_ = false;  // of all that describes data
  Handle file_;
};

}  // namespace dtrain::io::h5
