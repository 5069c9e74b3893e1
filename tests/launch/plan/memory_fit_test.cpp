#include "launch/plan/memory_fit.hpp"

#include <gtest/gtest.h>

#include "launch/config/config_file.hpp"
#include "models/model/build.hpp"

namespace dtrain::launch {
namespace {

RunConfig config() {
  return parse_config(
             "name: x\nmodel: {input: [1, 8, 8], layers: [conv2d: {filters: 16, kernel: 3}, flatten, dense: "
             "{units: 2}], loss: cross_entropy}\ndata: {train: x.h5}\nbatch: {global: 48}\n"
             "optimizer: {adam: {}}\n",
             "x.yaml")
      .config;
}

std::size_t needed(const RunConfig& c, std::int64_t micro) {
  const Plan plan = make_plan(models::build(c.model, micro, c.precision), plan_options(c, 1));
  return run_memory(c, plan, 1, 48 / micro).total();
}

TEST(MemoryFit, finds_the_largest_divisor_that_fits) {
  const RunConfig c = config();
  EXPECT_EQ(largest_micro_batch(c, 1, 48, needed(c, 48)), 24);  // below what was tried
  EXPECT_EQ(largest_micro_batch(c, 1, 48, needed(c, 16)), 16);
  EXPECT_EQ(largest_micro_batch(c, 1, 48, needed(c, 16) - 1), 12);
  EXPECT_EQ(largest_micro_batch(c, 2, 24, needed(c, 16)), 12);  // two ranks have 24 samples each
  EXPECT_EQ(largest_micro_batch(c, 1, 48, needed(c, 1) - 1), 0);
}

TEST(MemoryFit, says_what_to_do) {
  const RunConfig c = config();
  EXPECT_TRUE(memory_advice(c, 1, 48, needed(c, 16)).starts_with("batch.micro: 16 would fit into the "));
  EXPECT_TRUE(memory_advice(c, 1, 48, 1).starts_with("no micro batch would fit into the 0 MiB"));
}

TEST(MemoryFit, counts_averages_and_trees) {
  RunConfig c = config();
  const Plan plan = make_plan(models::build(c.model, 12, c.precision), plan_options(c, 1));
  const MemoryUse plain = run_memory(c, plan, 1, 4);
  c.train.ema.decay = 0.9;
  c.deterministic = Deterministic::elastic;
  const MemoryUse more = run_memory(c, plan, 1, 4);
  EXPECT_EQ(more.optimizer, plain.optimizer + plan.layout.total_floats() * sizeof(float));
  EXPECT_EQ(more.gradients, 3 * plain.gradients);
}

}  // namespace
}  // namespace dtrain::launch
