// Sums that are measured over ranks that are threads: all see the same figures, in growing sizes, and it ends in time.
#include "launch/plan/bucket_tuning.hpp"

#include <array>
#include <chrono>

#include <gtest/gtest.h>

#include "comm/world/local.hpp"
#include "tests/support/async_device.hpp"

namespace dtrain::launch {
namespace {

constexpr int ranks = 3;

/// Adds, and takes its time: `latency`, and then so many bytes a second.
class SlowCollective final : public Collective {
 public:
  SlowCollective(std::unique_ptr<Collective> real, double latency, double rate)
      : real_(std::move(real)), latency_(latency), rate_(rate) {}
  int rank() const noexcept override { return real_->rank(); }
  int size() const noexcept override { return real_->size(); }
  void all_reduce(Tensor t, Reduce how, Stream& stream) override {
    slow(t, stream);
    real_->all_reduce(t, how, stream);
  }
  void reduce_scatter(Tensor in, Tensor out, Reduce how, Stream& stream) override {
    slow(in, stream);
    real_->reduce_scatter(in, out, how, stream);
  }
  void all_gather(Tensor in, Tensor out, Stream& stream) override {
    slow(out, stream);
    real_->all_gather(in, out, stream);
  }
  void broadcast(Tensor t, int root, Stream& stream) override { real_->broadcast(t, root, stream); }

 private:
  void slow(const Tensor& t, Stream& stream) const {
    const double seconds = latency_ + static_cast<double>(t.bytes()) / rate_;
    stream.host(HostTask::of([seconds] { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }));
  }
  std::unique_ptr<Collective> real_;
  double latency_, rate_;
};

std::array<CommProfile, ranks> measure(bool async, DType wire, bool sharded, double latency, double rate,
                                       std::size_t most, double seconds) {
  std::array<CommProfile, ranks> out;
  comm::run_local(ranks, [&](comm::LocalRank& rank) {
    std::unique_ptr<Device> device;
    if (async)
      device = std::make_unique<test::AsyncDevice>();
    else
      device = make_cpu_device(1);
    const auto group = rank.make_group();
    comm::CommConfig config;
    config.algorithm = comm::Algorithm::fixed_order;
    SlowCollective collective(rank.make_collective(*device, config), latency, rate);
    out[static_cast<std::size_t>(rank.rank())] =
        measure_sums({*group, collective, *device, wire, sharded}, 1, most, seconds);
  });
  return out;
}

TEST(BucketTuning, AllRanksSeeTheSameSums) {
  for (const bool sharded : {false, true}) {
    const auto seen = measure(false, DType::f32, sharded, 2e-3, 5e7, 1 << 20, 5);
    for (const CommProfile& p : seen) {
      ASSERT_EQ(p.points.size(), seen[0].points.size());
      for (std::size_t i = 0; i < p.points.size(); ++i) EXPECT_EQ(p.points[i].seconds, seen[0].points[i].seconds);
    }
    const auto& points = seen[0].points;
    ASSERT_EQ(points.size(), 4u);  // 16 KiB, 64, 256, 1 MiB, each in equal shards of three ranks
    EXPECT_EQ(points[0].bytes, 16384 / 4 / 3 * 3 * 4);
    EXPECT_EQ(points[3].bytes, (1 << 20) / 4 / 3 * 3 * 4);
    for (const auto& point : points) EXPECT_GE(point.seconds, (sharded ? 2 : 1) * 2e-3);
    EXPECT_GT(points[3].seconds, points[0].seconds);
  }
}

TEST(BucketTuning, ASlowLinkEndsItEarly) {
  const auto begin = std::chrono::steady_clock::now();
  const auto seen = measure(false, DType::f32, false, 0, 2e6, 64 << 20, 0.3);  // 64 MiB would take half a minute
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  EXPECT_GE(seen[0].points.size(), 3u);
  EXPECT_LE(seen[0].points.size(), 4u);
}

TEST(BucketTuning, MeasuresOnADeviceBehindTheHostsBack) {
  const auto seen = measure(true, DType::bf16, true, 1e-3, 1e9, 256 << 10, 0.2);
  ASSERT_EQ(seen[0].points.size(), 3u);
  EXPECT_EQ(seen[0].points[0].bytes, 16384 / 2 / 3 * 3 * 2);
  for (const auto& point : seen[0].points) {
    EXPECT_GE(point.seconds, 2e-3);
    EXPECT_EQ(point.processor, 0);
  }
}

TEST(BucketTuning, WhereItIsAskedFor) {
  comm::CommConfig c;
  EXPECT_FALSE(chooses_buckets(c, DeviceKind::cpu, 2));
  EXPECT_TRUE(chooses_buckets(c, DeviceKind::cuda, 2));
  EXPECT_FALSE(chooses_buckets(c, DeviceKind::cuda, 1));
  c.bucket_mib = comm::bucket_auto;
  EXPECT_TRUE(chooses_buckets(c, DeviceKind::cpu, 2));
  c.bucket_mib = 25;
  EXPECT_FALSE(chooses_buckets(c, DeviceKind::cuda, 2));
}

}  // namespace
}  // namespace dtrain::launch
