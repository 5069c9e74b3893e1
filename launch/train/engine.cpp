#include "launch/train/engine.hpp"

#include <utility>

namespace dtrain::launch {

Engine::Engine(const comm::World& world, std::unique_ptr<Device> device)
    : device_(std::move(device)),
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

void Engine::bind(Graph graph, const RunConfig& config, Mode use, std::span<const BatchLayout> layouts) {
  PlanOptions options = plan_options(config, ranks_);
  options.train = use == Mode::train;
  program_ = std::make_unique<Program>(*device_, std::move(graph), options, statistics_.get(), layouts);
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

}  // namespace dtrain::launch
