// What the table of fields knows beside types: which settings may change on resume, and which bare names are kinds.
#include <set>
#include <string>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "launch/config/config_file.hpp"

namespace dtrain::launch {
namespace {

TEST(ConfigFields, SayWhetherTheyMayChangeOnResume) {
  const std::vector<std::string> all = may_change_on_resume();
  const std::set<std::string> settings(all.begin(), all.end());
  for (const char* may : {"train",
                          "train.epochs",
                          "train.ema.decay",
                          "log.trace.steps",
                          "checkpoint",
                          "device",
                          "name",
                          "communication.bucket_mib",
                          "batch.micro",
                          "threads",
                          "data.train",
                          "data.eval",
                          "data.prefetch_threads",
                          "data.prefetch_batches",
                          "optimizer.shard",
                          "optimizer.groups",
                          "schedule.decay_steps",
                          "schedule.decay_fraction",
                          "schedule.decay_shape",
                          "optimizer",
                          "optimizer.adam.learning_rate",
                          "schedule",
                          "schedule.decay",
                          "data.augment",
                          "data.inputs.NAME.augment"})
    EXPECT_TRUE(settings.contains(may)) << may;
  for (const char* not_ : {"seed", "precision", "batch", "batch.global", "model", "model.layers", "data",
                           "data.cache_mib", "data.normalize.scale", "deterministic", "memory", "cuda"})
    EXPECT_FALSE(settings.contains(not_)) << not_;
}

TEST(ConfigFields, ABareNameStaysBelowAnOverrideWhereItIsAKind) {
  const std::vector<std::string> overrides{"optimizer.shard=true", "schedule.decay=linear", "train.steps=7",
                                           "model.layers.0.dense.units=5"};
  const RunConfig c = parse_config(
                          "model: {input: [4], layers: [relu, dense: {units: 2}]}\ndata: {train: a.h5}\n"
                          "optimizer: adamw\nschedule: cosine\ntrain: steps\n",
                          "c.yaml", overrides)
                          .config;
  EXPECT_TRUE(std::holds_alternative<AdamW>(c.optimizer.kind) && c.optimizer.shard);
  EXPECT_EQ(c.schedule.decay, Schedule::Decay::linear);
  EXPECT_EQ(c.train.steps, 7);
  EXPECT_EQ(std::get<Dense>(c.model.layers[0].op).units, 5);
}

TEST(ConfigFields, ASectionThatTheCommandLineReplacesIsRemarked) {
  const char* const text =
      "model: {input: [4], layers: [dense: {units: 2}]}\ndata: {train: a.h5}\noptimizer: {adam: {beta1: 0.8}}\n";
  const auto remarks = [&](const std::string& given) {
    return parse_config(text, "c.yaml", std::vector<std::string>{given}).remarks;
  };
  EXPECT_EQ(remarks("optimizer.sgd.learning_rate=0.1"),
            std::vector<std::string>{
                "optimizer.sgd of the command line replaces optimizer.adam of the file, with all its settings"});
  for (const char* other : {"optimizer.adam.learning_rate=0.1", "optimizer={sgd: {learning_rate: 0.1}}",
                            "optimizer=sgd", "optimizer.shard=true", "seed=4"})
    EXPECT_TRUE(remarks(other).empty()) << other;
}

/// A device would round them to 0, to infinity, or on to a bound that is excluded.
TEST(ConfigFields, NumbersAreThoseThatFloat32CanHold) {
  const auto refused = [](const std::string& given) -> std::string {
    try {
      parse_config("model: {input: [4], layers: [dense: {units: 2}]}\ndata: {train: a.h5}\noptimizer: adam\n", "c.yaml",
                   std::vector<std::string>{given});
    } catch (const ConfigError& e) {
      return e.what();
    }
    return {};
  };
  for (const char* given : {"optimizer.adam.epsilon=1e-60", "optimizer.adam.epsilon=1e-39",
                            "optimizer.adam.learning_rate=1e39", "optimizer.adam.beta2=0.99999999999",
                            "data.normalize.scale=1e-60", "data.normalize.mean=[0.5, -1e39]", "train.clip_norm=1e300"})
    EXPECT_NE(refused(given).find(" that float32 can hold"), std::string::npos) << given << ": " << refused(given);
  EXPECT_NE(
      refused("optimizer.adam.epsilon=1e-60")
          .find("optimizer.adam.epsilon: got 1e-60; expected a number above 0 and at most 1 that float32 can hold"),
      std::string::npos)
      << refused("optimizer.adam.epsilon=1e-60");
  for (const char* given : {"optimizer.adam.epsilon=1e-37", "optimizer.adam.beta2=0.9999999",
                            "optimizer.adam.weight_decay=0", "data.normalize.mean=-3e38"})
    EXPECT_EQ(refused(given).find("float32"), std::string::npos) << given << ": " << refused(given);
}

}  // namespace
}  // namespace dtrain::launch
