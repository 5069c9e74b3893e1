// The members of a tar archive, compressed or not, read front to back without extracting anything; internal to io/.
// An ArchiveReader owns its open file; one thread uses it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

struct archive;
struct archive_entry;

namespace dtrain::io {

/// What libarchive says of its last failure.
std::string reason(archive*);

class ArchiveReader {
 public:
  /// tar (ustar, GNU, pax), as it is or in gzip, bzip2, xz or zstd. Throws DataError: missing, no such archive.
  explicit ArchiveReader(const std::string& path);

  struct Member {
    enum class Kind : std::uint8_t { file, folder, link, hard_link, other };
    Kind kind = Kind::other;
    std::string path;        // as stored, without a leading "./"
    std::string target;      // of links: of a hard one from the top of the archive, else from the folder of the link
    std::uint64_t file = 0;  // its number among those of kind `file`
    std::uint64_t bytes = 0;
  };
  /// Goes on to the next member; false at the end. Throws DataError where the archive is truncated or damaged.
  bool next(Member&);
  /// Appends the content of the member that next() found.
  void read(std::vector<std::byte>& to);

 private:
  struct Close {
    void operator()(archive*) const noexcept;
  };
  [[noreturn]] void damaged() const;
  std::string path_;
  std::unique_ptr<archive, Close> archive_;
  archive_entry* entry_ = nullptr;
  std::uint64_t bytes_ = 0, seen_ = 0, files_ = 0;
};

}  // namespace dtrain::io
