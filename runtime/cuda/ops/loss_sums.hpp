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
/// A warp for short rows, a block for long ones.
template <class F>
void with_group(std::int64_t row, const F& f) {
  constexpr std::int64_t long_row = 1024;
  if (row > long_row) return f(Width<block_threads>{});
  f(Width<static_cast<int>(warp_size)>{});
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
/// Body<T, size>{place, parts, losses} for each part of the rows, then their sums. Workspace: loss_bytes(rows).
template <template <class, int> class Body, class Place>
void sum_losses(const Launch& where, Element element, const Place& place, bool add, float* out, void* workspace) {
  const std::int64_t parts = loss_parts(place.shape.rows);
  auto* losses = static_cast<RowLoss*>(workspace);
  with_element(element, [&](auto tag) {
    with_group(place.shape.channels, [&](auto group) {
      using F = Body<decltype(tag), decltype(group)::value>;
      launch(where, divide_up(parts, F::groups), F{{}, place, parts, losses});
    });
  });
  launch(where, 1, LossSumsBody{parts, losses, add, out});
}
/// Body<T, size>{place, arguments...} for each row.
template <template <class, int> class Body, class Place, class... Arguments>
void for_loss_rows(const Launch& where, Element element, const Place& place, const Arguments&... arguments) {
  with_element(element, [&](auto tag) {
    with_group(place.shape.channels, [&](auto group) {
      using F = Body<decltype(tag), decltype(group)::value>;
      launch(where, divide_up(place.shape.rows, F::groups), F{{}, place, arguments...});
    });
  });
}

}  // namespace dtrain::cuda
