#include "io/samples/pack.hpp"

#include <algorithm>
#include <bit>
#include <limits>

#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

/// A set of numbers below some limit, which finds the next one in a step a level of 64.
class NumberSet {
 public:
  explicit NumberSet(std::uint32_t limit) {
    for (std::size_t words = limit / 64 + 1;; words = words / 64 + 1) {
      levels_.emplace_back(words);
      if (words == 1) break;
    }
  }
  void insert(std::uint32_t n) {
    for (auto& level : levels_) {
      level[n / 64] |= std::uint64_t{1} << n % 64;
      n /= 64;
    }
  }
  void erase(std::uint32_t n) {
    for (auto& level : levels_) {
      level[n / 64] &= ~(std::uint64_t{1} << n % 64);
      if (level[n / 64] != 0) return;
      n /= 64;
    }
  }
  /// The smallest one from n on, or `none`.
  std::uint32_t next(std::uint32_t n) const {
    for (std::size_t l = 0; l < levels_.size(); ++l) {
      const std::uint32_t word = n / 64;
      if (word >= levels_[l].size()) return none;
      if (const std::uint64_t rest = levels_[l][word] >> n % 64; rest != 0) {
        n += static_cast<std::uint32_t>(std::countr_zero(rest));
        while (l-- > 0) n = n * 64 + static_cast<std::uint32_t>(std::countr_zero(levels_[l][n]));
        return n;
      }
      n = word + 1;
    }
    return none;
  }

 private:
  std::vector<std::vector<std::uint64_t>> levels_;  // a bit of one says whether the word below holds any
};

std::vector<Piece> pieces_of(std::span<const std::uint64_t> offsets, std::uint32_t length, std::uint64_t& cut) {
  std::vector<Piece> pieces;
  pieces.reserve(offsets.size());
  for (std::size_t d = 0; d + 1 < offsets.size(); ++d) {
    std::uint64_t begin = offsets[d];
    const std::uint64_t end = offsets[d + 1];
    cut += end - begin > length ? 1 : 0;
    for (; end - begin > length; begin += length) pieces.push_back({begin, length, true});
    if (end > begin) pieces.push_back({begin, static_cast<std::uint32_t>(end - begin), false});
  }
  if (pieces.size() >= none) throw DataError("a file has more than 4 billion documents; import it as several shards");
  return pieces;
}

/// Places of the pieces, the longest first, else in the order of the file.
std::vector<std::uint32_t> longest_first(std::span<const Piece> pieces, std::uint32_t length) {
  std::vector<std::uint32_t> at(length + 1, 0);  // by length: where the next one goes
  for (const Piece& p : pieces) ++at[p.length];
  std::uint32_t before = 0;
  for (std::size_t l = at.size(); l-- > 0;) {
    const std::uint32_t count = at[l];
    at[l] = before;
    before += count;
  }
  std::vector<std::uint32_t> order(pieces.size());
  for (std::size_t i = 0; i < pieces.size(); ++i) order[at[pieces[i].length]++] = static_cast<std::uint32_t>(i);
  return order;
}

/// The pack of each piece; packs are numbered as they are opened. Returns their number.
std::uint32_t best_fit(std::span<const Piece> pieces, std::uint32_t length, std::vector<std::uint32_t>& pack_of) {
  std::vector<std::uint32_t> newest(length, none);  // by room: a pack that has so much left
  std::vector<std::uint32_t> older;                 // of each pack: the next one with the same room
  NumberSet rooms(length);
  pack_of.resize(pieces.size());
  for (const std::uint32_t i : longest_first(pieces, length)) {
    const std::uint32_t wanted = pieces[i].length, found = rooms.next(wanted);
    std::uint32_t room = length, pack = static_cast<std::uint32_t>(older.size());
    if (found == none) {
      older.push_back(none);
    } else {
      room = found;
      pack = newest[room];
      newest[room] = older[pack];
      if (newest[room] == none) rooms.erase(room);
    }
    pack_of[i] = pack;
    room -= wanted;
    if (room == 0) continue;
    if (newest[room] == none) rooms.insert(room);
    older[pack] = newest[room];
    newest[room] = pack;
  }
  return static_cast<std::uint32_t>(older.size());
}

}  // namespace

PackTable::PackTable(std::span<const std::uint64_t> offsets, std::uint32_t length) {
  const std::vector<Piece> pieces = pieces_of(offsets, length, cut_);
  std::vector<std::uint32_t> pack_of;
  const std::uint32_t packs = best_fit(pieces, length, pack_of);
  std::vector<std::uint32_t> number(packs, none);  // by first document
  first_.assign(packs + std::size_t{1}, 0);
  std::uint32_t known = 0;
  for (std::uint32_t& pack : pack_of) {
    if (number[pack] == none) number[pack] = known++;
    pack = number[pack];
    ++first_[pack + std::size_t{1}];
  }
  for (std::size_t p = 0; p < packs; ++p) first_[p + 1] += first_[p];
  std::vector<std::uint32_t> next(first_.begin(), first_.end() - 1);
  pieces_.resize(pieces.size());
  for (std::size_t i = 0; i < pieces.size(); ++i) pieces_[next[pack_of[i]]++] = pieces[i];
}

}  // namespace dtrain::io
