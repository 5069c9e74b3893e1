#include "comm/collective/reducer.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

#include <gtest/gtest.h>

#include "comm/world/local.hpp"
#include "runtime/optim/update.hpp"
#include "tests/comm/collective/reducer_suite.hpp"
#include "tests/comm/collective/suite.hpp"
#include "tests/support/allocations.hpp"

namespace dtrain::comm {
namespace {

FlatLayout layout_of(std::size_t floats, int buckets) {
  FlatLayout layout;
  layout.params.push_back({0, "weight", Shape{static_cast<std::int64_t>(floats)}, 0, floats, true});
  layout.param_floats = floats;
  const std::size_t total = layout.total_floats(), n = static_cast<std::size_t>(buckets);
  for (std::size_t b = 0; b < n; ++b) layout.buckets.push_back({total * b / n, total * (b + 1) / n});
  return layout;
}

void fill(const ParameterStore& store, int rank, std::size_t bucket, int step) {
  const Bucket& b = store.layout().buckets[bucket];
  for (std::size_t i = b.begin; i < b.end; ++i) {
    store.gradients()[i] = suite::whole<float>(rank + step, i);
  }
}

void require_sums(const ParameterStore& store, int ranks, int step) {
  for (std::size_t i = 0; i < store.layout().total_floats(); ++i) {
    float sum = 0;
    for (int r = 0; r < ranks; ++r) sum += suite::whole<float>(r + step, i);
    suite::require(store.gradients()[i] == sum, "step {}: sum of gradient {}", step, i);
  }
}

class ReducerOn : public testing::TestWithParam<Algorithm> {};
INSTANTIATE_TEST_SUITE_P(Algorithms, ReducerOn, testing::Values(Algorithm::automatic, Algorithm::fixed_order));

TEST_P(ReducerOn, sums_every_bucket_and_allocates_nothing_from_the_first_step_on) {
  constexpr int ranks = 3, buckets = 5, steps = 4;
  std::uint64_t before = 0, after = 0;
  run_local(ranks, [&](LocalRank& rank) {
    const auto device = make_cpu_device(1);
    const auto compute = device->make_stream(StreamUse::compute);
    const auto collective = rank.make_collective(GetParam());
    const auto group = rank.make_group();
    const ParameterStore store(*device, layout_of(10007 * 16, buckets));
    GradientReducer reducer(*device, *collective, store, {});
    EXPECT_EQ(reducer.bytes_per_step(), store.layout().total_floats() * sizeof(float));
    group->barrier();
    if (rank.rank() == 0) before = test::allocation_count();
    group->barrier();
    for (int step = 0; step < steps; ++step) {
      reducer.begin_step();
      for (int b = 0; b < buckets; ++b) {
        fill(store, rank.rank(), static_cast<std::size_t>(b), step);
        reducer.bucket_ready(b, *compute);
      }
      reducer.wait_all(*compute);
      if (step < steps - 1) continue;
      group->barrier();
      if (rank.rank() == 0) after = test::allocation_count();
      group->barrier();
    }
    require_sums(store, ranks, steps - 1);
  });
  EXPECT_EQ(after - before, 0u);
}

TEST(Reducer, the_first_sum_of_the_first_step_begins_and_ends_while_backward_runs) {
  run_local(2, [&](LocalRank& rank) {
    const auto device = make_cpu_device(1);
    const auto compute = device->make_stream(StreamUse::compute);
    const auto collective = rank.make_collective();
    const ParameterStore store(*device, layout_of(1 << 16, 3));
    GradientReducer reducer(*device, *collective, store, {});
    reducer.begin_step();
    for (int b = 0; b < 3; ++b) {
      fill(store, rank.rank(), static_cast<std::size_t>(b), 0);
      reducer.bucket_ready(b, *compute);
      if (b < 2) std::this_thread::sleep_for(std::chrono::milliseconds(300));  // the rest of backward
    }
    const double backward_end = seconds_now();
    reducer.wait_all(*compute);
    require_sums(store, 2, 0);
    const auto t = reducer.timings();
    EXPECT_LE(t[0].ready, t[0].begin);
    EXPECT_LE(t[0].begin, t[0].end);
    EXPECT_LT(t[0].end, backward_end - 0.2) << "bucket 0 waited for the end of backward";
    EXPECT_LE(t[0].end, t[1].begin);
    // What is exposed is the last bucket, far less than all of it would be behind a slow link.
    EXPECT_LT(reducer.exposed_seconds(), 0.3);
  });
}

TEST(Reducer, time_blocked_on_a_slow_rank_counts_as_exposed) {
  run_local(2, [&](LocalRank& rank) {
    const auto device = make_cpu_device(1);
    const auto compute = device->make_stream(StreamUse::compute);
    const auto collective = rank.make_collective();
    const ParameterStore store(*device, layout_of(1024, 1));
    GradientReducer reducer(*device, *collective, store, {});
    reducer.begin_step();
    if (rank.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(300));
    reducer.bucket_ready(0, *compute);
    reducer.wait_all(*compute);
    if (rank.rank() == 0) EXPECT_GT(reducer.exposed_seconds(), 0.2);
    reducer.begin_step();
    EXPECT_EQ(reducer.exposed_seconds(), 0);
  });
}

TEST(Reducer, sharded_and_narrow_allocates_nothing_either_and_tells_its_bytes) {
  constexpr int ranks = 2, steps = 3;
  std::uint64_t before = 0, after = 0;
  run_local(ranks, [&](LocalRank& rank) {
    const auto device = make_cpu_device(1);
    const auto compute = device->make_stream(StreamUse::compute);
    const auto collective = rank.make_collective(Algorithm::fixed_order);
    const auto group = rank.make_group();
    const ParameterStore store(*device, suite::odd_layout(ranks));
    Optimizer optimizer(*device, {Adam{}}, store.layout(), {rank.rank(), ranks});
    CommConfig config;
    config.gradient_dtype = DType::bf16;
    GradientReducer reducer(*device, *collective, store, config, true);
    EXPECT_EQ(reducer.bytes_per_step(), 2 * store.layout().param_floats + 4 * FlatLayout::extras_for(1, 0));
    const int buckets = static_cast<int>(store.layout().buckets.size());
    StepState state;
    state.sum_weight = 1;
    for (int step = 0; step < steps; ++step) {
      if (step == 1) {
        group->barrier();
        if (rank.rank() == 0) before = test::allocation_count();
        group->barrier();
      }
      reducer.begin_step();
      for (int b = buckets; b-- > 0;) reducer.params_needed(b, *compute);
      for (int b = 0; b < buckets; ++b) reducer.bucket_ready(b, *compute);
      reducer.wait_all(*compute);
      reducer.gather_squares(optimizer.block_squares(store, *compute), *compute);
      for (int b = 0; b < buckets; ++b) optimizer.update_bucket(store, static_cast<std::size_t>(b), state, *compute);
      reducer.gather_parameters(*compute);
    }
    reducer.wait_parameters(*compute);
    group->barrier();
    if (rank.rank() == 0) after = test::allocation_count();
    group->barrier();
  });
  EXPECT_EQ(after - before, 0u);
}

TEST(Reducer, gathers_the_sums_of_all_shards_where_somebody_looks_for_a_bad_one) {
  run_local(3, [&](LocalRank& rank) {
    const auto device = make_cpu_device(1);
    const auto compute = device->make_stream(StreamUse::compute);
    const auto collective = rank.make_collective(Algorithm::fixed_order);
    const ParameterStore store(*device, suite::odd_layout(3));
    GradientReducer reducer(*device, *collective, store, {}, true);
    for (std::size_t b = 0; b < store.layout().buckets.size(); ++b) {
      fill(store, rank.rank(), b, 0);
      reducer.bucket_ready(static_cast<int>(b), *compute);
    }
    reducer.wait_all(*compute);
    reducer.gather_gradients(*compute);
    require_sums(store, 3, 0);
  });
}

TEST(Reducer, with_one_rank_nothing_happens) {
  run_local(1, [&](LocalRank& rank) {
    const auto device = make_cpu_device(1);
    const auto compute = device->make_stream(StreamUse::compute);
    const auto collective = rank.make_collective();
    const ParameterStore store(*device, layout_of(1024, 2));
    GradientReducer reducer(*device, *collective, store, {});
    fill(store, 0, 0, 0);
    fill(store, 0, 1, 0);
    reducer.bucket_ready(0, *compute);
    reducer.bucket_ready(1, *compute);
    reducer.wait_all(*compute);
    require_sums(store, 1, 0);
    EXPECT_EQ(reducer.bytes_per_step(), 0u);
    EXPECT_TRUE(reducer.timings().empty());
  });
}

TEST(Reducer, a_lost_rank_is_an_error_of_wait) {
  EXPECT_THROW(run_local(
                   2,
                   [&](LocalRank& rank) {
                     const auto device = make_cpu_device(1);
                     const auto compute = device->make_stream(StreamUse::compute);
                     const auto collective = rank.make_collective();
                     const ParameterStore store(*device, layout_of(1024, 2));
                     GradientReducer reducer(*device, *collective, store, {});
                     if (rank.rank() == 1) return;
                     reducer.bucket_ready(0, *compute);
                     reducer.wait_all(*compute);
                   },
                   0.3),
               CommError);
}

TEST(Reducer, a_gradient_type_without_a_path_is_refused) {
  run_local(1, [&](LocalRank& rank) {
    const auto device = make_cpu_device(1);
    const auto collective = rank.make_collective();
    const ParameterStore store(*device, layout_of(1024, 2));
    CommConfig config;
    config.gradient_dtype = DType::f16;
    EXPECT_THROW(GradientReducer(*device, *collective, store, config), ConfigError);
  });
}

}  // namespace
}  // namespace dtrain::comm
