#include "launch/train_step.hpp"

#include <cstddef>

#include "launch/alone.hpp"
#include "launch/clock.hpp"

namespace dtrain::launch {

namespace {

Shard shard_of(const UpdateRule& rule, const Collective& ranks) {
  return rule.shard ? Shard{ranks.rank(), ranks.size()} : Shard{};
}

std::optional<ParameterAverage> make_average(const RunConfig& config, const Engine& engine) {
  if (config.train.ema.decay <= 0) return std::nullopt;
  return std::optional<ParameterAverage>(std::in_place, engine.device(), config.train.ema.decay,
                                         engine.store().layout());
}

}  // namespace

TrainStep::TrainStep(const RunConfig& config, Engine& engine, Collective& collective, comm::Watchdog& watchdog,
                     StopSignals& stop, std::int64_t accumulation)
    : config_(config),
      engine_(engine),
      watchdog_(watchdog),
      stop_(stop),
      optimizer_(engine.device(), config.optimizer, engine.store().layout(), shard_of(config.optimizer, collective)),
      average_(make_average(config, engine)),
      model_(engine.device(), engine.store(), optimizer_, average(), collective, engine.compute()),
      reducer_(engine.device(), collective, engine.store(), config.communication, config.optimizer.shard),
      ranks_(collective.size()),
      accumulation_(accumulation) {
  if (config.deterministic == Deterministic::elastic)
    tree_.emplace(engine.device(), engine.store(), static_cast<int>(accumulation), reducer_);
}

void TrainStep::settle() {
  alone([&] { reducer_.wait_parameters(engine_.compute()); });
}

std::string TrainStep::first_nonfinite_gradient() {
  return alone([&] {
    reducer_.gather_gradients(engine_.compute());
    return model_.first_nonfinite_gradient();
  });
}

bool TrainStep::run(RunStatus& status, io::Loader& loader, bool logged, PhaseSeconds& seconds) {
  const auto deadline = status.step == status.first_step ? comm::Deadline::first_step : comm::Deadline::step;
  const auto doing = [&](const char* phase) {
    watchdog_.beat(phase, static_cast<std::uint64_t>(status.step + 1), deadline);
  };
  const auto begin = Clock::now();
  state_.step = static_cast<std::uint64_t>(status.step);
  state_.applied_steps = status.applied;
  state_.seed = config_.seed;
  state_.first_position = static_cast<std::uint64_t>(status.step * config_.batch.global);
  state_.learning_rate = static_cast<float>(learning_rate(config_.schedule, base_learning_rate(config_.optimizer),
                                                          config_.batch.global, status.step, status.total_steps));
  state_.gradient_scale = 1;
  state_.micro_batches = static_cast<float>(accumulation_ * ranks_);
  reducer_.begin_step();
  StepHooks& hooks = tree_ ? static_cast<StepHooks&>(*tree_) : reducer_;
  for (std::int64_t j = 0; j < accumulation_; ++j) {
    const Pass pass{Mode::train, j == 0 || tree_, j + 1 == accumulation_};
    const int slot = static_cast<int>(j % Program::slots);
    doing("data");
    const double data_begin = comm::seconds_now();
    alone([&] {
      load(loader, slot, status.step);
      if (pass.last) model_.wish_to_stop(stop_.pending());
    });
    const double data_end = comm::seconds_now();
    doing("forward and backward");
    alone([&] {
      engine_.program().run(pass, slot, engine_.store(), state_, hooks, engine_.compute());
      if (tree_ && !pass.last) tree_->keep(engine_.compute());
    });
    const auto s = engine_.program().seconds();
    seconds.forward += s.forward;
    seconds.backward += s.backward;
    const double backward_begin = s.begin + s.forward;
    note(Activity::data, data_begin, data_end);
    note(Activity::forward, s.begin, backward_begin);
    note(Activity::backward, backward_begin, backward_begin + s.backward);
  }
  // Parameters that were still on their way when forward wanted them.
  const double exposed_forward = reducer_.exposed_seconds();
  seconds.forward -= exposed_forward;
  const auto update_begin = Clock::now();
  doing("update");
  const float* const sums = alone([&] {
    update(logged);
    return model_.read_sums();
  });
  const double exposed = reducer_.exposed_seconds();
  seconds.communication_exposed += exposed;
  seconds.optimizer += since(update_begin) - (exposed - exposed_forward);
  status.loss = static_cast<double>(sums[loss_sum]) / static_cast<double>(sums[weight_sum]);
  ++status.applied;
  const double end = comm::seconds_now();
  note(Activity::update, seconds_of(update_begin), end);
  note(Activity::step, seconds_of(begin), end);
  note_buckets();
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

void TrainStep::wait(int bucket) {
  const double begin = trace_ ? comm::seconds_now() : 0;
  reducer_.wait(bucket, engine_.compute());
  if (trace_ && !reducer_.timings().empty()) note(Activity::exposed, begin, comm::seconds_now(), bucket);
}

void TrainStep::note(Activity activity, double begin, double end, int bucket) {
  if (trace_)
    trace_->add({.begin = begin,
                 .end = end,
                 .step = static_cast<std::int64_t>(state_.step) + 1,
                 .bucket = bucket,
                 .activity = activity});
}

void TrainStep::note_buckets() {
  if (!trace_) return;
  int bucket = 0;
  for (const comm::BucketTiming& t : reducer_.timings()) {
    note(Activity::queued, t.ready, t.begin, bucket);
    note(Activity::sum, t.begin, t.end, bucket++);
  }
}

/// Sums arrive bucket by bucket; without a norm to wait for, each is applied as it comes.
void TrainStep::update(bool logged) {
  const ParameterStore& store = engine_.store();
  Stream& compute = engine_.compute();
  state_.sum_weight = static_cast<float>(config_.batch.global);  // every training sample weighs 1
  const double max_norm = config_.train.clip.max_norm;
  const bool norm = max_norm > 0 || logged, whole = needs_whole_parameters(config_.optimizer);
  const auto buckets = static_cast<int>(store.layout().buckets.size());
  for (int b = 0; b < buckets && (norm || whole); ++b) wait(b);
  if (norm) state_.grad_norm = static_cast<float>(gradient_norm());
  if (max_norm > 0 && state_.grad_norm > max_norm)
    state_.gradient_scale = static_cast<float>(max_norm / static_cast<double>(state_.grad_norm));
  if (whole) {
    optimizer_.update(store, 0, store.layout().param_floats, state_, compute);
  } else {
    for (int b = 0; b < buckets; ++b) {
      if (!norm) wait(b);
      optimizer_.update_bucket(store, static_cast<std::size_t>(b), state_, compute);
    }
  }
  optimizer_.update_states(store, state_, compute);
  reducer_.gather_parameters(compute);
  if (average_) {
    reducer_.wait_parameters(compute);  // each rank averages them all, also those that others updated
    average_->update(store, 0, store.layout().param_floats, state_, compute);
  }
  engine_.pack();
}

double TrainStep::gradient_norm() {
  const auto squares = optimizer_.block_squares(engine_.store(), engine_.compute());
  reducer_.gather_squares(squares, engine_.compute());
  return Optimizer::norm_of(squares) / static_cast<double>(state_.sum_weight);
}

}  // namespace dtrain::launch
