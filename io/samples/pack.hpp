// Packs: whole documents, side by side in samples of one length, so that nearly all positions hold a token.
// A pure function of the documents' lengths; a PackTable owns its lists, and any thread may read them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace dtrain::io {

/// Tokens [begin, begin + length) of a file: a document, or a part of one that is longer than a sample.
struct Piece {
  std::uint64_t begin = 0;
  std::uint32_t length = 0;
  bool continues = false;  // the document goes on behind it
};

/// Made anew at each start, from offsets that are read in any case: 10^6 documents take 0.4 to 1 s. A stored table
/// would be as large as the offsets, one for each length, and would have to be compared with them.
class PackTable {
 public:
  /// `offsets`: document i is [offsets[i], offsets[i + 1]); they do not fall. Best fit with the longest first (Johnson
  /// 1973), by buckets of equal room: time is linear in documents + length. Packs are in the order of their first
  /// documents, and documents in the order of the file.
  PackTable(std::span<const std::uint64_t> offsets, std::uint32_t length);

  std::size_t size() const noexcept { return first_.size() - 1; }
  std::span<const Piece> operator[](std::size_t pack) const noexcept {
    return std::span(pieces_).subspan(first_[pack], first_[pack + 1] - first_[pack]);
  }
  std::uint64_t cut_documents() const noexcept { return cut_; }

 private:
  std::vector<Piece> pieces_;         // pack by pack
  std::vector<std::uint32_t> first_;  // of each pack, and their number
  std::uint64_t cut_ = 0;
};

}  // namespace dtrain::io
