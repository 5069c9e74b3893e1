#include "launch/plan/memory_fit.hpp"

#include <bit>

#include <fmt/format.h>

#include "runtime/optim/matrices.hpp"

namespace dtrain::launch {

MemoryUse run_memory(const RunConfig& config, const Plan& plan, int ranks, std::int64_t accumulation) {
  MemoryUse use = memory_use(plan, state_count(config.optimizer), config.optimizer.shard ? ranks : 1);
  use.optimizer += matrix_scratch(plan.layout);
  if (config.train.ema.decay > 0) use.optimizer += plan.layout.total_floats() * sizeof(float);
  // Micro batches that wait for others in the tree.
  if (config.deterministic == Deterministic::elastic)
    use.gradients *= static_cast<std::size_t>(std::bit_width(static_cast<std::uint64_t>(accumulation)));
  return use;
}

std::int64_t largest_micro_batch(const RunConfig& config, int ranks, std::int64_t micro, std::size_t bytes) {
  const std::int64_t part = config.batch.global / ranks, unit = config.batch.schedule().unit() / ranks;
  for (std::int64_t smaller = micro - 1; smaller >= 1; --smaller) {
    if (unit % smaller != 0) continue;
    const Plan plan = make_plan(training_graph(config, smaller), plan_options(config, ranks));
    if (run_memory(config, plan, ranks, part / smaller).total() <= bytes) return smaller;
  }
  return 0;
}

std::string memory_advice(const RunConfig& config, int ranks, std::int64_t micro, std::size_t bytes) {
  if (const std::int64_t fits = largest_micro_batch(config, ranks, micro, bytes); fits > 0)
    return fmt::format("batch.micro: {} would fit into the {:.0f} MiB that are free, as far as can be planned", fits,
                       static_cast<double>(bytes) / (1 << 20));
  return fmt::format(
      "no micro batch would fit into the {:.0f} MiB that are free: memory.recompute: block needs less, "
      "and optimizer.shard with more ranks",
      static_cast<double>(bytes) / (1 << 20));
}

}  // namespace dtrain::launch
