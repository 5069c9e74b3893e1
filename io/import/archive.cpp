#include "io/import/archive.hpp"

#include <new>

#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr std::size_t block_bytes = std::size_t{1} << 16;

}  // namespace

std::string reason(archive* a) {
  const char* text = archive_error_string(a);
  return text == nullptr ? "no reason given" : text;
}

void ArchiveReader::Close::operator()(archive* a) const noexcept {
  archive_read_free(a);
}

ArchiveReader::ArchiveReader(const std::string& path) : path_(path), archive_(archive_read_new()) {
  archive* a = archive_.get();
  if (a == nullptr) throw std::bad_alloc();
  archive_read_support_format_tar(a);
  // By name: "all" would start programs for formats that the library does not know itself.
  archive_read_support_filter_gzip(a);
  archive_read_support_filter_bzip2(a);
  archive_read_support_filter_xz(a);
  archive_read_support_filter_zstd(a);
  if (archive_read_open_filename(a, path.c_str(), block_bytes) != ARCHIVE_OK)
    throw DataError(fmt::format("{}: cannot be read as a tar archive: {}", path, reason(a)));
}

void ArchiveReader::damaged() const {
  throw DataError(fmt::format("{}: {}: {}", path_,
                              seen_ == 0 ? "is neither a folder nor a tar archive that dtrain can read"
                                         : fmt::format("is truncated or damaged after {} members", seen_),
                              reason(archive_.get())));
}

bool ArchiveReader::next(Member& member) {
  const int rc = archive_read_next_header(archive_.get(), &entry_);
  if (rc == ARCHIVE_EOF) return false;
  // A warning is about what is not used here: dates, owners, names in another encoding.
  if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN) damaged();
  ++seen_;
  const char* name = archive_entry_pathname(entry_);
  if (name == nullptr) name = archive_entry_pathname_utf8(entry_);
  member.path = name == nullptr ? "" : name;
  while (member.path.starts_with("./")) member.path.erase(0, 2);
  using Kind = Member::Kind;
  const char* target = archive_entry_hardlink(entry_);
  const auto type = archive_entry_filetype(entry_);
  member.kind = target != nullptr  ? Kind::hard_link
                : type == AE_IFREG ? Kind::file
                : type == AE_IFDIR ? Kind::folder
                : type == AE_IFLNK ? Kind::link
                                   : Kind::other;
  if (member.kind == Kind::link) target = archive_entry_symlink(entry_);
  member.target = target == nullptr ? "" : target;
  if (member.kind == Kind::file) member.file = files_++;
  bytes_ = member.bytes = static_cast<std::uint64_t>(archive_entry_size(entry_));
  return true;
}

void ArchiveReader::read(std::vector<std::byte>& to) {
  const std::size_t before = to.size();
  to.resize(before + bytes_);
  std::size_t done = 0;
  while (done < bytes_) {
    const auto got = archive_read_data(archive_.get(), to.data() + before + done, bytes_ - done);
    if (got <= 0) damaged();
    done += static_cast<std::size_t>(got);
  }
}

}  // namespace dtrain::io
