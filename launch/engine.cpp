#include "launch/engine.hpp"

#include <algorithm>
#include <thread>
#include <utility>

namespace dtrain::launch {

Engine::Engine(const RunConfig& config, const comm::World& world)
    : device_(make_run_device(config, world)),
      compute_(device_->make_stream(StreamUse::compute)),
      feed_(*device_, *compute_),
      ranks_(world.size()) {}

void Engine::bind(Graph graph, const RunConfig& config, Collective* statistics) {
  program_ = std::make_unique<Program>(*device_, std::move(graph), plan_options(config, ranks_), statistics);
  store_ = std::make_unique<ParameterStore>(*device_, program_->plan().layout);
}

int compute_threads(int configured, const comm::World& world) {
  if (configured > 0) return configured;
  const int online = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return std::max(1, std::min(world.cpus(), online / world.local_size()));
}

std::unique_ptr<Device> make_run_device(const RunConfig& config, const comm::World& world) {
  if (config.device == DeviceChoice::cuda)
    return make_device(DeviceKind::cuda, world.local_rank(), 0, cuda_options(config));
  // `auto` means the CPU until the CUDA device has its kernels.
  if (config.precision == DType::f16)
    throw ConfigError("precision: float16 needs a GPU, and device: auto is the cpu here; use precision: bfloat16");
  return make_device(DeviceKind::cpu, 0, compute_threads(config.threads, world));
}

}  // namespace dtrain::launch
