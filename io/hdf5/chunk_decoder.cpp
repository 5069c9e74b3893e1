#include <cstring>
#include <new>

#include <libdeflate.h>
#include <zstd.h>

#include "io/hdf5/column.hpp"

namespace dtrain::io {
namespace {

/// Undoes HDF5's shuffle: byte k of all elements lies together, leftover bytes at the end as they are.
void unshuffle(const std::byte* in, std::byte* out, std::size_t bytes, std::size_t element) {
  const std::size_t n = bytes / element;
  // Blocks keep the scattered writes of all byte planes within the first-level cache.
  constexpr std::size_t block = 1024;
  for (std::size_t first = 0; first < n; first += block) {
    const std::size_t last = first + block < n ? first + block : n;
    for (std::size_t k = 0; k < element; ++k) {
      const std::byte* plane = in + k * n;
      for (std::size_t i = first; i < last; ++i) out[i * element + k] = plane[i];
    }
  }
  std::memcpy(out + n * element, in + n * element, bytes - n * element);
}

/// Undoes LZF, h5py's own compression. True where exactly `bytes` come out.
bool unlzf(const std::byte* in, std::size_t size, std::byte* out, std::size_t bytes) {
  std::size_t at = 0, done = 0;
  while (at < size) {
    const auto control = std::to_integer<std::size_t>(in[at++]);
    if (control < 32) {  // so many bytes, and one, as they are
      const std::size_t run = control + 1;
      if (run > size - at || run > bytes - done) return false;
      std::memcpy(out + done, in + at, run);
      at += run;
      done += run;
      continue;
    }
    // Bytes that came before: three bits of their number, 13 of how far back; they may reach into what they make.
    std::size_t run = (control >> 5) + 2;
    if (run == 9 && at < size) run += std::to_integer<std::size_t>(in[at++]);
    if (at >= size) return false;
    const std::size_t back = ((control & 31) << 8) + std::to_integer<std::size_t>(in[at++]) + 1;
    if (back > done || run > bytes - done) return false;
    for (const std::size_t end = done + run; done < end; ++done) out[done] = out[done - back];
  }
  return done == bytes;
}

std::byte* grown(std::vector<std::byte>& buffer, std::size_t bytes) {
  if (buffer.size() < bytes) buffer.resize(bytes);
  return buffer.data();
}

}  // namespace

ChunkDecoder::ChunkDecoder() : inflate_(libdeflate_alloc_decompressor()) {
  if (inflate_ == nullptr) throw std::bad_alloc();
}
ChunkDecoder::~ChunkDecoder() {
  libdeflate_free_decompressor(inflate_);
}
std::byte* ChunkDecoder::raw(std::size_t bytes) {
  return grown(a_, bytes);
}
std::byte* ChunkDecoder::chunk(std::size_t bytes) {
  return grown(chunk_, bytes);
}

bool ChunkDecoder::decode(std::size_t bytes, const std::vector<h5::Filter>& filters, std::uint32_t skipped,
                          std::size_t chunk_bytes, std::byte* out) {
  using Kind = h5::Filter::Kind;
  std::size_t left = 0;
  for (std::size_t i = 0; i < filters.size(); ++i) left += (skipped >> i & 1u) == 0;
  bool in_a = true;
  for (std::size_t i = filters.size(); i-- > 0;) {
    if ((skipped >> i & 1u) != 0) continue;
    --left;
    const std::byte* in = in_a ? a_.data() : b_.data();
    std::byte* to = left == 0 ? out : in_a ? grown(b_, chunk_bytes) : grown(a_, chunk_bytes);
    in_a = !in_a;
    switch (filters[i].kind) {
      case Kind::deflate:
        if (libdeflate_zlib_decompress(inflate_, in, bytes, to, chunk_bytes, nullptr) != LIBDEFLATE_SUCCESS)
          return false;
        break;
      case Kind::zstd:
        if (ZSTD_decompress(to, chunk_bytes, in, bytes) != chunk_bytes) return false;
        break;
      case Kind::lzf:
        if (!unlzf(in, bytes, to, chunk_bytes)) return false;
        break;
      case Kind::shuffle:
        if (bytes != chunk_bytes) return false;
        unshuffle(in, to, bytes, filters[i].element);
        break;
      default:
        return false;
    }
    bytes = chunk_bytes;
    if (left == 0) return true;
  }
  if (bytes != chunk_bytes) return false;  // nothing was applied
  std::memcpy(out, a_.data(), bytes);
  return true;
}

}  // namespace dtrain::io
