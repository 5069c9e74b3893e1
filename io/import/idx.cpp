#include "io/import/idx.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>
#include <sys/stat.h>
#include <zlib.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr std::uint32_t unsigned_bytes = 0x08;
constexpr std::uint64_t max_pixels = 1 << 16;  // of one side; the format allows 2^32
constexpr std::uint64_t max_row = 1 << 26;     // bytes of one image

gzFile as_gz(void* file) {
  return static_cast<gzFile>(file);
}

std::uint32_t big_endian(const unsigned char* b) {
  return std::uint32_t{b[0]} << 24 | std::uint32_t{b[1]} << 16 | std::uint32_t{b[2]} << 8 | b[3];
}

}  // namespace

void IdxReader::Close::operator()(void* file) const noexcept {
  gzclose(as_gz(file));
}

IdxReader::IdxReader(const std::string& path, int rank) : path_(path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) throw DataError(fmt::format("{}: {}", path, std::strerror(errno)));
  if (!S_ISREG(status.st_mode)) throw DataError(fmt::format("{}: is not a regular file", path));
  file_.reset(gzopen(path.c_str(), "rb"));  // reads plain files too
  if (!file_) throw DataError(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
  gzbuffer(as_gz(file_.get()), 1 << 18);
  std::array<unsigned char, 4> word{};
  const auto next = [&]() -> std::uint32_t {
    if (gzread(as_gz(file_.get()), word.data(), 4) != 4) {
      int code = 0;
      const char* text = gzerror(as_gz(file_.get()), &code);
      if (code == Z_DATA_ERROR) throw DataError(fmt::format("{}: is damaged ({})", path_, text));
      throw DataError(fmt::format("{}: is not an IDX file: its header is cut short", path_));
    }
    return big_endian(word.data());
  };
  const std::uint32_t expected = unsigned_bytes << 8 | static_cast<std::uint32_t>(rank), magic = next();
  if (magic != expected) {
    const bool other_rank = magic >> 8 == unsigned_bytes;
    throw DataError(
        fmt::format("{}: the magic number is {:#010x}, {:#010x} was expected ({}); {}", path, magic, expected,
                    rank == 1 ? "labels" : "images",
                    other_rank ? "are images and labels mixed up?" : "it is no IDX file of unsigned bytes"));
  }
  for (int i = 0; i < rank; ++i) dims_.push_back(next());
  for (std::size_t i = 1; i < dims_.size(); ++i) {
    if (dims_[i] == 0 || dims_[i] > max_pixels || row_bytes() > max_row) {
      throw DataError(
          fmt::format("{}: claims images of {} x {} pixels; the header is damaged", path, dims_[1], dims_.back()));
    }
  }
}

std::size_t IdxReader::row_bytes() const noexcept {
  std::size_t bytes = 1;
  for (std::size_t i = 1; i < dims_.size(); ++i) bytes *= dims_[i];
  return bytes;
}

void IdxReader::read(std::span<std::byte> out, std::uint64_t row) {
  std::size_t done = 0;
  while (done < out.size()) {
    const auto want = static_cast<unsigned>(std::min<std::size_t>(out.size() - done, 1 << 30));
    const int got = gzread(as_gz(file_.get()), out.data() + done, want);
    if (got <= 0) {
      int code = 0;
      const char* text = gzerror(as_gz(file_.get()), &code);
      const bool damaged = code != Z_OK && code != Z_BUF_ERROR && code != Z_STREAM_END;
      throw DataError(fmt::format("{}: {} in row {} of {}{}", path_, damaged ? "is damaged" : "is truncated",
                                  row + done / row_bytes(), dims_[0], damaged ? fmt::format(" ({})", text) : ""));
    }
    done += static_cast<std::size_t>(got);
  }
}

void IdxReader::finish() {
  std::byte more{};
  const int got = gzread(as_gz(file_.get()), &more, 1);
  if (got > 0) throw DataError(fmt::format("{}: holds more than the {} rows its header promises", path_, dims_[0]));
  // The end of the stream is where gzip's checksum is compared.
  int code = 0;
  const char* text = gzerror(as_gz(file_.get()), &code);
  if (got < 0 || (code != Z_OK && code != Z_STREAM_END))
    throw DataError(fmt::format("{}: is damaged ({})", path_, text));
}

}  // namespace dtrain::io
