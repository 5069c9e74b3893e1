// A text file as UTF-8, front to back: as it is, compressed (gzip, bzip2, xz, zstd), or the one file in a zip archive;
// UTF-16 that begins with a byte order mark is converted. A TextFile owns its open file; one thread uses it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

struct archive;

namespace dtrain::io {

class TextFile {
 public:
  /// Throws DataError: missing, not a regular file, a zip archive of none or several files.
  explicit TextFile(const std::string& path);
  /// Up to `room` bytes, which is at least 4; 0 at the end. The mark is not among them. Throws DataError: damaged.
  std::size_t read(char* to, std::size_t room);
  /// Bytes of the file itself that were read so far.
  std::uint64_t consumed() const noexcept;

 private:
  struct Close {
    void operator()(archive*) const noexcept;
  };
  using Archive = std::unique_ptr<archive, Close>;
  Archive open() const;
  /// Goes to the one file that an archive holds.
  void find_member();
  bool fill();
  std::size_t read_utf16(char* to, std::size_t room);
  [[noreturn]] void damaged(const std::string& why) const;

  enum class Encoding : std::uint8_t { utf8, utf16_little, utf16_big };
  std::string path_;
  Archive archive_;
  Encoding encoding_ = Encoding::utf8;
  std::vector<char> raw_;
  std::size_t begin_ = 0, end_ = 0;  // of what is left in raw_
  std::uint64_t bytes_ = 0;          // that were read
  bool finished_ = false;
};

}  // namespace dtrain::io
