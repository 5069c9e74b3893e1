// batch.warmup: what is refused, and how ranks share batches that grow.
#include <string>

#include <gtest/gtest.h>

#include "launch/config/config_file.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {
namespace {

LoadedConfig with_batch(const std::string& batch) {
  return parse_config("model: {input: [4], layers: [{dense: {units: 2}}]}\ndata: {train: a.h5}\nbatch: " + batch + "\n",
                      "c.yaml");
}

std::string refusal(const std::string& batch) {
  try {
    with_batch(batch);
    return "accepted";
  } catch (const ConfigError& e) {
    return e.problems().at(0).text;
  }
}

TEST(BatchWarmupConfig, SaysWhatDoesNotFit) {
  EXPECT_EQ(refusal("{global: 64, warmup: {from: 16, samples: 1000}}"), "accepted");
  EXPECT_EQ(refusal("{global: 64, warmup: {samples: 1000}}"),
            "batch.warmup.from: 0; expected a batch below batch.global 64, and at least 1");
  EXPECT_EQ(refusal("{global: 64, warmup: {from: 64, samples: 1000}}"),
            "batch.warmup.from: 64; expected a batch below batch.global 64, and at least 1");
  EXPECT_EQ(refusal("{global: 64, warmup: {from: 24, samples: 1000}}"),
            "batch.warmup.increment: 24 does not lead from 24 to batch.global 64; expected a divisor of 40");
  EXPECT_EQ(refusal("{global: 64, warmup: {from: 16}}"),
            "batch.warmup.samples: 0; expected after how many samples the batch is batch.global");
  EXPECT_EQ(refusal("{global: 64, micro: 16, warmup: {from: 16, increment: 8, samples: 9}}"),
            "batch.warmup.increment: 8 is not a multiple of batch.micro 16; expected one, or batch.micro: auto");
  EXPECT_EQ(refusal("{global: 1000000, warmup: {from: 1, samples: 9}}"),
            "batch.warmup.increment: 1 makes 999999 sizes of the batch; expected a larger one, for at most 10000");
  EXPECT_EQ(
      refusal("{global: 64, micro: 16, warmup: {from: 16, samples: 9}}\ndeterministic: elastic"),
      "batch.warmup.from: a batch that grows, with deterministic: elastic, whose tree of micro batches always has "
      "the same size; expected deterministic: run, or no warm-up");
}

TEST(BatchWarmupConfig, RanksShareEachSize) {
  const auto split = [](const std::string& batch, int ranks) -> std::string {
    try {
      const BatchSplit s = check_batch(with_batch(batch), ranks);
      return std::to_string(s.micro) + " x " + std::to_string(s.accumulation);
    } catch (const ConfigError& e) {
      return e.problems().at(0).text;
    }
  };
  const std::string warmup = ", warmup: {from: 16, increment: 24, samples: 1000}}";
  EXPECT_EQ(split("{global: 64" + warmup, 1), "8 x 8");
  EXPECT_EQ(split("{global: 64" + warmup, 4), "2 x 8");
  EXPECT_EQ(split("{global: 64, micro: 4" + warmup, 2), "4 x 8");
  EXPECT_EQ(split("{global: 64" + warmup, 16),
            "batch.warmup: batches that are multiples of 8 cannot be divided among 16 ranks in micro batches of 1; "
            "expected `from` and `increment` to be multiples of 16");
}

TEST(BatchWarmupConfig, IsWrittenWhereThereIsOne) {
  EXPECT_EQ(with_batch("{global: 64}").canonical.find("warmup:"), std::string::npos);
  const LoadedConfig loaded = with_batch("{global: 64, warmup: {from: 16, samples: 1000}}");
  EXPECT_EQ(parse_config(loaded.canonical, "again.yaml").config.batch.warmup, loaded.config.batch.warmup);
  EXPECT_EQ(total_steps(loaded.config, 1000), 39);  // 21 of 16, 11 of 32, 7 of 48
}

}  // namespace
}  // namespace dtrain::launch
