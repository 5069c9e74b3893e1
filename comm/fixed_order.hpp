// All-reduce in a fixed order: ranks exchange shares in chunks, each sums its own in one pairwise tree over the ranks,
// and gathers the sums; the bits do not depend on arrival, on shares or on how buckets are cut.
// A decorator that owns the communicator below it and a workspace sized at construction; used by one thread at a time.
#pragma once

#include <cstddef>
#include <memory>

#include "comm/communicator.hpp"

namespace dtrain::comm {

struct FixedOrderOptions {
  std::size_t chunk_bytes = 0;  // of one rank's share in one round; 0: chosen from the number of ranks
  bool others_below = false;    // what is not f32 goes to the communicator below, in its order; otherwise CommError
};

/// f32 sums and maxima of all_reduce and reduce_scatter; the rest is passed on. The tree over ranks [lo, hi) is
/// tree[lo, mid) + tree[mid, hi), mid = lo + the largest power of two below hi - lo: ((0 + 1) + (2 + 3)) + 4.
std::unique_ptr<Communicator> make_fixed_order(std::unique_ptr<Communicator>, FixedOrderOptions = {});

/// The tree above for parts[0..ranks) of n floats each, into `out`, which may be one of the parts. `scratch`: at least
/// tree_scratch_floats(ranks). Public so that local accumulation can use the same order.
void tree_reduce(const float* const* parts, int ranks, std::size_t n, Reduce, float* out, float* scratch);
std::size_t tree_scratch_floats(int ranks) noexcept;

}  // namespace dtrain::comm
