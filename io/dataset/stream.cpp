#include "io/dataset/stream.hpp"

#include <algorithm>
#include <bit>
#include <cassert>
#include <mutex>
#include <utility>
#include <vector>

#include "runtime/random/rng.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr int rounds = 6;  // four give statistically good permutations (Luby, Rackoff), if n is large

constexpr std::uint32_t lane_rows = 0;     // of the whole set
constexpr std::uint32_t lane_blocks = 1;   // order of blocks
constexpr std::uint32_t lane_windows = 2;  // rows of window w: lane_windows + w

std::uint64_t low_bits(std::uint64_t value, int bits) {
  return bits == 0 ? 0 : value & (~std::uint64_t{0} >> (64 - bits));
}

}  // namespace

IndexPermutation::IndexPermutation(std::uint64_t n, std::uint64_t seed, std::uint64_t epoch, std::uint32_t lane,
                                   OrderVersion version)
    : n_(n), epoch_(epoch), lane_(lane), stored_(version != OrderVersion::first && n <= most_stored) {
  if (n == 0) throw BugError("a permutation of nothing");
  const RandomKey key = random_key(seed, Purpose::shuffle);
  k0_ = key.k0;
  k1_ = key.k1;
  const int bits = n == 1 ? 0 : static_cast<int>(std::bit_width(n - 1));
  left_bits_ = bits / 2;
  right_bits_ = bits - left_bits_;
  if (stored_) shuffle();
}

/// Fisher and Yates, from the inside out: element k takes a place among the k + 1 first, whose element moves to k.
/// Scaling 32 bits to k + 1 favours no place by more than one in 2^24.
void IndexPermutation::shuffle() noexcept {
  Random4 r{};
  for (std::uint32_t k = 0; k < n_; ++k) {
    if (k % 4 == 0) r = draw4(RandomKey{k0_, k1_}, epoch_, lane_, k / 4);
    const std::uint64_t place = std::uint64_t{r.v[k % 4]} * (k + 1) >> 32;
    table_[k] = static_cast<std::uint8_t>(k);
    std::swap(table_[k], table_[place]);
  }
}

std::uint64_t IndexPermutation::network(std::uint64_t i) const noexcept {
  const RandomKey key{k0_, k1_};
  do {
    std::uint64_t left = i >> right_bits_;
    std::uint64_t right = low_bits(i, right_bits_);
    // Each round mixes one half with a function of the other, which can be undone whatever the function is. The epoch
    // is part of the key; the round's half is what is drawn for.
    for (int round = 0; round < rounds; ++round) {
      const bool to_left = round % 2 == 0;
      const RandomKey round_key{key.k0 ^ static_cast<std::uint32_t>(epoch_),
                                key.k1 ^ static_cast<std::uint32_t>(epoch_ >> 32)};
      const Random4 r = draw4(round_key, to_left ? right : left, lane_, static_cast<std::uint32_t>(round));
      const std::uint64_t wide = static_cast<std::uint64_t>(r.v[1]) << 32 | r.v[0];
      if (to_left) {
        left ^= low_bits(wide, left_bits_);
      } else {
        right ^= low_bits(wide, right_bits_);
      }
    }
    i = left << right_bits_ | right;
  } while (i >= n_);
  return i;
}

/// The order of blocks in two epochs: a batch may lie in both.
struct SampleStream::Windows {
  struct Epoch {
    std::uint64_t epoch = ~std::uint64_t{0};
    std::vector<std::uint64_t> block;   // by place in the order
    std::vector<std::uint64_t> before;  // rows before that place
  };
  std::vector<std::uint64_t> starts;  // of blocks, and the count at the end
  std::mutex mutex;
  Epoch epochs[2];

  std::uint64_t blocks() const { return starts.size() - 1; }
  std::uint64_t size(std::uint64_t block) const { return starts[block + 1] - starts[block]; }

  const Epoch& order(std::uint64_t epoch, std::uint64_t seed, OrderVersion version) {
    Epoch& e = epochs[epoch % 2];
    if (e.epoch == epoch) return e;
    const IndexPermutation permutation(blocks(), seed, epoch, lane_blocks, version);
    std::uint64_t before = 0;
    for (std::uint64_t place = 0; place < blocks(); ++place) {
      e.block[place] = permutation(place);
      e.before[place] = before;
      before += size(e.block[place]);
    }
    e.epoch = epoch;
    return e;
  }
};

SampleStream::SampleStream(std::uint64_t count, std::uint64_t seed, bool shuffle, BlockLayout blocks,
                           OrderVersion order)
    : count_(count), seed_(seed), shuffle_(shuffle), order_(order) {
  if (count == 0) throw BugError("a stream of no samples");
  if (!shuffle || blocks.starts.empty()) return;
  windows_ = std::make_unique<Windows>();
  windows_->starts = std::move(blocks.starts);
  windows_->starts.push_back(count);
  if (windows_->starts.front() != 0 || !std::is_sorted(windows_->starts.begin(), windows_->starts.end())) {
    throw BugError("blocks must ascend from 0");
  }
  for (auto& e : windows_->epochs) {
    e.block.resize(windows_->blocks());
    e.before.resize(windows_->blocks());
  }
}

SampleStream::~SampleStream() = default;

void SampleStream::indices(std::uint64_t first, std::span<std::uint64_t> out) const {
  std::size_t done = 0;
  while (done < out.size()) {
    const std::uint64_t epoch = (first + done) / count_;
    const std::uint64_t begin = (first + done) % count_;
    const std::uint64_t end = std::min<std::uint64_t>(count_, begin + (out.size() - done));
    if (!shuffle_) {
      for (std::uint64_t p = begin; p < end; ++p) out[done++] = p;
    } else if (windows_ == nullptr) {
      const IndexPermutation permutation(count_, seed_, epoch, lane_rows, order_);
      for (std::uint64_t p = begin; p < end; ++p) out[done++] = permutation(p);
    } else {
      Windows& w = *windows_;
      const std::lock_guard lock(w.mutex);
      const Windows::Epoch& order = w.order(epoch, seed_, order_);
      std::uint64_t p = begin;
      while (p < end) {
        const auto after = std::upper_bound(order.before.begin(), order.before.end(), p);
        const std::uint64_t window = static_cast<std::uint64_t>(after - order.before.begin() - 1) / window_blocks;
        const std::uint64_t first_place = window * window_blocks;
        const std::uint64_t last_place = std::min(first_place + window_blocks, w.blocks());
        const std::uint64_t from = order.before[first_place];
        const std::uint64_t to = last_place == w.blocks() ? count_ : order.before[last_place];
        const IndexPermutation permutation(to - from, seed_, epoch, lane_windows + static_cast<std::uint32_t>(window),
                                           order_);
        for (; p < std::min(end, to); ++p) {
          const std::uint64_t row = from + permutation(p - from);
          const auto place = std::upper_bound(order.before.begin() + static_cast<std::ptrdiff_t>(first_place),
                                              order.before.begin() + static_cast<std::ptrdiff_t>(last_place), row) -
                             1;
          out[done++] = w.starts[order.block[static_cast<std::size_t>(place - order.before.begin())]] + (row - *place);
        }
      }
    }
  }
}

}  // namespace dtrain::io
