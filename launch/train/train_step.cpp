#include "launch/train/train_step.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>

#include <fmt/format.h>

#include "launch/base/alone.hpp"
#include "launch/base/clock.hpp"
#include "runtime/ops/kernels.hpp"
#include "runtime/optim/step_math.hpp"

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

/// Work of a step may be recorded where nothing but device memory changes between steps.
bool records(const RunConfig& config, const Engine& engine) {
  const Collective& ranks = engine.collective();
  return config.cuda.graphs && !config.cuda.synchronous && engine.device().asynchronous() && ranks.recordable();
}

}  // namespace

TrainStep::TrainStep(const RunConfig& config, Engine& engine, comm::Watchdog& watchdog, StopSignals& stop,
                     std::int64_t accumulation)
    : config_(config),
      engine_(engine),
      watchdog_(watchdog),
      stop_(stop),
      optimizer_(engine.device(), config.optimizer, engine.store().layout(),
                 shard_of(config.optimizer, engine.collective())),
      average_(make_average(config, engine)),
      model_(engine.device(), engine.store(), optimizer_, average(), engine.collective(), engine.compute(),
             config.model.lora.on()),
      memory_(engine.device()),
      timers_(engine.device(), {.micro_batches = accumulation,
                                .buckets = engine.collective().size() > 1 ? engine.store().layout().buckets.size() : 0,
                                .gathers = config.optimizer.shard,
                                .lag = memory_.lag(),
                                .timeline = config.log.trace.steps > 0}),
      reducer_(engine.device(), engine.collective(), engine.store(), config.communication, config.optimizer.shard),
      ranks_(engine.collective().size()),
      gathers_first_(optimizer_.sharded() && engine.device().asynchronous() && !average_),
      accumulation_(accumulation),
      scaling_(loss_scaling(config)),
      graph_cache_(engine.device(), records(config, engine)),
      losses_(engine.plan().graph.loss_rule()),
      counted_(static_cast<std::size_t>(std::popcount(losses_.counted))) {
  if (!optimizer_.sharded()) optimizer_.leave(engine.program().packed_copies());
  // Of what is sharded, or of a run of one rank, there is no second copy to compare with.
  const bool single = ranks_ == 1 && config.checkpoint.verify_every_steps > 0;
  if ((optimizer_.sharded() || single) && !engine.device().asynchronous()) optimizer_.keep_ledger();
  reducer_.follow(&memory_.state().step);
  communication_.exposed.resize(reducer_.timings().size());
  communication_.bytes_per_step = reducer_.bytes_per_step();
  if (config.deterministic == Deterministic::elastic)
    tree_.emplace(engine.device(), engine.store(), static_cast<int>(accumulation), reducer_);
  watchdog.follow(&place_);
}

comm::DeviceNote TrainStep::Place::look() noexcept {
  const comm::SumPlace reached = step.reducer_.reached();
  comm::DeviceNote note;
  note.asynchronous = step.engine_.device().asynchronous();
  if (reached.bucket >= 0) note.step = reached.step + 1;
  note.bucket = reached.bucket;
  try {
    const std::string said = step.engine_.collective().state();
    said.copy(note.state.data(), comm::DeviceNote::state_room);
  } catch (const std::exception&) {  // nothing is said then
  }
  return note;
}

void TrainStep::start(const RunStatus& status, std::span<const double> weights) {
  StepState state;
  state.seed = config_.seed;
  state.applied_steps = status.applied;
  state.loss_scale = status.loss_scale;
  state.good_steps = status.good_steps;
  if (weights.size() != counted_) throw BugError("a run begins without the weights of its losses");
  const Graph& graph = engine_.plan().graph;
  auto next = weights.begin();
  for (std::size_t k = 0; k < graph.losses().size(); ++k) {
    const GraphLoss& loss = graph.losses()[k];
    state.loss_weight[k] =
        loss.counted ? *next++ : static_cast<double>(status.batch.batch(status.step) * graph.positions_of(loss));
  }
  weigh_losses(state, losses_);
  first_step_ = reading_step_ = status.step;
  if (UpdateLedger* const ledger = optimizer_.ledger()) ledger->forget();
  memory_.reset(state, engine_.compute());
}

void TrainStep::settle() {
  alone([&] {
    reducer_.begin_step();  // what follows is of no step, and is not timed
    if (gathers_first_) reducer_.gather_parameters(engine_.compute());
    reducer_.wait_parameters(engine_.compute());
    if (gathers_first_) engine_.pack();
  });
}

std::string TrainStep::first_nonfinite_gradient(const StepState& done) {
  if (engine_.device().asynchronous()) {  // later steps have overwritten the gradients
    if (done.nonfinite == 0) return {};
    const std::size_t at = std::size_t{done.nonfinite_block} * norm_block;
    std::string name;
    for (const FlatParam& p : engine_.store().layout().params)
      if (p.offset < at + norm_block && p.offset + p.size > at) name = p.name;
    return name;
  }
  return alone([&] {
    reducer_.gather_gradients(engine_.compute());
    return model_.first_nonfinite_gradient();
  });
}

void TrainStep::run(const RunStatus& status, io::Loader& loader, const DeviceData* data, bool logged,
                    PhaseSeconds& seconds) {
  const DeviceRange range(engine_.device(), "step");
  const auto begin = Clock::now();
  Stream& compute = engine_.compute();
  const std::int64_t micro_batches = accumulation_ * status.batch.batch(status.step) / status.batch.largest();
  timers_.choose(status.step, micro_batches, trace_, !graph_cache_.wanted(), compute);
  begin_step(status, micro_batches);
  timers_.begin(compute);
  for (std::int64_t j = 0; j < micro_batches; ++j) {
    const Pass pass{Mode::train, j == 0 || tree_, j + 1 == micro_batches};
    const int slot = engine_.feed().next_slot(j);
    beat(status.step, "data");
    const double data_begin = comm::seconds_now();
    alone([&] {
      timers_.data_wanted(j, compute);
      load(loader, data, slot, status.step);
      timers_.data_there(j, compute);
      put_tail(pass.last);
    });
    note(Activity::data, data_begin, comm::seconds_now());
    beat(status.step, "forward and backward");
    alone([&] {
      if (tree_) tree_->begin(j);
      const auto work = [&] {
        if (j == 0) gather_first();
        engine_.program().mark_backward(timers_.backward(j));
        engine_.program().run(pass, slot, engine_.store(), memory_.state(), hooks(), compute);
        if (gathers_first_) reducer_.wait_parameters(compute);  // of buckets that no forward asked for
        count_passes(seconds);
        if (tree_ && !pass.last) tree_->keep(compute);
        timers_.pass_done(j, compute);
        if (pass.last) update(status, logged, seconds);
      };
      if (timers_.traced()) {
        work();
      } else {
        graph_cache_.run(key(pass, slot, j), compute, work);
      }
      engine_.feed().read(slot);
    });
  }
  alone([&] {
    timers_.end(compute);
    memory_.end(compute);
  });
  note(Activity::step, seconds_of(begin), comm::seconds_now());
  if (!engine_.device().asynchronous()) {
    note_buckets();
    count_buckets(reducer_.timings());
  }
  seconds.step += since(begin);
}

const StepState& TrainStep::read(PhaseSeconds& seconds) {
  const auto begin = Clock::now();
  const bool waits = engine_.device().asynchronous();
  if (waits) beat(reading_step_, "results");
  const StepState& done = *alone([&] {
    // Whoever waits here waits for the sums of all ranks.
    const comm::Watchdog::Wait wait(waits && ranks_ > 1 ? &watchdog_ : nullptr);
    try {
      return &memory_.read();
    } catch (const DeviceError& e) {
      throw DeviceError(engine_.program().explain(e.what()));
    }
  });
  ++reading_step_;
  if (!waits) return done;
  alone([&] { engine_.check_ranks(); });
  seconds.step += since(begin);
  timers_.read(static_cast<std::int64_t>(done.step));
  count_buckets(timers_.latest_buckets());
  const PhaseSeconds& s = timers_.latest();
  seconds.forward += s.forward;
  seconds.backward += s.backward;
  seconds.optimizer += s.optimizer;
  seconds.data += s.data;
  seconds.communication_exposed += s.communication_exposed;
  return done;
}

void TrainStep::begin_step(const RunStatus& status, std::int64_t micro_batches) {
  StepState s;
  s.step = static_cast<std::uint64_t>(status.step);
  s.seed = config_.seed;
  s.first_position = static_cast<std::uint64_t>(status.taken());
  s.learning_rate = static_cast<float>(learning_rate(config_.schedule, base_learning_rate(config_.optimizer),
                                                     config_.batch.global, status.step, status.total_steps));
  s.micro_batches = static_cast<float>(micro_batches * ranks_);
  if (!status.batch.constant()) s.next_samples = static_cast<std::uint64_t>(status.batch.batch(status.step + 1));
  step_ = status.step;
  alone([&] { memory_.begin(s, engine_.compute()); });
  reducer_.begin_step(timers_.buckets());
}

/// All that decides on what a recording holds.
std::uint64_t TrainStep::key(const Pass& pass, int slot, std::int64_t micro_batch) const {
  // Parameters of other shards are waited for in the first pass.
  const bool timed = timers_.timed() && (pass.last || (pass.first && optimizer_.sharded()));
  const std::uint64_t of_tree = tree_ ? static_cast<std::uint64_t>(micro_batch) << 8 : 0;  // what is kept where
  return static_cast<std::uint64_t>(slot) << 3 | (pass.first ? 4u : 0u) | (pass.last ? 2u : 0u) | (timed ? 1u : 0u) |
         of_tree;
}

/// What ranks updated in the step before is gathered at the beginning of a step, where it can be recorded together with
/// the forward pass that waits for it, bucket by bucket. On a cpu, which records nothing, it is on its way already.
void TrainStep::gather_first() {
  if (!gathers_first_) return;
  reducer_.gather_parameters(engine_.compute());
  engine_.program().parameters_changed();
}

/// What travels with the sums of the losses: this rank's stop request, its GPU's energy, and its weights of the next
/// step.
void TrainStep::put_tail(bool last) {
  float* const to = engine_.store().gradients() + engine_.store().layout().tail_begin();
  if (last) {
    StepTail mine;
    mine.stop = stop_.pending() ? 1.0f : 0.0f;
    mine.joules = static_cast<float>(spent_.joules);
    mine.joules_samples = static_cast<float>(spent_.samples);
    for (std::size_t k = 0; k < counted_; ++k) split_weight(next_weights_[k], mine.weights + k * weight_limbs);
    memory_.write_tail(mine, counted_, to, engine_.compute());
    spent_ = {};
  } else if (tree_) {  // which also adds up what lies there
    engine_.device().zero(to, StepTail::floats(counted_) * sizeof(float), engine_.compute());
  }
}

/// Each micro batch tells the weights of its share of the next step.
void TrainStep::take_weights(const io::Loader& loader, const io::Batch& batch) {
  if (batch.micro == 0) next_weights_.fill(0);
  loader.add_weights(batch.next_weights, std::span(next_weights_).first(counted_));
}

void TrainStep::beat(std::int64_t step, const char* phase) {
  watchdog_.beat(phase, static_cast<std::uint64_t>(step + 1),
                 step == first_step_ ? comm::Deadline::first_step : comm::Deadline::step);
}

/// Where the host computes, its clock says how long that took.
void TrainStep::count_passes(PhaseSeconds& seconds) {
  if (engine_.device().asynchronous()) return;
  const auto s = engine_.program().seconds();
  seconds.forward += s.forward;
  seconds.backward += s.backward;
  const double backward_begin = s.begin + s.forward;
  note(Activity::forward, s.begin, backward_begin);
  note(Activity::backward, backward_begin, backward_begin + s.backward);
}

void TrainStep::load(io::Loader& loader, const DeviceData* data, int slot, std::int64_t step) {
  const io::Batch& batch = engine_.feed().next(loader, engine_.program(), slot, data);
  if (sample_log_) {
    std::string lines;
    for (std::size_t i = 0; i < static_cast<std::size_t>(batch.valid); ++i)
      lines += fmt::format("{} {} {}\n", step, batch.positions.as<std::uint64_t>()[i], batch.indices[i]);
    sample_log_->append(lines);
  }
  if (data_check_ != nullptr) data_check_->add(batch);
  take_weights(loader, batch);
  engine_.feed().give_back(loader);
}

void TrainStep::wait(int bucket) {
  const double begin = trace_ ? comm::seconds_now() : 0;
  reducer_.wait(bucket, engine_.compute());
  if (trace_ && !reducer_.timings().empty()) note(Activity::exposed, begin, comm::seconds_now(), bucket);
}

/// On the host's clock: an asynchronous device's spans are read later.
void TrainStep::note(Activity activity, double begin, double end, int bucket) {
  if (trace_ && !engine_.device().asynchronous())
    trace_->add({.begin = begin, .end = end, .step = step_ + 1, .bucket = bucket, .activity = activity});
}

void TrainStep::count_buckets(std::span<const comm::BucketTiming> timings) {
  if (timings.empty()) return;
  ++communication_.steps;
  for (std::size_t b = 0; b < timings.size(); ++b) {
    communication_.exposed[b] += timings[b].exposed();
    communication_.sums += timings[b].end - timings[b].begin;
  }
}

void TrainStep::note_buckets() {
  int bucket = 0;
  for (const comm::BucketTiming& t : reducer_.timings()) {
    note(Activity::queued, t.ready, t.begin, bucket);
    note(Activity::sum, t.begin, t.end, bucket++);
  }
}

/// Sums arrive bucket by bucket; without a norm to wait for, each is applied as it comes. An asynchronous device always
/// forms the norm: it skips an update with a gradient that is not finite, as the host hears of that too late. So does a
/// dynamic loss scale, which hangs on that.
void TrainStep::update(const RunStatus& status, bool logged, PhaseSeconds& seconds) {
  const double begin = comm::seconds_now(), exposed_forward = reducer_.exposed_seconds();
  beat(status.step, "update");
  const ParameterStore& store = engine_.store();
  Stream& compute = engine_.compute();
  const double max_norm = config_.train.clip.max_norm;
  const bool norm = max_norm > 0 || logged || scaling_.dynamic || engine_.device().asynchronous();
  const bool whole = needs_whole_parameters(config_.optimizer);
  const auto buckets = static_cast<int>(store.layout().buckets.size());
  StepState& state = memory_.state();
  for (int b = 0; b < buckets && (norm || whole); ++b) wait(b);
  GradientArgs gradients{.step = &state, .max_norm = max_norm};
  if (norm) {
    const auto squares = optimizer_.block_squares(store, compute);
    reducer_.gather_squares(squares, compute);
    gradients.squares = squares.data();
    gradients.blocks = squares.size();
  }
  engine_.device().kernels().finish_gradients(gradients, compute);
  if (whole) {
    optimizer_.update(store, 0, store.layout().param_floats, state, compute);
  } else {
    for (int b = 0; b < buckets; ++b) {
      if (!norm) wait(b);
      optimizer_.update_bucket(store, static_cast<std::size_t>(b), state, compute);
    }
  }
  if (UpdateLedger* const ledger = optimizer_.ledger()) ledger->close(state.step);
  optimizer_.update_states(store, state, compute);
  if (!gathers_first_) reducer_.gather_parameters(compute);
  if (average_) {
    reducer_.wait_parameters(compute);  // each rank averages them all, also those that others updated
    average_->update(store, 0, store.layout().param_floats, state, compute);
  }
  // Where they are gathered at the beginning of the next step, the others' shards are not here yet.
  if (!gathers_first_) engine_.pack(optimizer_.sharded() ? Program::Changed::anyhow : Program::Changed::by_update);
  engine_.device().kernels().finish_step(
      {.step = &state, .sums = behind_gradients(), .scaling = scaling_, .losses = losses_}, compute);
  if (engine_.device().asynchronous()) return;
  // Parameters that were still on their way when forward wanted them.
  seconds.forward -= exposed_forward;
  const double exposed = reducer_.exposed_seconds(), end = comm::seconds_now();
  seconds.communication_exposed += exposed;
  seconds.optimizer += end - begin - (exposed - exposed_forward);
  note(Activity::update, begin, end);
}

float* TrainStep::behind_gradients() const noexcept {
  return engine_.store().gradients() + engine_.store().layout().state_end();
}

std::vector<double> sum_weights(Group& group, std::span<const std::uint64_t> mine) {
  std::vector<double> sums;
  for (const std::uint64_t units : mine) {
    float limbs[weight_limbs] = {};
    for (const std::uint64_t theirs : group.all_values(units)) {
      float of_rank[weight_limbs];
      split_weight(theirs, of_rank);
      for (std::size_t i = 0; i < weight_limbs; ++i) limbs[i] += of_rank[i];
    }
    sums.push_back(join_weight(limbs));
  }
  return sums;
}

}  // namespace dtrain::launch
