#include "launch/engine.hpp"

#include <utility>

namespace dtrain::launch {

Engine::Engine(const RunConfig&, const comm::World& world, std::unique_ptr<Device> device)
    : device_(std::move(device)),
      compute_(device_->make_stream(StreamUse::compute)),
      feed_(*device_, *compute_),
      ranks_(world.size()) {}

void Engine::bind(Graph graph, const RunConfig& config, Collective* statistics) {
  program_ = std::make_unique<Program>(*device_, std::move(graph), plan_options(config, ranks_), statistics);
  program_->wait_after_each_step(config.cuda.synchronous && device_->asynchronous());
  store_ = std::make_unique<ParameterStore>(*device_, program_->plan().layout);
}

void Engine::pack() {
  if (device_->asynchronous()) {
    program_->pack(*store_, *compute_);
  } else {
    program_->parameters_changed();
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
