// ArchiveLinks: where the links of an archive lead, as if it were extracted; internal to io/.
// Owns the paths of all members of an archive that has links; used on one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "io/import/archive.hpp"

namespace dtrain::io {

class ArchiveLinks {
 public:
  static constexpr std::uint64_t nowhere = ~std::uint64_t{0};

  /// Reads the members of the archive. Throws DataError.
  explicit ArchiveLinks(const std::string& path);
  /// Calls found(path, file) for each file that is to be seen through links: at the path of a link, or below that of a
  /// link to a folder. `file`: the number of the member with the content, or `nowhere`. Throws DataError where links go
  /// in a circle.
  void each(const std::function<void(const std::string& path, std::uint64_t file)>& found) const;

 private:
  struct Node {
    ArchiveReader::Member::Kind kind;
    std::string target;
    std::uint64_t file;
  };
  /// The path of what is there, without links; false where nothing is.
  bool resolve(std::string& path) const;
  void expand(const std::string& path, const std::string& at, int depth,
              const std::function<void(const std::string&, std::uint64_t)>& found) const;

  std::string path_;
  std::map<std::string, Node> nodes_;
};

}  // namespace dtrain::io
