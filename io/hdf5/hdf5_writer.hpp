// Writes a new HDF5 file; internal to io/.
// A Writer owns a temporary file beside the target, renamed by commit() and removed where commit() was not reached;
// what a killed process left is removed by the next Writer of the same target.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/hdf5/hdf5.hpp"
#include "io/hdf5/storage.hpp"

namespace dtrain::io::h5 {

class Writer {
 public:
  /// Makes missing folders. Throws DataError where the file cannot be made.
  explicit Writer(const std::string& path);
  ~Writer();
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  /// Returns the index for write(). Contiguous space is allocated at once; chunks should be written whole, in order.
  std::size_t add(const std::string& name, StoredType, std::span<const std::uint64_t> dims, const StorageOptions& = {});
  /// Rows of a chunk of such a data set, where it is chunked.
  static std::uint64_t chunk_rows(StoredType, std::span<const std::uint64_t> dims, const StorageOptions&);
  /// A list of names, as UTF-8 text of fixed length; a long one is compressed.
  void add_names(const std::string& name, std::span<const std::string> names);
  /// `rows` rows from `first` on. Throws DataError (a full disk, say).
  void write(std::size_t index, std::uint64_t first, std::uint64_t rows, const void* bytes);
  void attribute(std::size_t dataset, const std::string& name, std::span<const double> values);
  void attribute(std::size_t dataset, const std::string& name, const std::string& text);
  /// Attributes of the file itself.
  void file_attribute(const std::string& name, const std::string& text);
  void file_attribute(const std::string& name, std::int64_t value);
  /// Those of another file's data set, but not which shard it is.
  void copy_attributes(const File& from, const DatasetInfo& of, std::size_t dataset);
  /// Closes the file for this library: its temporary path, and where the bytes of each contiguous data set lie. Whoever
  /// knows may write them now; commit() is all that is left to do here.
  std::pair<std::string, std::vector<std::uint64_t>> hand_over();
  /// Flushes to the disk and gives the file its name.
  void commit();

 private:
  struct Dataset {
    Handle handle;
    StoredType type;
    std::vector<std::uint64_t> dims;
  };
  [[noreturn]] void failed(const std::string& what) const;
  /// `stored` and `given`: types in the file and in memory.
  void put_attribute(const Handle& at, const std::string& name, Id stored, Id given, const Handle& space,
                     const void* value);

  std::string path_, temporary_;
  int descriptor_ = -1;  // of the temporary file, for a lock
  Handle file_;
  std::vector<Dataset> datasets_;
};

}  // namespace dtrain::io::h5
