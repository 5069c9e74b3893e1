// Makes an HDF5 file of a table of numbers in CSV files.
// A function on the caller's thread, which reads the files twice; memory holds a line, a block of rows and the labels.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/dataset/description.hpp"
#include "io/hdf5/storage.hpp"
#include "io/import/cleaning.hpp"
#include "io/import/csv_number.hpp"

namespace dtrain::io {

struct CsvImportOptions {
  std::string label;                 // column of labels, by name or index from 0; negative ones count from the end
  std::vector<std::string> targets;  // columns of values to predict; or labels, not both
  std::vector<std::string> ignore;   // columns to leave out
  enum class Header : std::uint8_t { automatic, yes, no } header = Header::automatic;
  std::optional<char> delimiter;  // none: as CsvReader finds it
  DecimalSign decimal = DecimalSign::automatic;
  bool keep_words = false;  // NA, None, null, ?, ... are words and not missing values
  /// Features are the pixels of images: [height, width] or [channels, height, width]. Empty: they are not.
  std::vector<std::int64_t> shape;
  StoredLayout layout = StoredLayout::unknown;  // of several channels: how pixels follow one another
  std::int64_t classes = 0;                     // > 0: labels must be below
  OnError on_error = OnError::refuse;
  StorageOptions storage;
};

/// -> /x f32 [N, features], and /y i32 [N] or f32 [N, targets]; /class_names where labels are words (sorted), and
/// /feature_names from a header. With `shape` /x is u8 (f32 where values are no bytes), [N, channels, height, width] or
/// channels last, as its attribute `layout` says. Automatic: a first line with a word in a column of numbers is a
/// header, and so is one that counts three or more columns (0, 1, 2, ...). Columns of several files are matched by
/// name. A first column of integers without a name is an index and left out; columns that may not be meant as features
/// are named in what is returned. Fields may be quoted. Features and targets may be truth values; labels are integers,
/// also as 0.0, or words. Empty fields, the words that pandas reads as missing, `?`, and values that are not finite as
/// float32 are counted, refused or dropped, as are labels out of range. Returns what the command prints. Throws
/// DataError with file:line:column for everything else that is wrong; ConfigError for options.
std::string import_csv(std::span<const std::string> files, const std::string& out, const CsvImportOptions&);

}  // namespace dtrain::io
