// What the bodies of losses share: a group of threads, a warp or a block, a row (a position of a sample); then one
// block adds what the groups have in a fixed order. Structs of arguments; see grid.hpp.
#pragma once

#include "runtime/cuda/vector.hpp"
#include "runtime/ops/loss_rows.hpp"

namespace dtrain::cuda {

/// Rows are dealt to groups of `size` threads, each of which adds up what its rows give.
template <int size>
struct RowGroup {
  static constexpr int group = size, threads = block_threads, groups = threads / group;
  static_assert(group == static_cast<int>(warp_size) || group == threads);
  template <class Thread>
  DTRAIN_HOST_DEVICE static std::int64_t index(Thread& t) {
    return t.block() * groups + t.index() / size;
  }
  template <class Thread>
  DTRAIN_HOST_DEVICE static std::int64_t lane(Thread& t) {
    return t.index() % size;
  }
};
template <int size>
struct GroupSize {
  static constexpr int value = size;
};
/// A warp for short rows, a block for long ones.
template <class F>
void with_group(std::int64_t row, const F& f) {
  constexpr std::int64_t long_row = 1024;
  if (row > long_row) return f(GroupSize<block_threads>{});
  f(GroupSize<static_cast<int>(warp_size)>{});
}
template <class Body>
void launch_groups(const Launch& where, std::int64_t groups, const Body& body) {
  launch(where, divide_up(groups, Body::groups), body);
}

/// One block. Sums are written to out[loss_sum_count], or added to it.
struct LossSumsBody {
  static constexpr int threads = block_threads;
  using Shared = GroupShared<threads>;
  std::int64_t parts;
  const RowLoss* losses;
  bool add;
  float* out;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& shared) const {
    RowLoss sum;
    for (std::int64_t p = t.index(); p < parts; p += threads) sum.add(losses[p]);
    const double values[] = {group_sum<threads>(t, shared, sum.loss), group_sum<threads>(t, shared, sum.weight),
                             group_sum<threads>(t, shared, sum.correct), group_sum<threads>(t, shared, sum.top5),
                             group_sum<threads>(t, shared, sum.positions)};
    if (t.index() == 0)
      for (int i = 0; i < 5; ++i) out[i] = add ? out[i] + static_cast<float>(values[i]) : static_cast<float>(values[i]);
  }
};
inline void add_losses(const Launch& where, std::int64_t rows, bool add, float* out, const void* workspace) {
  launch(where, 1, LossSumsBody{loss_parts(rows), static_cast<const RowLoss*>(workspace), add, out});
}

}  // namespace dtrain::cuda
