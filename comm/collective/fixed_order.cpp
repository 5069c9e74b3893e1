#include "comm/collective/fixed_order.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <vector>

#include "runtime/tensor/bf16.hpp"
#include "runtime/tensor/error.hpp"
#include "runtime/tensor/f16.hpp"

namespace dtrain::comm {

namespace {

constexpr std::size_t tile = 2048;  // floats: a few tiles of each operand stay in the first-level cache

struct Sum {
  static float apply(float a, float b) { return a + b; }
};
struct Max {
  static float apply(float a, float b) { return a < b ? b : a; }
};

template <class Op>
void combine(const float* a, const float* b, float* out, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) out[i] = Op::apply(a[i], b[i]);
}

// What travels is float, or a type of half its size; what is added is float. `widen` gives floats of n elements, in
// place where they are floats already.
const float* widen(const float* part, std::size_t, float*) {
  return part;
}
template <class Half>
const float* widen(const Half* part, std::size_t n, float* room) {
  for (std::size_t i = 0; i < n; ++i) room[i] = to_float(part[i]);
  return room;
}
void narrow(const float* sum, float* out, std::size_t n) {
  if (sum != out) std::memcpy(out, sum, n * sizeof(float));
}
template <class Half>
void narrow(const float* sum, Half* out, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) out[i] = from_float<Half>(sum[i]);
}

// The tree over parts [lo, hi), n <= tile elements from `begin` on. Returns where the result lies: a part itself, or
// `out`. The two halves of level l use scratch tiles 2l and 2l + 1.
template <class Op, class Element>
const float* tree(const Element* const* parts, int lo, int hi, std::size_t begin, std::size_t n, float* out,
                  float* scratch) {
  const int count = hi - lo;
  if (count == 1) return widen(parts[lo] + begin, n, out);
  const int mid = lo + static_cast<int>(std::bit_ceil(static_cast<unsigned>(count)) / 2);
  const float* left = tree<Op>(parts, lo, mid, begin, n, scratch, scratch + 2 * tile);
  const float* right = tree<Op>(parts, mid, hi, begin, n, scratch + tile, scratch + 2 * tile);
  combine<Op>(left, right, out, n);
  return out;
}

template <class Op, class Element>
void tree_tiles(const Element* const* parts, int ranks, std::size_t n, Element* out, float* scratch) {
  for (std::size_t begin = 0; begin < n; begin += tile) {
    const std::size_t size = std::min(tile, n - begin);
    float* room = scratch;
    if constexpr (std::is_same_v<Element, float>) room = out + begin;
    narrow(tree<Op>(parts, 0, ranks, begin, size, room, scratch + tile), out + begin, size);
  }
}

template <class Element>
void reduce_parts(const Element* const* parts, int ranks, std::size_t n, Reduce reduce, Element* out, float* scratch) {
  if (reduce == Reduce::sum) {
    tree_tiles<Sum>(parts, ranks, n, out, scratch);
  } else {
    tree_tiles<Max>(parts, ranks, n, out, scratch);
  }
}

// Room for the result and for two tiles a level of the tree.
std::size_t scratch_floats(int ranks) {
  return tile + 2 * tile * static_cast<std::size_t>(std::bit_width(static_cast<unsigned>(ranks)));
}

class FixedOrder final : public Communicator {
 public:
  FixedOrder(std::unique_ptr<Communicator> below, FixedOrderOptions options)
      : below_(std::move(below)), ranks_(below_->size()), peers_(ranks_ - 1), options_(options) {
    std::size_t bytes = options.chunk_bytes;
    // Large enough that a message's latency does not count, small enough that sum and transfer overlap, and that the
    // workspace (two chunks a peer) stays small on many ranks.
    if (bytes == 0)
      bytes = std::clamp<std::size_t>((std::size_t{2} << 20) / static_cast<std::size_t>(ranks_), 16 << 10, 512 << 10);
    chunk_ = std::max<std::size_t>(bytes / 64, 1) * 64;
    received_.resize(2 * static_cast<std::size_t>(peers_) * chunk_);
    std::apply([this](auto&... parts) { (parts.resize(static_cast<std::size_t>(ranks_)), ...); }, parts_);
    scratch_.resize(scratch_floats(ranks_));
    below_->reserve(own_slots());
  }

  int rank() const noexcept override { return below_->rank(); }
  int size() const noexcept override { return ranks_; }

  void all_reduce(void* inout, std::size_t count, DType dtype, Reduce reduce) override {
    if (adds(dtype, DType::f32)) return reduce_all(static_cast<float*>(inout), count, reduce);
    if (adds(dtype, DType::bf16)) return reduce_all(static_cast<Bf16*>(inout), count, reduce);
    if (adds(dtype, DType::f16)) return reduce_all(static_cast<F16*>(inout), count, reduce);
    require_others_below(dtype);
    below_->all_reduce(inout, count, dtype, reduce);
  }

  void reduce_scatter(void* in, void* out, std::size_t shard, DType dtype, Reduce reduce) override {
    if (adds(dtype, DType::f32)) return reduce_shards(static_cast<float*>(in), static_cast<float*>(out), shard, reduce);
    if (adds(dtype, DType::bf16)) return reduce_shards(static_cast<Bf16*>(in), static_cast<Bf16*>(out), shard, reduce);
    if (adds(dtype, DType::f16)) return reduce_shards(static_cast<F16*>(in), static_cast<F16*>(out), shard, reduce);
    require_others_below(dtype);
    below_->reduce_scatter(in, out, shard, dtype, reduce);
  }

  void all_gather(const void* in, void* out, std::size_t shard, DType dtype) override {
    below_->all_gather(in, out, shard, dtype);
  }
  void broadcast(void* inout, std::size_t count, DType dtype, int root) override {
    below_->broadcast(inout, count, dtype, root);
  }
  // Whoever sits on top has the slots behind our own.
  void reserve(int slots) override { below_->reserve(own_slots() + slots); }
  void post_send(int slot, int to, int lane, const void* data, std::size_t bytes) override {
    below_->post_send(own_slots() + slot, to, lane, data, bytes);
  }
  void post_receive(int slot, int from, int lane, void* data, std::size_t bytes) override {
    below_->post_receive(own_slots() + slot, from, lane, data, bytes);
  }
  void wait(int first, int count) override { below_->wait(own_slots() + first, count); }

 private:
  struct Piece {
    std::size_t begin, count;
  };
  // Kinds of transfers in flight; two rounds of each at once.
  enum Kind { shard_in, shard_out, sum_in, sum_out };

  bool adds(DType dtype, DType one) const { return dtype == one && !(dtype == DType::f32 && options_.f32_below); }
  void require_others_below(DType dtype) const {
    if (!options_.others_below && !(dtype == DType::f32 && options_.f32_below))
      throw CommError("the fixed order adds float32, bfloat16 and float16 only, not " + std::string(name_of(dtype)));
  }

  template <class Element>
  void reduce_all(Element* data, std::size_t count, Reduce reduce) {
    if (ranks_ == 1 || count == 0) return;
    // Rounds of at most a chunk a rank; the last is cut evenly. Any cut gives the same bits: each element is summed by
    // one tree, whoever does it.
    const std::size_t round = chunk<Element>() * static_cast<std::size_t>(ranks_);
    const std::size_t rounds = (count + round - 1) / round;
    const auto piece = [&](std::size_t r, int owner) { return piece_of(count, r * round, round, owner); };
    post_shards(data, 0, piece);
    for (std::size_t r = 0; r < rounds; ++r) {
      if (r + 1 < rounds) post_shards(data, r + 1, piece);
      const Piece mine = piece(r, rank());
      below_->wait(slot(shard_in, r), peers_);
      sum_into(data + mine.begin, mine, data + mine.begin, r, reduce);
      below_->wait(slot(shard_out, r), peers_);  // the pieces sent are overwritten from here on
      if (r > 0) wait_sums(r - 1);
      for (int i = 0; i < peers_; ++i) {
        const int peer = peer_of(i);
        const Piece theirs = piece(r, peer);
        below_->post_receive(slot(sum_in, r) + i, peer, 1, data + theirs.begin, theirs.count * sizeof(Element));
        below_->post_send(slot(sum_out, r) + i, peer, 1, data + mine.begin, mine.count * sizeof(Element));
      }
    }
    wait_sums(rounds - 1);
  }

  template <class Element>
  void reduce_shards(Element* data, Element* result, std::size_t shard, Reduce reduce) {
    const std::size_t most = chunk<Element>();
    const std::size_t rounds = (shard + most - 1) / most;
    const auto piece = [&](std::size_t r, int owner) {
      return Piece{static_cast<std::size_t>(owner) * shard + r * most, std::min(most, shard - r * most)};
    };
    if (rounds > 0) post_shards(data, 0, piece);
    for (std::size_t r = 0; r < rounds; ++r) {
      if (r + 1 < rounds) post_shards(data, r + 1, piece);
      const Piece mine = piece(r, rank());
      below_->wait(slot(shard_in, r), peers_);
      sum_into(data + mine.begin, mine, result + r * most, r, reduce);
      below_->wait(slot(shard_out, r), peers_);
    }
  }

  int own_slots() const { return 8 * peers_; }
  int slot(Kind kind, std::size_t round) const {
    return (static_cast<int>(kind) * 2 + static_cast<int>(round % 2)) * peers_;
  }
  // Every rank starts with another peer, so that not all send to rank 0 first.
  int peer_of(int i) const { return (rank() + 1 + i) % ranks_; }
  /// Elements of a chunk.
  template <class Element>
  std::size_t chunk() const {
    return chunk_ / sizeof(Element);
  }
  template <class Element>
  Element* received(std::size_t round, int i) {
    const std::size_t place = round % 2 * static_cast<std::size_t>(peers_) + static_cast<std::size_t>(i);
    return reinterpret_cast<Element*>(received_.data() + place * chunk_);
  }

  Piece piece_of(std::size_t total, std::size_t begin, std::size_t round, int owner) const {
    const std::size_t size = std::min(round, total - begin), n = static_cast<std::size_t>(ranks_);
    const std::size_t lo = size * static_cast<std::size_t>(owner) / n,
                      hi = size * (static_cast<std::size_t>(owner) + 1) / n;
    return {begin + lo, hi - lo};
  }

  template <class Element, class PieceOf>
  void post_shards(const Element* data, std::size_t round, PieceOf piece) {
    const Piece mine = piece(round, rank());
    for (int i = 0; i < peers_; ++i) {
      const int peer = peer_of(i);
      const Piece theirs = piece(round, peer);
      below_->post_receive(slot(shard_in, round) + i, peer, 0, received<Element>(round, i),
                           mine.count * sizeof(Element));
      below_->post_send(slot(shard_out, round) + i, peer, 0, data + theirs.begin, theirs.count * sizeof(Element));
    }
  }

  template <class Element>
  void sum_into(const Element* own, Piece mine, Element* out, std::size_t round, Reduce reduce) {
    std::vector<const Element*>& parts = std::get<std::vector<const Element*>>(parts_);
    parts[static_cast<std::size_t>(rank())] = own;
    for (int i = 0; i < peers_; ++i) parts[static_cast<std::size_t>(peer_of(i))] = received<Element>(round, i);
    reduce_parts(parts.data(), ranks_, mine.count, reduce, out, scratch_.data());
  }

  void wait_sums(std::size_t round) {
    below_->wait(slot(sum_in, round), peers_);
    below_->wait(slot(sum_out, round), peers_);
  }

  std::unique_ptr<Communicator> below_;
  int ranks_, peers_;
  FixedOrderOptions options_;
  std::size_t chunk_ = 0;            // bytes
  std::vector<std::byte> received_;  // elements of either type
  std::vector<float> scratch_;
  std::tuple<std::vector<const float*>, std::vector<const Bf16*>, std::vector<const F16*>> parts_;
};

}  // namespace

std::unique_ptr<Communicator> make_fixed_order(std::unique_ptr<Communicator> below, FixedOrderOptions options) {
  return std::make_unique<FixedOrder>(std::move(below), options);
}

}  // namespace dtrain::comm
