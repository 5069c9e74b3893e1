#include "launch/train_step.hpp"

#include <cstddef>

#include "launch/alone.hpp"
#include "launch/clock.hpp"

namespace dtrain::launch {

TrainStep::TrainStep(const RunConfig& config, Engine& engine, Collective& collective, comm::Watchdog& watchdog,
                     StopSignals& stop)
    : config_(config),
      engine_(engine),
      watchdog_(watchdog),
      stop_(stop),
      optimizer_(engine.device(), config.optimizer, engine.store().layout()),
      model_(engine.device(), engine.store(), optimizer_, engine.compute()),
      reducer_(engine.device(), collective, engine.store(), config.communication) {}

bool TrainStep::run(RunStatus& status, io::Loader& loader, std::int64_t accumulation, bool logged,
                    PhaseSeconds& seconds) {
  const auto deadline = status.step == status.first_step ? comm::Deadline::first_step : comm::Deadline::step;
  const auto doing = [&](const char* phase) {
    watchdog_.beat(phase, static_cast<std::uint64_t>(status.step + 1), deadline);
  };
  const auto begin = Clock::now();
  state_.step = static_cast<std::uint64_t>(status.step);
  state_.applied_steps = status.applied;
  state_.seed = config_.seed;
  state_.first_position = static_cast<std::uint64_t>(status.step * config_.batch.global);
  state_.learning_rate = static_cast<float>(
      learning_rate(config_.schedule, base_learning_rate(config_.optimizer), status.step, status.total_steps));
  state_.gradient_scale = 1;
  reducer_.begin_step();
  for (std::int64_t j = 0; j < accumulation; ++j) {
    const Pass pass{Mode::train, j == 0, j + 1 == accumulation};
    const int slot = static_cast<int>(j % Program::slots);
    doing("data");
    alone([&] {
      load(loader, slot, status.step);
      if (pass.last) model_.wish_to_stop(stop_.pending());
    });
    doing("forward and backward");
    alone([&] { engine_.program().run(pass, slot, engine_.store(), state_, reducer_, engine_.compute()); });
    const auto s = engine_.program().seconds();
    seconds.forward += s.forward;
    seconds.backward += s.backward;
  }
  const auto update_begin = Clock::now();
  doing("update");
  const float* const sums = alone([&] {
    update(logged);
    return model_.read_sums();
  });
  const double exposed = reducer_.exposed_seconds();
  seconds.communication_exposed += exposed;
  seconds.optimizer += since(update_begin) - exposed;
  status.loss = static_cast<double>(sums[loss_sum]) / static_cast<double>(sums[weight_sum]);
  ++status.applied;
  seconds.step += since(begin);
  return model_.stop_wished();
}

void TrainStep::load(io::Loader& loader, int slot, std::int64_t step) {
  const io::Batch& batch = engine_.feed().next(loader, engine_.program().slot(slot));
  if (sample_log_.is_open()) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(batch.valid); ++i)
      sample_log_ << step << ' ' << batch.positions.as<std::uint64_t>()[i] << ' ' << batch.indices[i] << '\n';
    sample_log_.flush();
  }
  engine_.feed().give_back(loader);
}

/// Sums arrive bucket by bucket; without a norm to wait for, each is applied as it comes.
void TrainStep::update(bool logged) {
  const ParameterStore& store = engine_.store();
  Stream& compute = engine_.compute();
  const auto& buckets = store.layout().buckets;
  state_.sum_weight = static_cast<float>(config_.batch.global);  // every training sample weighs 1
  const double max_norm = config_.train.clip.max_norm;
  if (max_norm <= 0 && !logged) {
    for (std::size_t b = 0; b < buckets.size(); ++b) {
      reducer_.wait(static_cast<int>(b), compute);
      optimizer_.update(store, buckets[b].begin, buckets[b].end, state_, compute);
    }
  } else {
    reducer_.wait_all(compute);
    state_.grad_norm =
        static_cast<float>(optimizer_.gradient_norm(store, compute) / static_cast<double>(state_.sum_weight));
    if (max_norm > 0 && state_.grad_norm > max_norm)
      state_.gradient_scale = static_cast<float>(max_norm / static_cast<double>(state_.grad_norm));
    optimizer_.update(store, 0, store.layout().param_floats, state_, compute);
  }
  engine_.pack();
}

}  // namespace dtrain::launch
