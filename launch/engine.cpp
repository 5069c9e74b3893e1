#include "launch/engine.hpp"

#include <algorithm>
#include <thread>
#include <utility>

namespace dtrain::launch {

Engine::Engine(const RunConfig& config, const comm::World& world, std::unique_ptr<Device> device)
    : device_(device ? std::move(device) : make_run_device(config, world)),
      compute_(device_->make_stream(StreamUse::compute)),
      feed_(*device_, *compute_),
      ranks_(world.size()) {}

void Engine::connect(const RunConfig& config, comm::World& world) {
  collective_ = world.make_collective(*device_, config.communication);
  comm::CommConfig of_statistics = config.communication;
  of_statistics.algorithm = comm::Algorithm::automatic;
  statistics_ = world.make_collective(*device_, of_statistics);
}

void Engine::check_ranks() {
  if (collective_) collective_->check();
  if (statistics_) statistics_->check();
}

void Engine::bind(Graph graph, const RunConfig& config) {
  program_ = std::make_unique<Program>(*device_, std::move(graph), plan_options(config, ranks_), statistics_.get());
  program_->wait_after_each_step(config.cuda.synchronous && device_->asynchronous());
  Memory* const memory = collective_ ? collective_->memory() : nullptr;
  store_ = std::make_unique<ParameterStore>(*device_, program_->plan().layout, memory);
}

void Engine::pack(Program::Changed changed) {
  if (device_->asynchronous()) {
    program_->pack(*store_, *compute_, changed);
  } else {
    program_->parameters_changed(changed);
  }
}

void Engine::quiet() noexcept {
  feed_.quiet();
  try {
    compute_->synchronize();
  } catch (...) {  // the results of it were read, or are not wanted
  }
}

int compute_threads(int configured, const comm::World& world) {
  if (configured > 0) return configured;
  const int online = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return std::max(1, std::min(world.cpus(), online / world.local_size()));
}

std::unique_ptr<Device> make_run_device(const RunConfig& config, const comm::World& world) {
  std::string why_none;
  if (config.device == DeviceChoice::cuda ||
      (config.device == DeviceChoice::automatic && cuda_device_count(why_none) > 0))
    return make_device(DeviceKind::cuda, world.local_rank(), 0, cuda_options(config));
  if (config.precision == DType::f16)
    throw ConfigError("precision: float16 needs a GPU, and device: auto is the cpu here; use precision: bfloat16");
  return make_device(DeviceKind::cpu, 0, compute_threads(config.threads, world));
}

}  // namespace dtrain::launch
