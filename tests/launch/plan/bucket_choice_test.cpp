#include "launch/plan/bucket_choice.hpp"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "launch/config/config.hpp"
#include "launch/plan/predict.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {
namespace {

constexpr double mib = 1 << 20;

/// Sums that take `latency`, and then go at `rate` bytes a second.
SumCosts link(double latency, double rate) {
  return [=](double bytes) { return SumCost{latency + bytes / rate, 0}; };
}

/// 64 MiB of gradients that become complete evenly over a backward of 100 ms.
constexpr GradientSize gradients{16 << 20, FlatLayout::extras_for(1, 0), 1, 1};
RankWork even_work(double backward = 0.1) {
  RankWork work;
  work.before = backward / 2;
  work.backward = backward;
  constexpr std::size_t pieces = 1024;
  for (std::size_t i = 1; i <= pieces; ++i)
    work.complete.push_back({gradients.floats * i / pieces, backward * static_cast<double>(i) / pieces});
  return work;
}

/// The shortest step of all cuts there are.
double shortest(const RankWork& work, const SumCosts& sums) {
  double least = 1e30;
  for (int bucket = -6; bucket <= 6; ++bucket) {
    for (int last = -8; last <= bucket; ++last) {
      const BucketOptions options{
          .bucket_mib = std::ldexp(1.0, bucket), .last_bucket_mib = std::ldexp(1.0, last), .at_least = 1};
      const auto buckets = cut_buckets(gradients.floats, options, gradients.tail);
      if (buckets.size() <= 257) least = std::min(least, simulate(step_model(work, buckets, sums, 1)).seconds);
    }
  }
  return least;
}

TEST(BucketChoice, LatencyMakesBucketsLarge) {
  // 20 ms a call: each bucket costs as much as a fifth of backward.
  const BucketChoice slow = choose_buckets(even_work(), gradients, link(20e-3, 100e9));
  const BucketChoice quick = choose_buckets(even_work(), gradients, link(20e-6, 100e9));
  EXPECT_LE(slow.buckets, 5u);
  EXPECT_GE(slow.options.bucket_mib, 16);
  EXPECT_LT(slow.exposed, 21e-3);  // but for the last one all are hidden
  EXPECT_LT(quick.exposed, 1e-3);
}

TEST(BucketChoice, BandwidthMakesTheLastBucketSmall) {
  // Sums take half of backward: but for the last bucket all is hidden, and that one's bytes are what is waited for.
  const BucketChoice c = choose_buckets(even_work(), gradients, link(10e-6, 64 * mib / 50e-3));
  EXPECT_LE(c.options.last_bucket_mib, 1);
  EXPECT_GT(c.options.bucket_mib, c.options.last_bucket_mib);
  EXPECT_LT(c.step, 0.15 * 1.01);
}

TEST(BucketChoice, WhatIsLimitedByTheLinkBeginsEarly) {
  // Sums take three times as long as backward: the sooner the first bucket is ready the better, so they are small.
  const BucketChoice c = choose_buckets(even_work(), gradients, link(10e-6, 64 * mib / 300e-3));
  EXPECT_LE(c.options.bucket_mib, 2);
  EXPECT_LT(c.step, (0.05 + 0.3) * 1.02);
}

TEST(BucketChoice, IsAsGoodAsTheBestOfAllCuts) {
  for (const double latency : {1e-6, 30e-6, 1e-3, 30e-3})
    for (const double rate : {0.1e9, 1e9, 10e9, 300e9})
      for (const double backward : {1e-3, 30e-3, 1.0}) {
        const RankWork work = even_work(backward);
        const SumCosts sums = link(latency, rate);
        const BucketChoice c = choose_buckets(work, gradients, sums);
        const double best = shortest(work, sums);
        EXPECT_LE(c.step, 1.005 * best) << latency << " s, " << rate << " B/s, " << backward << " s";
        EXPECT_GE(c.step, best * (1 - 1e-12)) << "the shortest of all was not looked at";
        EXPECT_EQ(predicted(c.options, work, gradients, sums).step, c.step);
      }
}

TEST(BucketChoice, OfEqualStepsTakesTheFewestBuckets) {
  const BucketChoice c = choose_buckets(even_work(), gradients, link(0, 1e15));
  EXPECT_EQ(c.buckets, 1u);
}

TEST(BucketChoice, APinnedLastBucketStays) {
  for (const BucketOptions& o : bucket_candidates(gradients, 3)) EXPECT_EQ(o.last_bucket_mib, 3);
  EXPECT_EQ(choose_buckets(even_work(), gradients, link(1e-5, 1e9), 3).options.last_bucket_mib, 3);
}

TEST(BucketChoice, CandidatesAreFewForAnyModel) {
  for (const std::size_t floats : {std::size_t{100}, std::size_t{1} << 20, std::size_t{1} << 33}) {
    const GradientSize size{floats, 16, 8, 1};
    const auto all = bucket_candidates(size);
    EXPECT_GE(all.size(), 1u);
    EXPECT_LE(all.size(), 400u);
    for (const BucketOptions& o : all) {
      EXPECT_EQ(o.shards, 8);
      EXPECT_LE(cut_buckets(floats, o, 16).size(), 258u);
    }
  }
}

TEST(BucketChoice, NumbersThatPinAChoiceCutAlike) {
  const BucketChoice c = choose_buckets(even_work(), gradients, link(1e-4, 1e9));
  RunConfig config;
  set_buckets(config.communication, parse_buckets(text_of(c.options)));
  const auto pinned = cut_buckets(gradients.floats, plan_options(config, 2).buckets, gradients.tail);
  const auto chosen = cut_buckets(gradients.floats, c.options, gradients.tail);
  ASSERT_EQ(pinned.size(), chosen.size());
  for (std::size_t i = 0; i < chosen.size(); ++i) EXPECT_EQ(pinned[i].end, chosen[i].end);
}

TEST(BucketChoice, TextIsReadBackOrRefused) {
  const BucketOptions o = parse_buckets("bucket_mib 0.015625, last_bucket_mib 0.00390625, least_buckets 7");
  EXPECT_EQ(o.bucket_mib, 1.0 / 64);
  EXPECT_EQ(o.last_bucket_mib, 1.0 / 256);
  EXPECT_EQ(o.at_least, 7);
  for (const char* text :
       {"", "bucket_mib 8", "bucket_mib 8, last_bucket_mib 0, least_buckets 1",
        "bucket_mib 8, last_bucket_mib 1, least_buckets 1 ", "bucket_mib inf, last_bucket_mib 1, least_buckets 1",
        "bucket_mib 8, last_bucket_mib 1, least_buckets -1"})
    EXPECT_THROW(parse_buckets(text), CheckpointError) << text;
}

Graph two_layers() {
  Graph graph(8);
  const ValueId x = graph.add_input(PortUse::input, "sample", {DType::f32, Shape{8, 100}});
  const ValueId h = graph.add("first", Dense{.units = 200}, {x});
  const ValueId y = graph.add("second", Dense{.units = 10}, {h});
  const ValueId t = graph.add_input(PortUse::target, "target", {DType::i32, Shape{8}});
  const ValueId w = graph.add_input(PortUse::weight, "weight", {DType::f32, Shape{8}});
  graph.add("loss", SoftmaxCrossEntropy{}, {y, t, w});
  return graph;
}

TEST(BucketChoice, WorkFollowsThePlansCosts) {
  const Plan plan = make_plan(two_layers(), {});
  const RankWork work = work_of(plan, {1e9, 1e30, 0}, 3, 0, 1);
  const double first = 2.0 * 8 * 100 * 200 / 1e9, second = 2.0 * 8 * 200 * 10 / 1e9;
  ASSERT_EQ(work.complete.size(), 4u);                       // weights and biases
  const double loss = work.backward - (first + 2 * second);  // its own operations
  EXPECT_GE(loss, 0);
  EXPECT_LT(loss, second);
  EXPECT_NEAR(work.complete[0].seconds, second + loss, 1e-12);  // parameters before data
  EXPECT_NEAR(work.complete[3].seconds, work.backward, 1e-12);
  EXPECT_EQ(work.complete[3].floats, plan.layout.total_floats());
  EXPECT_NEAR(work.before, 3 * (first + second) + 2 * work.backward, 3 * loss + 1e-12);
  // Where memory is what limits, and each of the optimizer's two states is read and written.
  const RankWork bytes = work_of(plan, {0, 1e6, 0}, 1, 2, 1);
  EXPECT_NEAR(bytes.update, 4.0 * 7 * static_cast<double>(plan.layout.param_floats) / 1e6, 1e-9);
  EXPECT_GT(bytes.backward, 4.0 * 100 * 200 / 1e6);  // the first layer's parameters alone
}

TEST(BucketChoice, ABucketIsReadyWithItsLastParameter) {
  RankWork work;
  work.backward = 10;
  work.complete = {{100, 1}, {300, 4}, {1000, 10}};
  const StepModel m = step_model(work, {{0, 50}, {50, 101}, {101, 300}, {300, 1000}}, link(1, 400), 0.5);
  EXPECT_EQ(m.ready, (std::vector<double>{1, 4, 4, 10}));
  EXPECT_DOUBLE_EQ(m.sum[3], 1 + 700 * 4 * 0.5 / 400);
}

}  // namespace
}  // namespace dtrain::launch
