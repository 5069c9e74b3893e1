// Writes a new HDF5 file of contiguous data sets; internal to io/.
// A Writer owns a temporary file beside the target, renamed by commit() and removed where commit() was not reached.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "io/hdf5.hpp"

namespace dtrain::io::h5 {

class Writer {
 public:
  /// Makes missing folders. Throws DataError where the file cannot be made.
  explicit Writer(const std::string& path);
  ~Writer();
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  /// Returns the index for write(). All space is allocated at once.
  std::size_t add(const std::string& name, StoredType, std::span<const std::uint64_t> dims);
  /// `rows` rows from `first` on. Throws DataError (a full disk, say).
  void write(std::size_t dataset, std::uint64_t first, std::uint64_t rows, const void* bytes);
  void attribute(std::size_t dataset, const std::string& name, std::span<const double> values);
  void attribute(std::size_t dataset, const std::string& name, const std::string& text);
  /// Flushes to the disk and gives the file its name.
  void commit();

 private:
  struct Dataset {
    Handle handle;
    StoredType type;
    std::vector<hsize_t> dims;
  };
  [[noreturn]] void failed(const std::string& what) const;

  std::string path_, temporary_;
  Handle file_;
  std::vector<Dataset> datasets_;
};

}  // namespace dtrain::io::h5
