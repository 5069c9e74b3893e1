// What an import of images has to read: the images of its sources by class and name, without their bytes; internal to
// io/. A plain value made by one function on the caller's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "io/import/archive.hpp"
#include "io/import/cleaning.hpp"

namespace dtrain::io {

struct ImageListing {
  static constexpr std::uint64_t no_row = ~std::uint64_t{0};

  struct Entry {
    std::uint32_t source = 0;
    std::uint32_t label = 0;
    std::uint64_t file = 0;  // of an archive: the member with its content, or ArchiveLinks::nowhere
    std::string name;        // without labels: with the folders above it
  };
  struct Source {
    std::string path;  // empty: of files that were named one by one
    bool archive = false;
    std::string prefix;                        // between the source and the class folders; empty, or ends with '/'
    std::vector<std::uint64_t> reading_order;  // of its entries
  };
  std::vector<Source> sources;
  std::vector<std::string> classes;  // sorted; none without labels
  std::vector<Entry> entries;        // by class, source and name
  Findings ignored;                  // files and folders that are left out, by reason

  /// "train/cat/0001.jpg", inside its source.
  std::string path_of(const Entry&) const;
  /// With the source, for messages.
  std::string where(const Entry&) const;
};

struct ListingOptions {
  std::string split;
  bool labels = true;  // else each image counts, wherever it lies, and a source may be an image itself
};

/// Files named like images, at PREFIX/CLASS/FILE or PREFIX/SPLIT/CLASS/FILE, with one prefix in all of a source. A
/// folder and an archive of it give the same: links are followed, what is hidden is left out. `first`: called with the
/// content of each image in reading order until it returns true. Throws DataError, also where a class folder holds no
/// image: the labels of other classes would move.
using FirstImage = std::function<bool(std::span<const std::byte>)>;
ImageListing list_images(std::span<const std::string> sources, const ListingOptions&, const FirstImage& first);

/// Is a path inside a source that of an image?
bool is_image_name(std::string_view path);
/// The whole content, appended; returns what went wrong, or an empty string.
std::string append_file(const std::string& path, std::vector<std::byte>& to);

constexpr std::uint64_t max_image_bytes = std::uint64_t{256} << 20;

}  // namespace dtrain::io
