// The merges of a byte-pair encoding, and applying them to one word.
// A MergeTable does not change once it is made; a Merger owns the buffers of one thread.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "io/text/tokenizer.hpp"

namespace dtrain::io {

class MergeTable {
 public:
  struct Merge {
    std::uint64_t pair = none;  // left << 32 | right
    std::uint32_t rank = never;
    TokenId to = 0;
  };
  static constexpr std::uint64_t none = ~std::uint64_t{0};
  static constexpr std::uint32_t never = ~std::uint32_t{0};

  /// Merge i has rank i and makes to[i]; of equal pairs the last one counts.
  MergeTable(std::span<const std::array<TokenId, 2>> merges, std::span<const TokenId> to);
  bool empty() const noexcept { return empty_; }
  /// The merge of a pair; its rank is `never` where there is none.
  const Merge& find(TokenId left, TokenId right) const noexcept {
    const std::uint64_t pair = std::uint64_t{left} << 32 | right;
    for (std::size_t at = place_of(pair);; at = (at + 1) & mask_)
      if (slots_[at].pair == pair || slots_[at].pair == none) return slots_[at];
  }

 private:
  std::size_t place_of(std::uint64_t pair) const noexcept {
    constexpr std::uint64_t odd = 0x9E3779B97F4A7C15;
    const std::uint64_t mixed = (pair ^ pair >> 29) * odd;
    return (mixed >> 32) & mask_;
  }
  std::vector<Merge> slots_;
  std::size_t mask_ = 0;
  bool empty_ = true;
};

class Merger {
 public:
  explicit Merger(const MergeTable& table) : table_(table) {}
  /// Merges the ids of a word in place, the lowest rank and then the leftmost first; returns how many are left. The
  /// time is n log n in the number of ids, whatever they are.
  std::size_t merge(std::span<TokenId> ids);

 private:
  std::size_t merge_short(std::span<TokenId> ids);
  std::size_t merge_long(std::span<TokenId> ids);

  const MergeTable& table_;
  std::vector<std::uint64_t> heap_;  // rank << 32 | position
  std::vector<std::uint32_t> next_, previous_, rank_;
};

}  // namespace dtrain::io
