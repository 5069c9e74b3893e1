// Makes an HDF5 file of images from folders or tar archives of class folders with JPEG and PNG files.
// A function on the caller's thread, which reads; threads of its own decode. Memory is bounded by threads, not by the
// set.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "io/hdf5/storage.hpp"
#include "io/import/cleaning.hpp"
#include "io/import/image_decoder.hpp"

namespace dtrain::io {

struct ImageImportOptions {
  std::string split;  // where folders lie as SPLIT/CLASS/FILE: the split to take
  ImageSize size;
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
  std::string text;                  // what the command prints
};

/// -> /images u8 [N, H, W, 3], /labels u8 (u16, i32) [N], /class_names. Classes are folders' names in bytewise order;
/// rows are in the order of class, source and file name, whatever the number of threads. Broken files are refused or
/// dropped. Throws DataError: nothing to import, folders of unequal depth, images of several sizes without resize, a
/// damaged archive, output not writable; ConfigError where sizes contradict each other.
ImageImportReport import_images(std::span<const std::string> sources, const std::string& out,
                                const ImageImportOptions&);

}  // namespace dtrain::io
