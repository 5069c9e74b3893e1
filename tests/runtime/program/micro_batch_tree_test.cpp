// Bits of micro batches that are added in a tree, and of trees of trees.
#include "runtime/program/micro_batch_tree.hpp"

#include <cstring>
#include <functional>

#include <gtest/gtest.h>

#include "runtime/random/rng.hpp"
#include "runtime/tensor/error.hpp"
#include "tests/support/reachable_device.hpp"

namespace dtrain {
namespace {

/// Floats of many magnitudes and both signs: another order of adding gives other bits.
float rough(int micro_batch, std::size_t i) {
  const Random4 r = draw4(random_key(5, Purpose::test), i, static_cast<std::uint32_t>(micro_batch), 0);
  const float sign = (r.v[1] & 1u) != 0 ? 1.0f : -1.0f;
  return sign * (0.5f + to_unit(r.v[0])) * static_cast<float>(1u << (r.v[2] % 16));
}

float tree_sum(int lo, int hi, std::size_t i) {
  if (hi - lo == 1) return rough(lo, i);
  const int mid = (lo + hi) / 2;
  return tree_sum(lo, mid, i) + tree_sum(mid, hi, i);
}

class Counted final : public StepHooks {
 public:
  void bucket_ready(int, Stream&) override { ++ready; }
  void params_needed(int, Stream&) override { ++needed; }
  int ready = 0, needed = 0;
};

FlatLayout layout() {
  FlatLayout layout;
  layout.params.push_back({0, "a", Shape{5000}, 0, 5000, true});
  layout.param_floats = 5008;
  layout.buckets = {{0, 1024}, {1024, 2048}, {2048, layout.total_floats()}};
  return layout;
}

class MicroBatchTrees : public test::OnEachDevice {};
DTRAIN_ON_EACH_DEVICE(MicroBatchTrees);

TEST_P(MicroBatchTrees, AddInABalancedTreeStepAfterStep) {
  const auto device = make_device();
  const auto stream = device->make_stream(StreamUse::compute);
  for (int count : {1, 2, 4, 8, 16}) {
    const ParameterStore store(*device, layout());
    Counted hooks;
    MicroBatchTree tree(*device, store, count, hooks);
    const std::size_t n = store.layout().total_floats();
    for (int step = 0; step < 2; ++step) {
      const int first = step * 100;
      for (int j = 0; j < count; ++j) {
        for (std::size_t i = 0; i < n; ++i) store.gradients()[i] = rough(first + j, i);
        tree.params_needed(0, *stream);
        if (j + 1 < count) {
          tree.keep(*stream);
        } else {
          for (int b = 0; b < 3; ++b) tree.bucket_ready(b, *stream);
        }
        stream->synchronize();
      }
      for (std::size_t i = 0; i < n; ++i)
        ASSERT_EQ(store.gradients()[i], tree_sum(first, first + count, i)) << count << " micro batches, element " << i;
    }
    EXPECT_EQ(hooks.ready, 6);
    EXPECT_EQ(hooks.needed, 2 * count);
  }
}

TEST_P(MicroBatchTrees, AreOfAPowerOfTwoAndOfNoMore) {
  const auto device = make_device();
  const auto stream = device->make_stream(StreamUse::compute);
  const ParameterStore store(*device, layout());
  Counted hooks;
  EXPECT_THROW(MicroBatchTree(*device, store, 3, hooks), BugError);
  MicroBatchTree tree(*device, store, 2, hooks);
  EXPECT_THROW(tree.bucket_ready(0, *stream), BugError);
  tree.keep(*stream);
  EXPECT_THROW(tree.keep(*stream), BugError);
}

}  // namespace
}  // namespace dtrain
