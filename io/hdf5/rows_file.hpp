// RowsFile: a new HDF5 file whose rows several ranks write at once, each its own, without holding more than a batch.
// Made, committed and destroyed by all ranks alike, on the Group's thread; write() is each rank's own business. Rank 0
// owns the temporary file beside the target; it gets its name when all rows of all ranks are on the disk.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/hdf5/stored.hpp"
#include "runtime/ranks/group.hpp"

namespace dtrain::io {

/// One data set: `rows` times the extents of a row ({} for a number).
struct RowsColumn {
  std::string name;
  StoredType type = StoredType::f32;
  std::vector<std::uint64_t> row;
};

class RowsFile {
 public:
  /// Collective. All ranks must see the file: it lies on a file system that they share. `attributes` of the file are
  /// text. `texts`: on rank 0, data sets of text, of the rows or of what their values mean; empty ones are left out.
  /// Throws DataError on all ranks.
  using Texts = std::vector<std::pair<std::string, std::vector<std::string>>>;
  RowsFile(Group&, const std::string& path, std::uint64_t rows, std::vector<RowsColumn>,
           const std::vector<std::pair<std::string, std::string>>& attributes, const Texts& texts = {});
  ~RowsFile();
  RowsFile(const RowsFile&) = delete;
  RowsFile& operator=(const RowsFile&) = delete;

  /// `count` rows from `first` on. Throws DataError naming path and bytes.
  void write(std::size_t column, std::uint64_t first, std::uint64_t count, const void* bytes);
  /// Collective: every row was written.
  void commit();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dtrain::io
