// Sums over ranks on an asynchronous device: when each was ready, under way and waited for, from
// events on its streams, of recorded steps and of others; and where a device is, without asking it.
#include "comm/collective/bucket_timers.hpp"

#include <atomic>
#include <chrono>
#include <thread>

#include <gtest/gtest.h>

#include "comm/collective/reducer.hpp"
#include "comm/world/local.hpp"
#include "runtime/device/cuda_graph_cache.hpp"
#include "tests/comm/collective/suite.hpp"
#include "tests/support/allocations.hpp"
#include "tests/support/async_device.hpp"

namespace dtrain::comm {
namespace {

using test::AsyncDevice;

/// The ranks' host memory in place of the device's, which only the device's own work can touch.
class OnAsyncDevice final : public Collective {
 public:
  explicit OnAsyncDevice(std::unique_ptr<Collective> inner) : inner_(std::move(inner)) {}
  int rank() const noexcept override { return inner_->rank(); }
  int size() const noexcept override { return inner_->size(); }
  void all_reduce(Tensor t, Reduce r, Stream& s) override { inner_->all_reduce(real(t), r, s); }
  void reduce_scatter(Tensor in, Tensor out, Reduce r, Stream& s) override {
    inner_->reduce_scatter(real(in), real(out), r, s);
  }
  void all_gather(Tensor in, Tensor out, Stream& s) override { inner_->all_gather(real(in), real(out), s); }
  void broadcast(Tensor t, int root, Stream& s) override { inner_->broadcast(real(t), root, s); }
  bool recordable() const noexcept override { return true; }

 private:
  static Tensor real(Tensor t) {
    t.data = AsyncDevice::real(t.data);
    return t;
  }
  std::unique_ptr<Collective> inner_;
};

constexpr int buckets = 3;
constexpr double late = 0.12;  // seconds: more than a loaded machine is late

FlatLayout layout_of_three(int shards) {
  FlatLayout layout;
  const std::size_t unit = norm_block * static_cast<std::size_t>(shards), floats = buckets * unit;
  layout.params.push_back({0, "weight", Shape{static_cast<std::int64_t>(floats)}, 0, floats, true});
  layout.param_floats = floats;
  for (std::size_t b = 0; b < buckets; ++b) layout.buckets.push_back({b * unit, (b + 1) * unit});
  layout.buckets.back().end = layout.total_floats();
  return layout;
}

void work_for(double seconds, Stream& stream) {
  stream.host(HostTask::of([seconds] { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }));
}

/// A rank of two: the second is late with its last bucket.
struct Rank {
  Rank(LocalRank& r, bool sharded)
      : rank(r.rank()),
        compute(device.make_stream(StreamUse::compute)),
        collective(r.make_collective(Algorithm::fixed_order)),
        store(device, layout_of_three(sharded ? r.size() : 1)),
        step(device, sizeof(std::uint64_t)),
        host_step(device, sizeof(std::uint64_t)),
        origin(device.make_timer()),
        timers(device, buckets, sharded),
        reducer(device, collective, store, {}, sharded),
        cache(device, true) {
    device.zero(store.gradients(), store.layout().total_floats() * sizeof(float), *compute);
    reducer.follow(static_cast<const std::uint64_t*>(step.data()));
  }
  ~Rank() { compute->synchronize(); }  // which may wait for events of the reducer
  Rank(const Rank&) = delete;
  Rank& operator=(const Rank&) = delete;

  void give_step(std::uint64_t number, bool timed, bool recorded) {
    // The copy of an earlier step may not have begun yet: it takes either number.
    std::atomic_ref(*static_cast<std::uint64_t*>(host_step.data())).store(number);
    device.copy(step.data(), host_step.data(), sizeof number, *compute);
    reducer.begin_step(timed ? &timers : nullptr);
    compute->record(*origin);
    const auto work = [&] {
      for (int b = buckets; b-- > 0;) reducer.params_needed(b, *compute);
      for (int b = 0; b < buckets; ++b) {
        work_for(0.001, *compute);
        if (rank == 1 && b == buckets - 1) work_for(late, *compute);
        reducer.bucket_ready(b, *compute);
      }
      reducer.wait_all(*compute);
      work_for(0.001, *compute);
      reducer.gather_parameters(*compute);
    };
    if (recorded) {
      cache.run(timed ? 1 : 0, *compute, work);
    } else {
      work();
    }
  }

  AsyncDevice device;
  const int rank;
  std::unique_ptr<Stream> compute;
  OnAsyncDevice collective;
  ParameterStore store;
  Buffer step;
  HostBuffer host_step;
  std::unique_ptr<Event> origin;
  BucketTimers timers;
  GradientReducer reducer;
  CudaGraphCache cache;
};

void expect_in_order(const Rank& rank, const char* what) {
  SCOPED_TRACE(fmt::format("rank {}, {}", rank.rank, what));
  double sums_end = 0, exposed = 0;
  for (const BucketTiming& t : rank.timers.timings()) {
    EXPECT_GT(t.ready, 0);
    EXPECT_LE(t.ready, t.begin);
    EXPECT_LE(sums_end, t.begin);  // one after the other
    EXPECT_LE(t.begin, t.end);
    EXPECT_LE(t.wanted, t.there);
    EXPECT_LE(t.end, t.there);  // nobody goes on before
    EXPECT_LE(rank.timers.timings().back().ready, t.wanted);
    sums_end = t.end;
    exposed += t.exposed();
  }
  EXPECT_DOUBLE_EQ(rank.timers.exposed_sums(), exposed);
  if (rank.rank != 0) return;
  // The first buckets were summed while the other rank worked; for the last one this rank waited.
  const BucketTiming& last = rank.timers.timings().back();
  EXPECT_GT(last.exposed(), late / 2);
  EXPECT_GT(last.end - last.begin, late / 2);
  EXPECT_LT(rank.timers.timings()[0].end, last.begin);
  EXPECT_EQ(rank.timers.timings()[0].exposed() + rank.timers.timings()[1].exposed() + last.exposed(), exposed);
}

TEST(BucketTimers, tell_when_each_sum_was_ready_under_way_and_exposed_in_replays_too) {
  run_local(2, [](LocalRank& local) {
    Rank rank(local, false);
    for (std::uint64_t step = 0; step < 4; ++step) {  // as it is, recorded, replayed twice
      rank.give_step(step, true, true);
      rank.compute->synchronize();
      rank.timers.read(*rank.origin);
      expect_in_order(rank, fmt::format("step {}", step).c_str());
      EXPECT_EQ(rank.reducer.reached().step, step);
      EXPECT_EQ(rank.reducer.reached().bucket, buckets - 1);
    }
    EXPECT_EQ(rank.device.recordings, 1);
    EXPECT_EQ(rank.device.replays, 3);
  });
}

TEST(BucketTimers, nothing_is_allocated_or_waited_for_whether_a_step_is_timed_or_not) {
  run_local(2, [](LocalRank& local) {
    Rank rank(local, false);
    std::uint64_t step = 0;
    const auto some = [&] {
      for (int i = 0; i < 3; ++i)
        for (const bool timed : {true, false}) rank.give_step(step++, timed, true);
    };
    some();
    rank.compute->synchronize();
    const auto allocations = test::thread_allocation_count();
    const int on_device = rank.device.allocations, streams = rank.device.stream_waits, events = rank.device.event_waits;
    some();
    EXPECT_EQ(test::thread_allocation_count(), allocations);
    EXPECT_EQ(rank.device.allocations, on_device);
    EXPECT_EQ(rank.device.stream_waits, streams);
    EXPECT_EQ(rank.device.event_waits, events);
    rank.compute->synchronize();
    const auto before_reading = test::thread_allocation_count();
    rank.timers.read(*rank.origin);
    EXPECT_EQ(test::thread_allocation_count(), before_reading);
  });
}

TEST(BucketTimers, of_shards_tell_what_the_step_waited_for_parameters) {
  run_local(2, [](LocalRank& local) {
    Rank rank(local, true);
    rank.give_step(0, true, false);  // nothing to gather yet
    rank.compute->synchronize();
    rank.timers.read(*rank.origin);
    EXPECT_EQ(rank.timers.exposed_parameters(), 0);
    rank.timers.clear();
    rank.give_step(1, true, false);
    rank.compute->synchronize();
    rank.timers.read(*rank.origin);
    EXPECT_GT(rank.timers.exposed_parameters(), 0);
    expect_in_order(rank, "sharded");
    rank.timers.clear();
    rank.timers.read(*rank.origin);
    EXPECT_EQ(rank.timers.exposed_parameters() + rank.timers.exposed_sums(), 0);
    rank.reducer.wait_parameters(*rank.compute);
  });
}

TEST(Reducer, a_device_that_stands_still_is_where_its_last_sum_began) {
  run_local(2, [](LocalRank& local) {
    Rank rank(local, false);
    EXPECT_EQ(rank.reducer.reached().bucket, -1);
    rank.give_step(7, false, false);
    rank.compute->synchronize();
    rank.device.hold();
    rank.give_step(8, false, false);  // the host goes ahead
    EXPECT_EQ(rank.reducer.reached().step, 7u);
    EXPECT_EQ(rank.reducer.reached().bucket, buckets - 1);
    rank.device.go();
    rank.compute->synchronize();
    EXPECT_EQ(rank.reducer.reached().step, 8u);
  });
}

}  // namespace
}  // namespace dtrain::comm
