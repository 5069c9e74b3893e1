// All-reduce in a fixed order: ranks exchange shards in chunks, each sums its own in one pairwise tree over the ranks,
// and gathers the sums; the bits do not depend on arrival, on shards or on how buckets are cut.
// A decorator that owns the communicator below it and a workspace sized at construction; used by one thread at a time.
#pragma once

#include <cstddef>
#include <memory>

#include "comm/collective/communicator.hpp"

namespace dtrain::comm {

struct FixedOrderOptions {
  std::size_t chunk_bytes = 0;  // of one rank's shard in one round; 0: chosen from the number of ranks
  // What is none of f32, bf16 and f16 goes to the communicator below, in its order; otherwise CommError.
  bool others_below = false;
  bool f32_below = false;  // so does f32: what is left are the types that MPI cannot add
};

/// Sums and maxima of f32, bf16 and f16 of all_reduce and reduce_scatter; the rest is passed on. bf16 and f16 are added
/// in f32 and rounded once, to the bits that all ranks get. The tree over ranks [lo, hi) is
/// tree[lo, mid) + tree[mid, hi), mid = lo + the largest power of two below hi - lo: ((0 + 1) + (2 + 3)) + 4.
std::unique_ptr<Communicator> make_fixed_order(std::unique_ptr<Communicator>, FixedOrderOptions = {});

}  // namespace dtrain::comm
