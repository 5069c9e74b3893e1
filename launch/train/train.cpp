#include "launch/train/train.hpp"

#include <algorithm>
#include <cstdio>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "comm/collective/agree.hpp"
#include "comm/watch/watchdog.hpp"
#include "io/dataset/dataset.hpp"
#include "io/dataset/loader.hpp"
#include "launch/base/alone.hpp"
#include "launch/base/clock.hpp"
#include "launch/base/error_text.hpp"
#include "launch/base/progress.hpp"
#include "launch/base/text.hpp"
#include "launch/data/data.hpp"
#include "launch/data/data_check.hpp"
#include "launch/data/device_data.hpp"
#include "launch/data/normalization.hpp"
#include "launch/data/token_bytes.hpp"
#include "launch/place/bandwidth.hpp"
#include "launch/place/device_placement.hpp"
#include "launch/plan/bucket_tuning.hpp"
#include "launch/plan/memory_fit.hpp"
#include "launch/report/run_choices.hpp"
#include "launch/report/run_files.hpp"
#include "launch/report/run_status.hpp"
#include "launch/report/tracing.hpp"
#include "launch/train/engine.hpp"
#include "launch/train/evaluation.hpp"
#include "launch/train/report.hpp"
#include "launch/train/saving.hpp"
#include "launch/train/start_weights.hpp"
#include "launch/train/stopping.hpp"
#include "launch/train/train_step.hpp"
#include "runtime/config/version.hpp"
#include "runtime/optim/step_math.hpp"
#include "runtime/program/rates.hpp"

namespace dtrain::launch {

namespace {

class Trainer {
 public:
  Trainer(const LoadedConfig& input, comm::World& world, StopSignals& stop, std::unique_ptr<Device> device)
      : input_(input),
        scaling_(loss_scaling(input.config)),
        world_(world),
        stop_(stop),
        group_(world.make_group()),
        watchdog_(world.watchdog()),
        report_(input, world),
        choices_(*group_),
        device_(std::move(device)) {}

  ExitCode run() {
    watchdog_.limit(config_.communication);
    watchdog_.beat("set-up", 0, comm::Deadline::set_up);
    const comm::Fact facts[] = {{"dtrain version", std::string(version())}, {"configuration hash", input_.hash}};
    comm::agree_on(*group_, world_.host(), facts);
    if (!device_) device_ = placed_device(config_, world_, *group_, placement_);
    tell_placement();  // before NCCL connects them, which may fail
    group_->agree([&] {
      batch_ = check_batch(input_, world_.size());
      engine_.emplace(world_, std::move(device_));
    });
    engine_->connect(config_, world_);
    group_->agree([&] {
      if (world_.rank() == 0) check_run_directory(config_.log.directory);
      set_up();
    });
    // Hosts with copies of their own may hold different data: other samples, another number of steps.
    const comm::Fact data[] = {{"data.train (by its fingerprint)", train_data_->fingerprint()},
                               {"data.train (by all of its bytes)", row_sums_ ? row_sums_->digest() : "not read yet"},
                               {"data.eval (by its fingerprint)", eval_data_ ? eval_data_->fingerprint() : "none"}};
    comm::agree_on(*group_, world_.host(), data);
    watchdog_.beat("load", 0, comm::Deadline::load);
    choices_.recall(config_.log.directory);
    saving_.emplace(input_, world_, *group_, report_, choices_, *train_data_, status_, stop_);
    if (saving_->finished_before(status_)) return ExitCode::ok;
    for (const std::string& text :
         settle_normalization(input_.config, *graph_, stored_, *train_data_, *group_, choices_, saving_->resumes()))
      report_.say(text);
    prepare();
    const comm::Fact layout[] = {{"the parameter layout", layout_text()}};
    comm::agree_on(*group_, world_.host(), layout);
    start_state();
    group_->agree([&] { take_directory(); });  // before any rank opens a file there
    group_->agree([&] { open_files(); });
    report_.announce(*engine_, batch_, status_);
    measure_matrix_rates();
    watch_gpus();
    probe();
    return loop();
  }

  /// What is printed next begins a line of its own.
  void end_progress() { report_.end_progress(); }

 private:
  /// What needs to know neither what is resumed nor what was chosen before.
  void set_up() {
    const double cache = config_.data.cache_mib;
    train_data_.emplace(open_data(config_, config_.data.train, DataUse::training, cache));
    if (!config_.data.eval.files.empty())
      eval_data_.emplace(open_data(config_, config_.data.eval.files, DataUse::evaluation, cache,
                                   train_data_->descriptions(), {world_.rank(), world_.size(), batch_.micro}));
    if (train_data_->in_memory()) row_sums_ = sum_rows(*train_data_);
    stored_ = stored_ports(*train_data_, eval_data_ ? &*eval_data_ : nullptr);
    graph_.emplace(training_graph(config_, batch_.micro, stored_));
    check_data(config_, *graph_, stored_, *train_data_, DataUse::training);
    if (eval_data_) check_data(config_, *graph_, stored_, *eval_data_, DataUse::evaluation);
    for (const std::string& text : input_.remarks) report_.warn(text);
    for (const std::string& text :
         data_warnings(config_, *graph_, stored_, *train_data_, eval_data_ ? &*eval_data_ : nullptr))
      report_.warn(text);
    for (const std::string& text : text_notes(*train_data_, eval_data_ ? &*eval_data_ : nullptr)) report_.say(text);
    status_.batch = config_.batch.schedule();
    status_.samples = static_cast<std::int64_t>(train_data_->count());
    status_.total_steps = total_steps(config_, train_data_->count());
    if (const std::string text = schedule_warning(config_, status_.total_steps); !text.empty()) report_.warn(text);
    status_.loss_scale = scaling_.initial;
  }

  void prepare() {
    watchdog_.beat("set-up", 0, comm::Deadline::set_up);
    RunConfig config = config_;
    const SumPath sums{*group_, engine_->collective(), engine_->device(), config.communication.gradient_dtype,
                       config.optimizer.shard && !needs_whole_parameters(config.optimizer)};
    const std::string buckets = tune_buckets(config, *graph_, batch_.accumulation, world_, sums, choices_);
    if (!buckets.empty()) {
      report_.say(buckets);
      remarks_.push_back(buckets);
    }
    sets_ = load_sets(config_, *graph_, stored_, *train_data_, eval_data_ ? &*eval_data_ : nullptr, world_.rank(),
                      world_.size(), engine_->device());
    const std::vector<BatchLayout> layouts = layouts_of(sets_);
    const std::size_t free = engine_->device().free_memory();
    const auto tally = choices_.prepare(engine_->device(), [&] {
      with_advice(free, [&] { engine_->bind(std::move(*graph_), config, Mode::train, layouts); });
    });
    if (tally.recalled > 0 && tally.measured > 0)
      report_.say(
          fmt::format("{} of the device's algorithms were measured again: those kept with the run are of another "
                      "GPU, library, shape or dtrain",
                      tally.measured));
    group_->agree([&] {
      with_advice(free, [&] { step_.emplace(config_, *engine_, watchdog_, stop_, batch_.accumulation); });
      make_loaders();
    });
  }

  /// Where memory ends: what would fit. `free`: bytes that there were; 0 where the device cannot say.
  template <class F>
  void with_advice(std::size_t free, F work) const {
    try {
      work();
    } catch (const OutOfMemory& e) {
      if (free == 0) throw;
      throw OutOfMemory(fmt::format("{}; {}", e.what(), memory_advice(config_, world_.size(), batch_.micro, free)));
    }
  }

  void make_loaders() {
    sets_[0].options.order = saving_->order();
    // What lies on the device was read whole, and is not read again.
    const auto& ports = sets_[0].options.ports;
    if (!row_sums_ && std::any_of(ports.begin(), ports.end(), [](const auto& p) { return p.carry == io::Carry::rows; }))
      row_sums_ = sum_rows(*train_data_);
    data_check_.emplace(*train_data_, status_.batch, row_sums_, config_.checkpoint.force);
    sets_[0].options.hash_rows = data_check_->reads();
    step_->check_data(*data_check_);
    train_on_device_ = DeviceData::make(engine_->device(), engine_->compute(), sets_[0]);
    loader_ = io::Loader::training(*train_data_, sets_[0].options);
    if (!eval_data_) return;
    eval_on_device_ = DeviceData::make(engine_->device(), engine_->compute(), sets_[1]);
    eval_loader_ = io::Loader::evaluation(*eval_data_, sets_[1].options);
    evaluator_.emplace(*engine_, *eval_loader_, *group_, watchdog_,
                       EvaluatorOptions{config_.cuda.graphs, eval_on_device_.get(),
                                        bytes_per_token(config_, eval_data_->files()), JudgeScope::samples,
                                        train_data_->descriptions(), sets_[1].options.ports, eval_data_->count()});
  }

  std::string layout_text() const {
    std::string text;
    const FlatLayout& layout = engine_->store().layout();
    for (const FlatParam& p : layout.params) text += fmt::format("{}{}@{};", p.name, p.shape.str(), p.offset);
    for (const Bucket& b : layout.buckets) text += fmt::format("{}-{};", b.begin, b.end);
    return text;
  }

  /// Each GPU is asked by one rank alone, the first of those on it.
  void watch_gpus() {
    const std::string id = engine_->device().bus_id();
    const auto all = group_->all_gather(id.empty() ? id : world_.host() + " " + id);
    const auto mine = all.begin() + world_.rank();
    const bool first = std::find(all.begin(), mine, *mine) == mine;
    report_.watch_gpu(first ? id : "", static_cast<int>(std::count(all.begin(), all.end(), *mine)));
  }

  void tell_placement() {
    std::istringstream lines(placement_.table());
    for (std::string line; std::getline(lines, line);) report_.say(line);
    for (const std::string& text : placement_.warnings) report_.warn(text);
  }

  /// For the utilization of models that read tokens: all ranks at once, as they compute in a step.
  void measure_matrix_rates() {
    constexpr double seconds = 0.1;
    if (tokens_per_sample(engine_->plan().graph) == 0) return;
    watchdog_.beat("set-up", 0, comm::Deadline::set_up);
    group_->barrier();
    const double own = alone([&] { return measure_matrix_rate(engine_->device(), config_.precision, seconds); });
    double sum = 0;
    for (const double rate : group_->all_values(own)) sum += rate;
    report_.compare_with_products(sum);
  }

  /// What sums reach, against what the links between the ranks' GPUs promise.
  void probe() {
    double seconds = config_.communication.probe_seconds;
    if (seconds == comm::CommConfig::automatic_probe) seconds = placement_.on_gpu() ? 2 : 0;
    if (seconds <= 0 || world_.size() == 1) return;
    watchdog_.beat("set-up", 0, comm::Deadline::set_up);
    BandwidthProbe probe = probe_bandwidth(engine_->device(), engine_->collective(), *group_, seconds);
    probe.promise = promise_of(links_of(placement_.places));
    report_.compare_with_probe(probe.bus_bytes_per_second);
    report_.say(probe_text(probe));
    if (const std::string text = probe_warning(probe); !text.empty()) report_.warn(text);
  }

  void start_state() {
    watchdog_.beat("load", static_cast<std::uint64_t>(status_.step), comm::Deadline::load);
    ModelState& model = step_->model();
    saving_->check_data(*data_check_, status_);
    const bool resumes = saving_->resumes();
    // Checkpoints of adapters do not hold the model that they adapt.
    if (!resumes || config_.model.lora.on()) {
      model.initialize(engine_->plan().graph, config_.seed);
      if (!config_.model.initialize_from.path.empty())
        for (const std::string& line : lines_of(take_start_weights(*group_, config_.model, model)))
          if (!resumes) report_.say(line);
    }
    if (resumes && config_.model.lora.on()) {
      model.broadcast();
      model.pull_parameters();
    }
    if (resumes) saving_->load(model, status_);
    // Initialization and files are equal on all ranks; the broadcast makes that a fact and not a hope.
    model.broadcast();
    std::vector<std::uint64_t> weights;  // reading them may fail on one rank alone
    group_->agree([&] { weights = loader_->loss_weights(static_cast<std::uint64_t>(status_.step)); });
    step_->start(status_, sum_weights(*group_, weights));
    engine_->pack();
    loader_->seek(static_cast<std::uint64_t>(status_.step));
  }

  void take_directory() {
    report_.take_directory(saving_->run_id(), saving_->earlier());
    if (const std::string text = world_.rank() == 0 ? saving_->set_aside() : ""; !text.empty()) report_.say(text);
  }

  void open_files() {
    report_.open_files(status_, remarks_);
    choices_.write(config_.log.directory);
    if (config_.log.samples)
      step_->log_samples(open_sample_log(config_.log.directory, world_.rank(), world_.size(), status_.step));
  }

  // ---- the loop -----------------------------------------------------------------------------------------------------

  ExitCode loop() {
    stop_.answer_at_steps();
    tracing_.emplace(config_.log.trace, config_.log.directory, engine_->store().layout(), batch_.accumulation, world_,
                     *group_);
    const ExitCode code = steps();
    tell(tracing_->write(device_clock()));  // where the run ended before the steps that were asked for
    return code;
  }

  ExitCode steps() {
    report_.begin(status_, loader_->waited_seconds());
    // The signal that ended the run before may have come before or in the evaluation that was due.
    if (saving_->resumes() && status_.evaluated_step != status_.step && evaluation_due() && !evaluate())
      return stopped();
    if (!why_enough(config_, status_).empty()) status_.total_steps = status_.step;  // it owed its summary
    while (!status_.finished()) {
      ask_to_stop_in_time();
      step_->trace(tracing_->at(status_.step + 1));
      step_->spend(report_.energy_spent(status_));
      step_->run(status_, *loader_, train_on_device_.get(), logged(status_.step + 1), report_.seconds());
      ++status_.step;
      // Results are read late, but before anything that they decide on.
      const bool settled = status_.finished() || evaluation_due() || save_due() || verify_due() ||
                           tracing_->done_before(status_.step + 1);
      const bool stop = read_results(settled ? 0 : step_->lag());
      for (const auto& text : data_check_->step_done(*group_, static_cast<std::uint64_t>(status_.step)))
        report_.say(text);
      saving_->poll(status_);
      if (stop && !status_.finished()) return stopped();
      if (verify_due()) verify();
      if (evaluation_due() && !evaluate()) return stopped();
      if (save_due()) save();
      tell(tracing_->write_if_done(status_.step + 1, device_clock()));
    }
    step_->settle();
    saving_->finish(status_, step_->model());
    report_.end_progress();
    summarize();
    return ExitCode::ok;
  }

  /// How exactly the times of the timeline are known; nothing where they are the host's own.
  std::optional<double> device_clock() const {
    return engine_->device().asynchronous() ? std::optional(step_->clock_error()) : std::nullopt;
  }

  bool logged(std::int64_t step) const { return step % config_.log.every_steps == 0 || step == status_.total_steps; }
  bool save_due() const {
    return config_.checkpoint.every_steps > 0 && status_.step % config_.checkpoint.every_steps == 0 &&
           !status_.finished();
  }

  bool verify_due() const {
    const std::int64_t every = config_.checkpoint.verify_every_steps;
    return every > 0 && status_.step % every == 0 && !status_.finished();
  }

  /// Leaves so many of the steps under way unread. True where some rank was asked to stop.
  bool read_results(int left) {
    bool stop = false;
    while (step_->under_way() > left) {
      const StepState& done = step_->read(report_.seconds());
      RunStatus then = status_;  // with the loss scale of that step
      then.step = static_cast<std::int64_t>(done.step) + 1;
      then.loss = status_.loss = step_loss(done, step_->losses());
      then.applied = status_.applied = done.applied_steps;
      require_finite(then, done, scaling_, *step_, saving_->durable_step());
      status_.loss_scale = done.loss_scale;
      status_.good_steps = done.good_steps;
      report_.count(TrainStep::energy_of(done));
      alone(
          [&] { report_.step_done(then, done, logged(then.step), loader_->waited_seconds(), step_->communication()); });
      stop = TrainStep::stop_requested(done) || stop;
    }
    warn_without_graphs("steps", step_->no_graphs_because(), no_graphs_told_);
    return stop;
  }

  void warn_without_graphs(const char* what, const std::string& why, bool& told) const {
    if (!why.empty() && !std::exchange(told, true))
      report_.warn(fmt::format("{} are not replayed as CUDA graphs: {}", what, why));
  }

  void save() {
    const auto begin = Clock::now();
    step_->settle();
    saving_->save(status_, step_->model());
    tracing_->note(Activity::checkpoint, begin, status_.step);
  }

  void verify() {
    step_->settle();
    saving_->verify(status_, step_->model(), engine_->program());
  }

  void tell(const std::string& of_timeline) {
    if (!of_timeline.empty()) report_.say(of_timeline);
  }

  bool evaluation_due() const {
    if (!evaluator_) return false;
    if (status_.finished()) return true;
    if (config_.train.eval_every_steps > 0) return status_.step % config_.train.eval_every_steps == 0;
    return status_.taken() / status_.samples > status_.batch.samples_before(status_.step - 1) / status_.samples;
  }

  /// With the averaged parameters where there are some. False where it was given up because some rank was asked to
  /// stop. The last one, which nothing but the end of the run follows, is always finished.
  bool evaluate() {
    const auto begin = Clock::now();
    step_->settle();
    std::optional<EvalMetrics> result;
    try {
      result = evaluator_->run(status_.step, status_.finished() ? nullptr : &stop_, step_->average());
    } catch (const DataError& e) {  // on all ranks; the training before it was right
      saving_->finish(status_, step_->model());
      throw DataError(
          fmt::format("{}; the run ends in its evaluation, and the checkpoint of step {} has all that was "
                      "trained",
                      e.what(), status_.step));
    }
    warn_without_graphs("evaluation passes", evaluator_->no_graphs_because(), no_evaluation_graphs_told_);
    if (!result) return false;
    status_.eval = result;
    status_.evaluated_step = status_.step;
    count_evaluation(config_, status_);
    tracing_->note(Activity::evaluation, begin, status_.step);
    alone([&] { report_.evaluated(status_, since(begin)); });
    if (const std::string why = why_enough(config_, status_); !why.empty() && !status_.finished()) {
      report_.say(fmt::format("the run ends at step {} of {}: {}", status_.step, status_.total_steps, why));
      status_.total_steps = status_.step;
    }
    // The last step is saved anyway.
    if (saving_->is_best(status_) && !status_.finished()) saving_->save(status_, step_->model());
    return true;
  }

  /// Rank 0's clock counts, and the others hear of it with the sums of the step.
  void ask_to_stop_in_time() {
    const double hours = config_.train.max_hours;
    if (hours > 0 && world_.rank() == 0 && since(begin_) > hours * 3600) stop_.ask("train.max_hours");
  }

  ExitCode stopped() {
    const bool in_time = group_->any(stop_.asked());
    read_results(0);
    step_->settle();
    saving_->finish(status_, step_->model());
    report_.end_progress();
    report_.say(fmt::format("stopped by {} at step {} of {} with everything saved: run the same command {} to go on",
                            stop_.pending() ? stop_.name() : std::string("a signal on another rank"), status_.step,
                            status_.total_steps, config_.checkpoint.fresh ? "without --fresh" : "again"));
    return in_time && config_.train.done ? ExitCode::ok : ExitCode::stopped;
  }

  void summarize() {
    if (world_.rank() != 0) return;
    step_->model().pull_parameters();
    report_.summarize(status_, engine_->device(), step_->model().parameter_hash(), step_->model().average_hash());
  }

  LoadedConfig input_;  // whose normalization is settled at the start
  const RunConfig& config_ = input_.config;
  const LossScaling scaling_;
  comm::World& world_;
  StopSignals& stop_;
  const Clock::time_point begin_ = Clock::now();
  std::unique_ptr<Group> group_;
  comm::Watchdog& watchdog_;
  Reporter report_;
  RunChoices choices_;
  std::unique_ptr<Device> device_;  // until the engine has it; a test may bring its own
  DevicePlacement placement_;
  bool no_graphs_told_ = false, no_evaluation_graphs_told_ = false;
  std::vector<std::string> remarks_;  // on what was chosen at start

  BatchSplit batch_;
  RunStatus status_;
  std::optional<Engine> engine_;
  std::optional<Graph> graph_;  // until the engine has it
  std::optional<io::Dataset> train_data_, eval_data_;
  models::StoredPorts stored_;
  std::vector<LoadedSet> sets_;      // of training, and of evaluation where there is one
  std::optional<RowSums> row_sums_;  // of the training data, where they were known at the start
  std::optional<DataCheck> data_check_;
  std::unique_ptr<DeviceData> train_on_device_, eval_on_device_;
  std::unique_ptr<io::Loader> loader_, eval_loader_;
  std::optional<TrainStep> step_;  // behind what steps under way still read
  std::optional<Evaluator> evaluator_;
  std::optional<Saving> saving_;
  std::optional<Tracing> tracing_;
};

}  // namespace

ExitCode train(const LoadedConfig& input, comm::World& world, StopSignals& stop, std::unique_ptr<Device> device) {
  // Outlives the report of what went wrong: its end waits for a save under way and for a sum on the wire, and the
  // other ranks do not wait for long.
  std::optional<Trainer> trainer;
  const auto report = [&](const std::string& text) {
    if (trainer) trainer->end_progress();
    print_error(text);
  };
  try {
    trainer.emplace(input, world, stop, std::move(device));
    return trainer->run();
  } catch (const RankFailure& e) {
    const std::string where = world.size() > 1 ? fmt::format("rank {} ({}): ", world.rank(), world.host()) : "";
    report(fmt::format("error: {}{}\n", where, cut_quotes(e.what())));
    world.abort(e.code());
  } catch (const std::exception& e) {
    ExitCode code = ExitCode::bug;
    const std::string text = error_text(e, code);
    if (world.rank() == 0) report(text);
    return code;
  }
}

}  // namespace dtrain::launch
