#include "io/import/text_file.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>

#include "io/import/archive.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr std::size_t buffer_bytes = std::size_t{1} << 16;

/// What macOS adds, and hidden files.
bool is_beside(const std::string& name) {
  return name.starts_with("__MACOSX/") || name.substr(name.rfind('/') + 1).starts_with('.');
}

std::size_t put_utf8(std::uint32_t c, char* to) {
  if (c < 0x80) {
    to[0] = static_cast<char>(c);
    return 1;
  }
  const std::size_t more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  constexpr std::uint32_t first[] = {0, 0xC0, 0xE0, 0xF0};
  for (std::size_t i = more; i > 0; --i, c >>= 6) to[i] = static_cast<char>(0x80 | (c & 0x3F));
  to[0] = static_cast<char>(first[more] | c);
  return more + 1;
}

}  // namespace

void TextFile::Close::operator()(archive* a) const noexcept {
  archive_read_free(a);
}

TextFile::Archive TextFile::open() const {
  Archive a(archive_read_new());
  if (a == nullptr) throw std::bad_alloc();
  archive_read_support_format_raw(a.get());
  archive_read_support_format_empty(a.get());
  archive_read_support_format_zip(a.get());
  // By name: "all" would start programs for formats that the library does not know itself.
  archive_read_support_filter_gzip(a.get());
  archive_read_support_filter_bzip2(a.get());
  archive_read_support_filter_xz(a.get());
  archive_read_support_filter_zstd(a.get());
  if (archive_read_open_filename(a.get(), path_.c_str(), buffer_bytes) != ARCHIVE_OK)
    throw DataError(fmt::format("{}: cannot be read: {}", path_, reason(a.get())));
  return a;
}

TextFile::TextFile(const std::string& path) : path_(path), raw_(buffer_bytes) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) throw DataError(fmt::format("{}: {}", path, std::strerror(errno)));
  if (!S_ISREG(status.st_mode)) throw DataError(fmt::format("{}: is not a regular file; it is read twice", path));
  find_member();
  fill();
  const auto begins = [this](std::string_view mark) {
    if (!std::string_view(raw_.data(), end_).starts_with(mark)) return false;
    begin_ = mark.size();
    return true;
  };
  if (begins("\xff\xfe")) encoding_ = Encoding::utf16_little;
  if (begins("\xfe\xff")) encoding_ = Encoding::utf16_big;
  begins("\xef\xbb\xbf");
}

void TextFile::damaged(const std::string& why) const {
  throw DataError(fmt::format("{}: is damaged or truncated after {} bytes of text ({})", path_, bytes_, why));
}

void TextFile::find_member() {
  archive_ = open();
  archive_entry* entry = nullptr;
  std::vector<std::string> names;
  std::size_t wanted = 0, seen = 0;
  for (;; ++seen) {
    const int rc = archive_read_next_header(archive_.get(), &entry);
    if (rc == ARCHIVE_EOF) break;
    if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN) damaged(reason(archive_.get()));
    if (archive_format(archive_.get()) == ARCHIVE_FORMAT_RAW) return;
    const char* const name = archive_entry_pathname(entry);
    if (archive_entry_filetype(entry) != AE_IFREG || name == nullptr || is_beside(name)) continue;
    if (names.empty()) wanted = seen;
    names.emplace_back(name);
  }
  finished_ = seen == 0;  // an empty file
  if (finished_) return;
  if (std::find(names.begin(), names.end(), "[Content_Types].xml") != names.end())
    throw DataError(fmt::format("{}: is a workbook of Excel; save its sheet as CSV UTF-8 there", path_));
  if (names.size() != 1) {
    constexpr std::size_t shown = 4;
    names.resize(std::min(names.size(), shown));
    throw DataError(fmt::format("{}: is an archive of {} files ({}{}); expected one: unpack it, and name the file",
                                path_, seen, fmt::join(names, ", "), seen > shown ? ", ..." : ""));
  }
  archive_ = open();
  for (std::size_t i = 0; i <= wanted; ++i)
    if (archive_read_next_header(archive_.get(), &entry) < ARCHIVE_WARN) damaged(reason(archive_.get()));
}

bool TextFile::fill() {
  if (finished_) return false;
  std::copy(raw_.begin() + static_cast<std::ptrdiff_t>(begin_), raw_.begin() + static_cast<std::ptrdiff_t>(end_),
            raw_.begin());
  end_ -= begin_;
  begin_ = 0;
  const auto got = archive_read_data(archive_.get(), raw_.data() + end_, raw_.size() - end_);
  if (got < 0) damaged(reason(archive_.get()));
  finished_ = got == 0;
  end_ += static_cast<std::size_t>(got);
  return got > 0;
}

std::uint64_t TextFile::consumed() const noexcept {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(0, archive_filter_bytes(archive_.get(), -1)));
}

std::size_t TextFile::read(char* to, std::size_t room) {
  std::size_t got = 0;
  if (encoding_ != Encoding::utf8) {
    got = read_utf16(to, room);
  } else if (begin_ < end_ || fill()) {
    got = std::min(room, end_ - begin_);
    std::copy_n(raw_.data() + begin_, got, to);
    begin_ += got;
  }
  bytes_ += got;
  return got;
}

std::size_t TextFile::read_utf16(char* to, std::size_t room) {
  const auto unit = [this](std::size_t at) {
    const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(raw_[i])); };
    const bool little = encoding_ == Encoding::utf16_little;
    return byte(at + (little ? 1 : 0)) << 8 | byte(at + (little ? 0 : 1));
  };
  constexpr std::size_t longest = 4;  // bytes of a character, here and there
  std::size_t done = 0;
  while (done + longest <= room) {
    while (end_ - begin_ < longest && fill()) {
    }
    if (begin_ == end_) break;
    if (end_ - begin_ < 2) damaged("half a character of UTF-16");
    std::uint32_t c = unit(begin_);
    begin_ += 2;
    if (c >= 0xD800 && c < 0xE000) {  // two units make one character
      const std::uint32_t low = end_ - begin_ < 2 ? 0 : unit(begin_);
      if (c >= 0xDC00 || low < 0xDC00 || low >= 0xE000) damaged("this is no UTF-16");
      c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
      begin_ += 2;
    }
    done += put_utf8(c, to + done);
  }
  return done;
}

}  // namespace dtrain::io
