#include "launch/plan/scale_model.hpp"

#include <functional>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "runtime/tensor/error.hpp"

namespace dtrain::launch {
namespace {

Cluster cluster(int ranks_per_host) {
  Cluster c;
  c.inside = {"inside", 100e9, 4e-6, false, ""};
  c.network = {"network", 10e9, 10e-6, false, ""};
  c.ranks_per_host = ranks_per_host;
  c.call = 0;
  return c;
}

TEST(Cluster, ALargeSumTakesWhatARingMoves) {
  constexpr double bytes = 1e12;  // latencies vanish
  for (const int n : {2, 4, 8}) {
    const double moved = 2.0 * (n - 1) / n * bytes;
    EXPECT_NEAR(all_reduce_seconds(cluster(8), bytes, n), moved / 100e9, 1e-3) << n << " ranks of one host";
    EXPECT_NEAR(all_reduce_seconds(cluster(1), bytes, n), moved / 10e9, 1e-3) << n << " hosts";
  }
  // Over hosts: both halves inside, and an eighth of the bytes over each card.
  EXPECT_NEAR(all_reduce_seconds(cluster(8), bytes, 32), 2 * 7.0 / 8 * bytes / 100e9 + 1.5 * bytes / 8 / 10e9, 1e-2);
  EXPECT_EQ(all_reduce_seconds(cluster(8), bytes, 1), 0);
}

TEST(Cluster, LatencyGrowsWithRanks) {
  EXPECT_NEAR(all_reduce_seconds(cluster(8), 0, 2), 2 * 4e-6, 1e-12);
  EXPECT_NEAR(all_reduce_seconds(cluster(8), 0, 8), 14 * 4e-6, 1e-12);
  // Between hosts trees: two more steps for twice as many.
  for (int hosts = 2; hosts < 1024; hosts *= 2)
    EXPECT_NEAR(all_reduce_seconds(cluster(1), 0, 2 * hosts) - all_reduce_seconds(cluster(1), 0, hosts), 20e-6, 1e-12);
  Cluster adds = cluster(8);
  adds.inside.adds = true;
  EXPECT_NEAR(all_reduce_seconds(adds, 0, 8), 4e-6, 1e-12);
  EXPECT_EQ(all_reduce_seconds(adds, 0, 8), all_reduce_seconds(adds, 0, 2));
}

TEST(Cluster, IsMonotone) {
  for (const double bytes : {0.0, 1e4, 1e6, 1e8}) {
    for (int n = 1; n < 1024; n *= 2) {
      EXPECT_LE(all_reduce_seconds(cluster(8), bytes, n), all_reduce_seconds(cluster(8), bytes, 2 * n));
      EXPECT_LE(all_reduce_seconds(cluster(8), bytes, n), all_reduce_seconds(cluster(8), bytes + 1e3, n));
      Cluster better = cluster(8), fewer = cluster(8);
      better.network.bytes_per_second *= 2;
      fewer.cards = 2;
      EXPECT_LE(all_reduce_seconds(better, bytes, n), all_reduce_seconds(cluster(8), bytes, n));
      EXPECT_GE(all_reduce_seconds(fewer, bytes, n), all_reduce_seconds(cluster(8), bytes, n));
    }
  }
  Cluster more = cluster(8);
  more.cards = 16;  // a rank uses one
  EXPECT_EQ(all_reduce_seconds(more, 1e8, 16), all_reduce_seconds(cluster(8), 1e8, 16));
}

TEST(Cluster, LinksAreNamesOrRates) {
  EXPECT_NEAR(parse_link("400gbit", "--network").bytes_per_second, 0.92 * 50e9, 1);
  EXPECT_NEAR(parse_link("100mbit", "--network").bytes_per_second, 0.92 * 12.5e6, 1);
  EXPECT_TRUE(parse_link("nvlink", "--link").adds);
  EXPECT_FALSE(parse_link("nvlink3", "--link").adds);
  for (const char* text : {"", "nvlin", "400", "gbit", "-1gbit", "0gbit", "400gbits", "nangbit", "1e99gbit"})
    EXPECT_THROW(parse_link(text, "--network"), ConfigError) << text;
}

TEST(Cluster, TheLargestOfManyDrawsIsKnown) {  // exact means: Harter 1961; the formula is an approximation
  EXPECT_EQ(expected_largest(1), 0);
  EXPECT_NEAR(expected_largest(2), 0.5642, 0.03);
  EXPECT_NEAR(expected_largest(8), 1.4236, 0.02);
  EXPECT_NEAR(expected_largest(100), 2.5076, 0.02);
}

class ScaleModels : public ::testing::Test {
 protected:
  static LoadedConfig config(const char* communication = "{}") {
    return parse_config(std::string("name: x\nmodel: {input: [1000], layers: [dense: {units: 1000}, dense: {units: "
                                    "1000}, dense: {units: 10}], loss: cross_entropy}\ndata: {train: x.h5}\nbatch: "
                                    "{global: 8192}\ncommunication: ") +
                            communication + "\n",
                        "x.yaml");
  }
  static ClusterOptions options() {
    ClusterOptions o;
    o.link = "nvlink";
    o.network = "400gbit";
    o.flops = "1t";
    o.efficiency = 0.5;
    o.jitter = 0;
    return o;
  }
};

TEST_F(ScaleModels, RowsGoFromOneHostToAll) {
  const ScaleModel m = model_scaling(config(), options(), nullptr, 64, 0);
  ASSERT_EQ(m.rows.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(m.rows[i].ranks, 8 << i);
    EXPECT_EQ(m.rows[i].hosts, 1 << i);
    EXPECT_GT(m.rows[i].efficiency, 0);
    EXPECT_LT(m.rows[i].efficiency, 1);
    if (i > 0) {
      EXPECT_LE(m.rows[i].efficiency, m.rows[i - 1].efficiency * 1.005);  // cuts are chosen to half a percent
    }
    EXPECT_NEAR(m.rows[i].samples_per_second, 128.0 * m.rows[i].ranks / m.rows[i].step, 1e-6);
    EXPECT_NEAR(m.rows[i].efficiency, m.compute / m.rows[i].step, 1e-12);
    EXPECT_NEAR(m.rows[i].against_host, m.rows[i].efficiency / m.rows[0].efficiency, 1e-12);
  }
  // 128 samples of 2 x 2.01 million operations forward; backward twice that, but for the first layer's input.
  EXPECT_NEAR(m.compute, 128 * (3 * 2 * 2.01e6 - 2e6) / 0.5e12, 0.01 * m.compute);
  EXPECT_NE(m.rows[0].published.find("97.8 %"), std::string::npos);
  EXPECT_EQ(m.rows[1].published, "");
  const auto json = to_json(m);
  EXPECT_EQ(json["rows"].size(), 4u);
  EXPECT_TRUE(json["modelled"].get<bool>());
  EXPECT_NE(text_of(m).find("Modelled, not measured"), std::string::npos);
}

TEST_F(ScaleModels, WithoutOverlapASlowLinkAddsItsTime) {
  ClusterOptions o = options();
  o.network = "1gbit";
  o.processor = 0;
  const LoadedConfig one_bucket = config("{bucket_mib: 100, last_bucket_mib: 100, least_buckets: 1}");
  const ScaleModel m = model_scaling(one_bucket, o, nullptr, 2, 1);
  ASSERT_EQ(m.rows.size(), 2u);
  EXPECT_EQ(m.rows[0].ranks, 1);
  EXPECT_EQ(m.rows[0].step, m.compute);
  EXPECT_EQ(m.rows[1].buckets.buckets, 1u);
  const double bytes = 4.0 * (2 * 1001000 + 10010);
  EXPECT_NEAR(m.rows[1].communication, bytes / (0.92 * 125e6), 1e-3);
  EXPECT_NEAR(m.rows[1].step, m.compute + m.rows[1].communication, 1e-9);
  EXPECT_NEAR(m.rows[1].exposed, m.rows[1].communication, 1e-9);
  o.jitter = 0.1;
  EXPECT_NEAR(model_scaling(one_bucket, o, nullptr, 2, 1).rows[1].step,
              m.rows[1].step + 0.1 * expected_largest(2) * m.compute, 1e-9);
}

TEST_F(ScaleModels, ComputationMayBeMeasured) {
  const LoadedConfig loaded = config();
  Profile profile;
  StepProfile s;
  s.work = work_hash(loaded);
  s.micro = 1024;
  s.ranks_on_host = 8;
  s.cpus = 4;
  s.forward = 1;
  s.backward = 2;
  s.update = 0.5;
  s.ready = {2};
  s.ends = {8e6};
  profile.steps.push_back(s);
  ClusterOptions o = options();
  o.flops.clear();
  const ScaleModel m = model_scaling(loaded, o, &profile, 8, 8);
  EXPECT_EQ(m.compute, 3.5);
  EXPECT_GT(m.rows[0].step, 3.5);
  EXPECT_LT(m.rows[0].step, 3.51);
}

TEST_F(ScaleModels, SaysWhichOptionIsMissing) {
  const auto error = [](const std::function<void(ClusterOptions&)>& change) -> std::string {
    ClusterOptions o = options();
    change(o);
    try {
      model_scaling(config(), o, nullptr, 64, 0);
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(error([](auto&) {}), "");
  EXPECT_NE(error([](auto& o) { o.link.clear(); }).find("--link"), std::string::npos);
  EXPECT_NE(error([](auto& o) { o.network.clear(); }).find("--network"), std::string::npos);
  EXPECT_NE(error([](auto& o) { o.flops.clear(); }).find("--flops"), std::string::npos);
  EXPECT_NE(error([](auto& o) { o.flops = "fast"; }).find("--flops"), std::string::npos);
}

}  // namespace
}  // namespace dtrain::launch
