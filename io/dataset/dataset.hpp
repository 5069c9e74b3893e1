// A Dataset is one logical set of samples (and targets) in one or several HDF5 files, read row by row.
// It owns its files and, for small sets, a copy of the stored bytes; after construction every method may be called from
// any thread, and reading a row allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/hdf5/stored.hpp"
#include "runtime/tensor/tensor.hpp"

namespace dtrain::io {

/// What the model makes of targets. `automatic`: integers are labels, floats are values.
enum class TargetUse : std::uint8_t { automatic, none, labels, values };

struct DatasetOptions {
  std::string sample_key;  // HDF5 path; empty: detect
  std::string target_key;  // HDF5 path; empty: detect
  TargetUse target = TargetUse::automatic;
  double cache_mib = 1024;  // the whole set is kept in memory if it is not larger than this; 0: never
  // Only these parts of the samples, out of so many, will be read again and again (evaluation): what is kept in memory.
  int part = 0, parts = 1;
  std::size_t open_files = 0;  // at a time; 0: a quarter of what the process may open
};

/// Where part p of n samples begins, as evenly as they can be shared; without overflow for any n.
inline std::uint64_t part_begin(std::uint64_t n, std::uint64_t part, std::uint64_t parts) noexcept {
  return n / parts * part + n % parts * part / parts;
}

/// Files and globs -> files: each pattern's matches sorted, patterns in the given order. Throws DataError where a
/// pattern matches nothing or a file is missing.
std::vector<std::string> expand_files(std::span<const std::string> patterns);

/// Runs of rows that are cheap to read together: compressed chunks. Empty where single rows are cheap.
struct BlockLayout {
  std::vector<std::uint64_t> starts;  // first row of each block, ascending from 0; empty: no blocks
};

class Dataset {
 public:
  /// `patterns`: files or globs. Opens each file once, for shapes and types, which say how many samples there are, and
  /// for integer targets, which are checked; reads small sets (or the part of them that will be used). Afterwards a
  /// file is open only while its rows are used, and so many at a time.
  /// Throws DataError: missing, not HDF5, truncated, refused storage, unknown names, shards that differ, no samples.
  explicit Dataset(std::span<const std::string> patterns, const DatasetOptions& options = {});
  ~Dataset();
  Dataset(const Dataset&) = delete;
  Dataset& operator=(const Dataset&) = delete;
  Dataset(Dataset&&) noexcept;
  Dataset& operator=(Dataset&&) noexcept;

  std::uint64_t count() const noexcept;
  /// Extents of one sample as stored, without the leading sample count; {} for scalars.
  const Shape& sample_shape() const noexcept;
  StoredType sample_type() const noexcept;
  /// Never `automatic`.
  TargetUse target() const noexcept;
  /// Floats a sample for values (1 where targets are [N]); 1 for labels; 0 without targets.
  std::int64_t target_width() const noexcept;
  /// Largest label + 1; 0 where targets are not labels.
  std::int64_t class_count() const noexcept;
  const std::vector<std::string>& files() const noexcept;
  /// HDF5 paths in use.
  const std::string& sample_key() const noexcept;
  const std::string& target_key() const noexcept;
  bool in_memory() const noexcept;
  /// 16 hexadecimal digits over counts, names, shapes, types, all labels and sampled rows: the same for the same data
  /// wherever the files lie and however they are split off in chunks.
  const std::string& fingerprint() const noexcept;
  /// Blocks to shuffle by: only of compressed sets that are not in memory.
  const BlockLayout& blocks() const noexcept;

  /// Throws DataError that names the first label outside [0, classes): file, row, value.
  void check_labels(std::int64_t classes) const;

  std::size_t sample_bytes() const noexcept;
  /// Stored bytes (native byte order) of one sample: a pointer into memory, or into `scratch` (sample_bytes()), filled.
  const std::byte* sample(std::uint64_t index, std::byte* scratch) const;
  /// Label of one sample.
  std::int32_t label(std::uint64_t index) const noexcept;
  /// target_width() floats. Throws DataError for a value that is not finite.
  void values(std::uint64_t index, float* out) const;
  /// "train.h5: /images, row 17" for messages.
  std::string where(std::uint64_t index) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dtrain::io
