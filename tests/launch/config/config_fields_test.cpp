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
  for (const char* may : {"train", "train.epochs", "train.ema.decay", "log.trace.steps", "checkpoint", "device", "name",
                          "communication.bucket_mib", "batch.micro", "threads", "data.train", "data.eval",
                          "data.prefetch_threads", "data.prefetch_batches", "optimizer.shard", "optimizer.groups"})
    EXPECT_TRUE(settings.contains(may)) << may;
  for (const char* not_ : {"seed", "precision", "batch", "batch.global", "model", "model.layers", "data",
                           "data.cache_mib", "data.normalize.scale", "optimizer", "optimizer.adam.learning_rate",
                           "schedule", "schedule.decay", "deterministic", "memory", "cuda"})
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

}  // namespace
}  // namespace dtrain::launch
