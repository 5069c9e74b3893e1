#include "io/text/merge_table.hpp"

#include <algorithm>
#include <bit>
#include <functional>

namespace dtrain::io {
namespace {

constexpr std::size_t short_word = 48;  // ids up to which looking at all pairs for each merge is faster than a heap

}  // namespace

MergeTable::MergeTable(std::span<const std::array<TokenId, 2>> merges, std::span<const TokenId> to)
    : slots_(std::bit_ceil(merges.size() * 2 + 2)), mask_(slots_.size() - 1), empty_(merges.empty()) {
  for (std::size_t i = 0; i < merges.size(); ++i) {
    const std::uint64_t pair = std::uint64_t{merges[i][0]} << 32 | merges[i][1];
    std::size_t at = place_of(pair);
    while (slots_[at].pair != none && slots_[at].pair != pair) at = (at + 1) & mask_;
    slots_[at] = {pair, static_cast<std::uint32_t>(i), to[i]};
  }
}

std::size_t Merger::merge(std::span<TokenId> ids) {
  if (ids.size() < 2 || table_.empty()) return ids.size();
  return ids.size() <= short_word ? merge_short(ids) : merge_long(ids);
}

std::size_t Merger::merge_short(std::span<TokenId> ids) {
  std::array<std::uint32_t, short_word> rank;  // of the pair that begins there
  std::array<TokenId, short_word> becomes;
  std::size_t n = ids.size();
  const auto look = [&](std::size_t i) {
    const MergeTable::Merge& merge = table_.find(ids[i], ids[i + 1]);
    rank[i] = merge.rank;
    becomes[i] = merge.to;
  };
  for (std::size_t i = 0; i + 1 < n; ++i) look(i);
  while (n > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < n; ++i)
      if (rank[i] < rank[best]) best = i;
    if (rank[best] == MergeTable::never) break;
    ids[best] = becomes[best];
    for (std::size_t i = best + 1; i + 1 < n; ++i) {
      ids[i] = ids[i + 1];
      rank[i] = rank[i + 1];
      becomes[i] = becomes[i + 1];
    }
    --n;
    if (best + 1 < n) look(best);
    if (best > 0) look(best - 1);
  }
  return n;
}

std::size_t Merger::merge_long(std::span<TokenId> ids) {
  const auto n = static_cast<std::uint32_t>(ids.size());
  next_.resize(n);
  previous_.resize(n);
  rank_.assign(n, MergeTable::never);
  heap_.clear();
  const auto later = std::greater<std::uint64_t>();
  const auto look = [&](std::uint32_t i) {
    rank_[i] = next_[i] < n ? table_.find(ids[i], ids[next_[i]]).rank : MergeTable::never;
    return rank_[i] != MergeTable::never;
  };
  const auto entry = [&](std::uint32_t i) { return std::uint64_t{rank_[i]} << 32 | i; };
  for (std::uint32_t i = 0; i < n; ++i) {
    next_[i] = i + 1;
    previous_[i] = i - 1;  // the first has none, and is not asked
  }
  for (std::uint32_t i = 0; i + 1 < n; ++i)
    if (look(i)) heap_.push_back(entry(i));
  std::make_heap(heap_.begin(), heap_.end(), later);
  const auto push = [&](std::uint32_t i) {
    if (!look(i)) return;
    heap_.push_back(entry(i));
    std::push_heap(heap_.begin(), heap_.end(), later);
  };
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), later);
    const auto i = static_cast<std::uint32_t>(heap_.back());
    const auto rank = static_cast<std::uint32_t>(heap_.back() >> 32);
    heap_.pop_back();
    if (rank_[i] != rank) continue;  // the pair is another one by now, or its left part is gone
    const std::uint32_t gone = next_[i], after = next_[gone];
    ids[i] = table_.find(ids[i], ids[gone]).to;
    rank_[gone] = MergeTable::never;
    next_[i] = after;
    if (after < n) previous_[after] = i;
    push(i);
    if (i > 0) push(previous_[i]);
  }
  std::size_t count = 0;
  for (std::uint32_t i = 0; i < n; i = next_[i]) ids[count++] = ids[i];
  return count;
}

}  // namespace dtrain::io
