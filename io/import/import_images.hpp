// Makes an HDF5 file of images from folders or tar archives of class folders with image files, or of files alone.
// A function on the caller's thread, which reads; threads of its own decode. Memory is bounded by threads, not by the
// set.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "io/hdf5/storage.hpp"
#include "io/import/cleaning.hpp"
#include "io/import/image_preprocessing.hpp"

namespace dtrain::io {

struct ImageImportOptions {
  std::string split;   // where folders lie as SPLIT/CLASS/FILE: the split to take
  bool labels = true;  // else every image is taken, wherever it lies, and a source may be an image itself
  ImagePreprocessing how;
  std::string key = "images";  // of the samples
  OnError on_error = OnError::refuse;
  int threads = 0;  // that decode; 0: one a core
  StorageOptions storage;
};

struct ImageImportReport {
  std::uint64_t images = 0;
  std::uint64_t dropped = 0, ignored = 0;  // broken ones; files that are no images
  std::int64_t height = 0, width = 0;
  std::vector<std::string> classes;  // label i is classes[i]
  std::string normalize;             // what data.normalize may say
  std::string notes;                 // what was left out or found, a line each
  std::string text;                  // what the command prints
};

/// A folder, or a file that by its name is an image or an archive.
bool holds_images(const std::string& path);

/// -> /images u8 [N, H, W, channels] with the attributes `layout` and `preprocessing`, /file_names, and with labels
/// /labels u8 (u16, i32) [N] and /class_names. Classes are folders' names in bytewise order; rows are in the order of
/// class, source and file name, whatever the number of threads. Of a file with several frames the first counts. Broken
/// files are refused or dropped. Throws DataError: nothing to import, folders of unequal depth, images of several sizes
/// without resize, a damaged archive, output not writable; ConfigError where sizes contradict each other.
ImageImportReport import_images(std::span<const std::string> sources, const std::string& out,
                                const ImageImportOptions&);

}  // namespace dtrain::io
