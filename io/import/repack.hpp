// Rewrites HDF5 data sets: shards together or apart, another storage, another order, without what cannot be trained on.
// A function on the caller's thread; memory is bounded by blocks of rows and a few bytes a row.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/hdf5/storage.hpp"
#include "io/import/cleaning.hpp"
#include "io/import/split.hpp"

namespace dtrain::io {

struct RepackOptions {
  std::string sample_key, target_key;  // HDF5 paths; empty: detect
  /// HDF5 paths, and what these data sets are called in the output: a usual name says what they are.
  std::vector<std::pair<std::string, std::string>> rename;
  StorageOptions storage;
  std::int64_t shards = 1;               // > 1: OUT-00000-of-00008.h5, ...
  std::optional<std::uint64_t> shuffle;  // seed of a random order
  std::int64_t classes = 0;              // > 0: labels must be below
  OnError on_error = OnError::refuse;
  SplitOptions split;        // OUT-train.h5 and the like in place of OUT
  std::string classes_from;  // a file whose classes and their numbers the output takes over; empty: none
};

/// Reads files or globs (shards, in this order) and writes samples and targets under their names and types, with their
/// attributes and the names of classes; files whose classes or columns differ are matched by name. Each of several
/// files says which set it is of; those that were written under this name before, in another number, are removed.
/// With `split` each part is a file. Values that are not finite and labels out of range are refused or dropped. Returns
/// what the command prints. Throws DataError, ConfigError.
std::string repack(std::span<const std::string> patterns, const std::string& out, const RepackOptions&);
/// The same of one file that the caller has made itself, which `out` may replace.
std::string repack_file(const std::string& file, const std::string& out, const RepackOptions&);

}  // namespace dtrain::io
