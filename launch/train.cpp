#include "launch/train.hpp"

#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <new>
#include <optional>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "comm/agree.hpp"
#include "comm/reducer.hpp"
#include "comm/watchdog.hpp"
#include "io/checkpoint.hpp"
#include "io/checkpoint_writer.hpp"
#include "io/dataset.hpp"
#include "io/loader.hpp"
#include "launch/cli.hpp"
#include "launch/data.hpp"
#include "launch/feed.hpp"
#include "launch/model_state.hpp"
#include "launch/progress.hpp"
#include "launch/run_files.hpp"
#include "models/build.hpp"
#include "runtime/program.hpp"
#include "runtime/update.hpp"
#include "runtime/version.hpp"

namespace dtrain::launch {

namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

double since(Clock::time_point t) {
  return std::chrono::duration<double>(Clock::now() - t).count();
}

/// Evaluation asks all ranks for a wish to stop once in so many batches.
constexpr std::int64_t batches_between_questions = 16;

/// An error of this rank alone, inside a step: the others do not know of it, so the run must be aborted.
class RankFailure : public Error {
 public:
  using Error::Error;
};

/// Whatever `work` throws is this rank's alone. Nothing escapes as another type: the other ranks would wait for ever.
template <class F>
auto alone(F work) {
  try {
    return work();
  } catch (const Error& e) {
    throw RankFailure(e.code(), e.code() == ExitCode::bug ? fmt::format("a bug in dtrain: {}", e.what()) : e.what());
  } catch (const std::bad_alloc&) {
    throw RankFailure(ExitCode::device, "out of host memory");
  } catch (const std::exception& e) {
    throw RankFailure(ExitCode::bug, fmt::format("a bug in dtrain: {}", e.what()));
  }
}

/// However the two are spelt: "runs/x/", "./runs/x", a symbolic link.
bool lies_in(const std::string& path, const std::string& directory) {
  namespace fs = std::filesystem;
  fs::path at = fs::path(path).lexically_normal();
  if (!at.has_filename()) at = at.parent_path();
  std::error_code failed;
  const fs::path parent = at.has_parent_path() ? at.parent_path() : fs::path(".");
  return fs::equivalent(parent, directory, failed) && !failed;
}

Shape shape_of(const std::vector<std::int64_t>& extents) {
  return Shape(std::span<const std::int64_t>(extents));
}

class Trainer {
 public:
  Trainer(const LoadedConfig& input, comm::World& world, StopSignals& stop)
      : input_(input),
        config_(input.config),
        world_(world),
        stop_(stop),
        group_(world.make_group()),
        collective_(world.make_collective(config_.communication.algorithm)),
        watchdog_(world.watchdog()),
        main_(world.rank() == 0) {}

  ExitCode run() {
    watchdog_.limit(config_.communication.timeout_seconds);
    watchdog_.beat("set-up", 0);
    const comm::Fact facts[] = {{"dtrain version", std::string(version())}, {"configuration hash", input_.hash}};
    comm::agree_on(*group_, world_.host(), facts);
    group_->agree([&] { set_up(); });
    // Hosts with copies of their own may hold different data: other samples, another number of steps.
    const comm::Fact same[] = {{"the parameter layout", layout_text()},
                               {"data.train (by its fingerprint)", train_data_->fingerprint()},
                               {"data.eval (by its fingerprint)", eval_data_ ? eval_data_->fingerprint() : "none"}};
    comm::agree_on(*group_, world_.host(), same);
    if (!open_checkpoints()) return ExitCode::ok;
    start_state();
    group_->agree([&] {
      if (main_) make_directory(config_.log.directory, "log.directory");
    });
    group_->agree([&] { open_files(); });
    announce();
    return loop();
  }

  /// What is printed next begins a line of its own.
  void end_progress() {
    if (progress_) progress_->finish();
  }

 private:
  // ---- set-up ---------------------------------------------------------------------------------------------------

  void set_up() {
    batch_ = check_batch(input_, world_.size());
    device_ = make_run_device(config_.device, config_.threads, world_);
    compute_ = device_->make_stream(StreamUse::compute);
    feed_ = std::make_unique<Feed>(*device_, *compute_);
    const bool labels = config_.model.loss == models::Loss::cross_entropy;
    Graph graph = models::build(config_.model, batch_.micro);
    const std::int64_t width = output_width(graph);
    const double cache = config_.data.cache_mib;
    train_data_.emplace(open_data(config_, config_.data.train, width, cache));
    if (!config_.data.eval.empty()) eval_data_.emplace(open_data(config_, config_.data.eval, width, cache));
    PlanOptions plan;
    plan.buckets.bucket_mib = config_.communication.bucket_mib;
    plan.buckets.last_bucket_mib = config_.communication.last_bucket_mib;
    program_ = std::make_unique<Program>(*device_, std::move(graph), plan);
    store_ = std::make_unique<ParameterStore>(*device_, program_->plan().layout);
    optimizer_ = std::make_unique<Optimizer>(*device_, config_.optimizer, store_->layout());
    model_ = std::make_unique<ModelState>(*device_, *store_, *optimizer_, *compute_);
    reducer_ = std::make_unique<comm::GradientReducer>(*device_, *collective_, *store_, config_.communication);
    samples_ = static_cast<std::int64_t>(train_data_->count());
    total_steps_ = total_steps(config_, train_data_->count());
    io::LoaderOptions loading;
    loading.input = shape_of(config_.model.input);
    loading.normalize = config_.data.normalize;
    loading.micro_batch = batch_.micro;
    loading.global_batch = config_.batch.global;
    loading.rank = world_.rank();
    loading.ranks = world_.size();
    loading.seed = config_.seed;
    loading.shuffle = config_.data.shuffle;
    loading.classes = labels ? width : 0;
    loading.threads = config_.data.prefetch_threads;
    loading.ring = config_.data.prefetch_batches;
    loader_ = io::Loader::training(*train_data_, loading);
    if (eval_data_) eval_loader_ = io::Loader::evaluation(*eval_data_, loading);
  }

  std::string layout_text() const {
    std::string text;
    for (const FlatParam& p : store_->layout().params) text += fmt::format("{}{}@{};", p.name, p.shape.str(), p.offset);
    for (const Bucket& b : store_->layout().buckets) text += fmt::format("{}-{};", b.begin, b.end);
    return text;
  }

  /// Takes the lock, finds what to resume from. False where the run was finished before.
  bool open_checkpoints() {
    std::vector<std::byte> id;
    if (main_) {
      const std::string made = io::make_run_id();
      id.assign(reinterpret_cast<const std::byte*>(made.data()),
                reinterpret_cast<const std::byte*>(made.data()) + made.size());
    }
    group_->broadcast(id, 0);
    run_id_.assign(reinterpret_cast<const char*>(id.data()), id.size());
    writer_ = std::make_unique<io::CheckpointWriter>(*group_, config_.checkpoint, run_id_);
    found_ = io::find_resume(*group_, config_.checkpoint);
    if (!found_) return true;
    const io::RunState now = run_state(0);
    for (const auto& skipped : found_->skipped) warn(fmt::format("skipped {}", skipped));
    for (const auto& remark : io::check_compatible(*found_, now, config_.checkpoint.force)) say("resume: " + remark);
    step_ = static_cast<std::int64_t>(found_->state.step);
    applied_ = found_->state.applied_steps;
    recall_metrics();
    // A run that died between its last checkpoint and its summary still owes the summary.
    if (step_ > total_steps_ ||
        (step_ == total_steps_ && !group_->any(main_ && !std::filesystem::exists(summary_path())))) {
      say(
          fmt::format("this run is finished: {} holds step {} of {}; raise train.{} to go on, or set "
                      "checkpoint.resume=never to start again",
                      found_->path, step_, total_steps_, config_.train.steps > 0 ? "steps" : "epochs"));
      return false;
    }
    return true;
  }

  std::string summary_path() const { return config_.log.directory + "/summary.json"; }

  /// What the summary says beside the parameters, as of the checkpoint.
  void recall_metrics() {
    const auto& metrics = found_->state.metrics;
    const auto value = [&](const char* name, double otherwise) {
      const auto at = metrics.find(name);
      return at == metrics.end() ? otherwise : at->second;
    };
    loss_ = value("train_loss", 0);
    evaluated_step_ = static_cast<std::int64_t>(value("eval_step", -1));
    if (evaluated_step_ >= 0 && eval_loader_) eval_ = EvalMetrics{value("eval_loss", 0), value("eval_accuracy", -1)};
  }

  void start_state() {
    watchdog_.beat("load", static_cast<std::uint64_t>(step_));
    if (found_) {
      io::load_checkpoint(*group_, found_->path, model_->tensors());
      model_->push();
      if (group_->any(main_ && lies_in(found_->path, config_.checkpoint.directory)))
        writer_->continue_from(found_->state.step);
      say(fmt::format("resumed from {} at step {}", found_->path, step_));
    } else {
      model_->initialize(program_->plan().graph, config_.seed);
    }
    // Initialization and files are equal on all ranks; the broadcast makes that a fact and not a hope.
    model_->broadcast(*collective_);
    program_->pack(*store_, *compute_);
    loader_->seek(static_cast<std::uint64_t>(step_));
  }

  void open_files() {
    if (main_) {
      write_whole_file(config_.log.directory, "config.yaml", input_.canonical);
      metrics_.emplace(config_.log.directory, step_);
      std::error_code ignored;  // an older one is of a run that goes on now
      std::filesystem::remove(summary_path(), ignored);
    }
    if (config_.log.samples) sample_log_ = open_sample_log(config_.log.directory, world_.rank(), world_.size(), step_);
  }

  // ---- saying things --------------------------------------------------------------------------------------------

  void say(const std::string& text) {
    if (!main_) return;
    if (progress_) {
      progress_->line(text);
    } else {
      print_line(stdout, text);
    }
  }
  void warn(const std::string& text) const {
    if (!main_) return;
    if (progress_) progress_->finish();
    print_line(stderr, "warning: " + text);
  }

  void announce() {
    for (const auto& note : world_.notes()) say(note);
    const Plan& plan = program_->plan();
    say(fmt::format("dtrain {}: {} on {} {} ({}), {} parameters, global batch {} = {} x {} x {}", version(),
                    config_.name, world_.size(), world_.size() == 1 ? "rank" : "ranks", device_->name(),
                    plan.graph.parameter_count(), config_.batch.global, world_.size(), batch_.accumulation,
                    batch_.micro));
    say(fmt::format("{} samples, {:.1f} steps an epoch, {} steps; {} {} of gradients; log in {}", samples_,
                    static_cast<double>(samples_) / static_cast<double>(config_.batch.global), total_steps_,
                    plan.layout.buckets.size(), plan.layout.buckets.size() == 1 ? "bucket" : "buckets",
                    config_.log.directory));
  }

  // ---- the loop -------------------------------------------------------------------------------------------------

  ExitCode loop() {
    progress_ = std::make_unique<Progress>(step_, total_steps_, !main_);
    start_ = interval_start_ = Clock::now();
    waited_before_ = loader_->waited_seconds();
    first_step_ = step_;
    // The signal that ended the run before may have come before or in the evaluation that was due.
    if (found_ && evaluated_step_ != step_ && evaluation_due() && !evaluate_and_log()) return stopped();
    while (step_ < total_steps_) {
      const bool logged = (step_ + 1) % config_.log.every_steps == 0 || step_ + 1 == total_steps_;
      const bool stop = train_step(logged);
      ++step_;
      alone([&] {
        if (logged) log_step();
        show_progress();
      });
      if (auto report = writer_->poll()) tell(*report);
      if (stop && step_ < total_steps_) return stopped();
      if (evaluation_due() && !evaluate_and_log()) return stopped();
      if (config_.checkpoint.every_steps > 0 && step_ % config_.checkpoint.every_steps == 0 && step_ < total_steps_)
        save();
    }
    save();
    if (auto report = writer_->finish()) require_durable(*report);
    progress_->finish();
    finish_summary();
    return ExitCode::ok;
  }

  void doing(const char* phase) { watchdog_.beat(phase, static_cast<std::uint64_t>(step_ + 1)); }

  /// True where some rank was asked to stop: known to all, because the wish travels with the gradients.
  bool train_step(bool logged) {
    const auto begin = Clock::now();
    state_.step = static_cast<std::uint64_t>(step_);
    state_.applied_steps = applied_;
    state_.seed = config_.seed;
    state_.first_position = static_cast<std::uint64_t>(step_ * config_.batch.global);
    state_.learning_rate =
        static_cast<float>(learning_rate(config_.schedule, base_learning_rate(config_.optimizer), step_, total_steps_));
    state_.gradient_scale = 1;
    reducer_->begin_step();
    for (std::int64_t j = 0; j < batch_.accumulation; ++j) {
      const Pass pass{Mode::train, j == 0, j + 1 == batch_.accumulation};
      const int slot = static_cast<int>(j % Program::slots);
      doing("data");
      alone([&] {
        load(slot);
        if (pass.last) model_->wish_to_stop(stop_.pending());
      });
      doing("forward and backward");
      alone([&] { program_->run(pass, slot, *store_, state_, *reducer_, *compute_); });
      const auto s = program_->seconds();
      seconds_.forward += s.forward;
      seconds_.backward += s.backward;
    }
    const auto update_begin = Clock::now();
    doing("update");
    const float* const sums = alone([&] {
      update(logged);
      return model_->read_sums();
    });
    const double exposed = reducer_->exposed_seconds();
    seconds_.communication_exposed += exposed;
    seconds_.optimizer += since(update_begin) - exposed;
    loss_ = static_cast<double>(sums[loss_sum]) / static_cast<double>(sums[weight_sum]);
    require_finite();
    ++applied_;
    seconds_.step += since(begin);
    ++interval_steps_;
    return model_->stop_wished();
  }

  void load(int slot) {
    const io::Batch& batch = feed_->next(*loader_, program_->slot(slot));
    if (sample_log_.is_open()) {
      for (std::size_t i = 0; i < static_cast<std::size_t>(batch.valid); ++i)
        sample_log_ << step_ << ' ' << batch.positions.as<std::uint64_t>()[i] << ' ' << batch.indices[i] << '\n';
      sample_log_.flush();
    }
    feed_->give_back(*loader_);
  }

  /// Sums arrive bucket by bucket; without a norm to wait for, each is applied as it comes.
  void update(bool logged) {
    const auto& buckets = store_->layout().buckets;
    state_.sum_weight = static_cast<float>(config_.batch.global);  // every training sample weighs 1
    const bool clip = config_.train.clip.max_norm > 0;
    if (!clip && !logged) {
      for (std::size_t b = 0; b < buckets.size(); ++b) {
        reducer_->wait(static_cast<int>(b), *compute_);
        optimizer_->update(*store_, buckets[b].begin, buckets[b].end, state_, *compute_);
      }
    } else {
      reducer_->wait_all(*compute_);
      state_.grad_norm =
          static_cast<float>(optimizer_->gradient_norm(*store_, *compute_) / static_cast<double>(state_.sum_weight));
      if (clip && state_.grad_norm > config_.train.clip.max_norm)
        state_.gradient_scale = static_cast<float>(config_.train.clip.max_norm / static_cast<double>(state_.grad_norm));
      optimizer_->update(*store_, 0, store_->layout().param_floats, state_, *compute_);
    }
    program_->pack(*store_, *compute_);
  }

  /// The summed loss is the same on all ranks, so all throw alike.
  void require_finite() const {
    if (std::isfinite(loss_)) return;
    const std::string parameter = model_->first_nonfinite_gradient();
    const auto durable = writer_->durable_step();
    throw NumericError(fmt::format(
        "step {}: the loss is {}{}; lower the learning rate, clip gradients (train.clip_norm) or look at the data; {}",
        step_ + 1, loss_, parameter.empty() ? "" : fmt::format(", first gradient that is not finite: {}", parameter),
        durable ? fmt::format("the checkpoint of step {} is intact", *durable)
                : std::string("no checkpoint was written yet")));
  }

  double epoch() const {
    return static_cast<double>(step_) * static_cast<double>(config_.batch.global) / static_cast<double>(samples_);
  }

  void log_step() {
    const auto steps = static_cast<double>(std::max<std::int64_t>(interval_steps_, 1));
    const double elapsed = since(interval_start_);
    const double waited = loader_->waited_seconds();
    now_ = {step_, epoch(), loss_, steps * static_cast<double>(config_.batch.global) / elapsed,
            (waited - waited_before_) / elapsed};
    if (metrics_) {
      StepMetrics m{step_,
                    epoch(),
                    loss_,
                    static_cast<double>(state_.learning_rate),
                    static_cast<double>(state_.grad_norm),
                    now_.samples_per_second,
                    resident_mib(),
                    {}};
      m.seconds = {seconds_.step / steps,      (waited - waited_before_) / steps,      seconds_.forward / steps,
                   seconds_.backward / steps,  seconds_.communication_exposed / steps, seconds_.optimizer / steps,
                   seconds_.checkpoint / steps};
      metrics_->write(m);
    }
    train_seconds_ += seconds_.step;
    seconds_ = {};
    interval_steps_ = 0;
    interval_start_ = Clock::now();
    waited_before_ = waited;
    log_due_ = true;
  }

  void show_progress() {
    now_.step = step_;
    now_.epoch = epoch();
    now_.loss = loss_;
    if (now_.samples_per_second > 0) progress_->show(now_);
    // Plain lines are for logs: at most about a hundred a run, the last one always.
    if (log_due_ && (step_ == total_steps_ || step_ - last_line_ >= total_steps_ / 100)) {
      progress_->log(now_);
      last_line_ = step_;
    }
    log_due_ = false;
  }

  // ---- evaluation -----------------------------------------------------------------------------------------------

  bool evaluation_due() const {
    if (!eval_loader_) return false;
    if (step_ == total_steps_) return true;
    if (config_.train.eval_every_steps > 0) return step_ % config_.train.eval_every_steps == 0;
    return step_ * config_.batch.global / samples_ > (step_ - 1) * config_.batch.global / samples_;
  }

  /// False where it was given up because some rank was asked to stop.
  bool evaluate_and_log() {
    const auto begin = Clock::now();
    const auto result = evaluate();
    if (!result) return false;
    eval_ = result;
    evaluated_step_ = step_;
    if (metrics_) alone([&] { metrics_->write(step_, *eval_); });
    say(describe("evaluation", *eval_) + fmt::format(" after step {} (epoch {:.2f})", step_, epoch()));
    interval_start_ += std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(since(begin)));
    return true;
  }

  /// Nothing where some rank was asked to stop: a scheduler does not wait for a long evaluation. The last one, which
  /// nothing but the end of the run follows, is always finished.
  std::optional<EvalMetrics> evaluate() {
    double sums[loss_sum_count] = {};
    NoHooks hooks;
    for (std::int64_t i = 0; i < eval_loader_->batches(); ++i) {
      if (i % batches_between_questions == 1 && step_ < total_steps_ && group_->any(stop_.pending()))
        return std::nullopt;
      watchdog_.beat("evaluation", static_cast<std::uint64_t>(step_));
      alone([&] {
        feed_->next(*eval_loader_, program_->slot(0));
        feed_->give_back(*eval_loader_);
        program_->run({Mode::evaluate, true, true}, 0, *store_, state_, hooks, *compute_);
        const float* const batch = model_->read_sums();
        for (std::size_t k = 0; k < loss_sum_count; ++k) sums[k] += static_cast<double>(batch[k]);
      });
    }
    const auto all = group_->all_gather(std::span(reinterpret_cast<const std::byte*>(sums), sizeof sums));
    double total[loss_sum_count] = {};
    for (const auto& one : all) {
      double theirs[loss_sum_count];
      std::memcpy(theirs, one.data(), sizeof theirs);
      for (std::size_t k = 0; k < loss_sum_count; ++k) total[k] += theirs[k];
    }
    EvalMetrics result{total[loss_sum] / total[weight_sum], -1};
    if (config_.model.loss == models::Loss::cross_entropy) result.accuracy = total[correct_sum] / total[weight_sum];
    return result;
  }

  static std::string describe(const char* what, const EvalMetrics& e) {
    std::string text = fmt::format("{} loss {:.4f}", what, e.loss);
    if (e.accuracy >= 0) text += fmt::format(", {} accuracy {:.4f}", what, e.accuracy);
    return text;
  }

  // ---- checkpoints ----------------------------------------------------------------------------------------------

  io::RunState run_state(std::int64_t step) const {
    io::RunState s;
    s.step = static_cast<std::uint64_t>(step);
    s.applied_steps = applied_;
    s.samples = static_cast<std::uint64_t>(step * config_.batch.global);
    s.epoch = static_cast<double>(s.samples) / static_cast<double>(samples_);
    s.global_batch = static_cast<std::uint64_t>(config_.batch.global);
    s.seed = config_.seed;
    s.data_fingerprint = train_data_->fingerprint();
    s.configuration = input_.canonical;
    s.configuration_hash = input_.hash;
    s.fields = input_.fields;
    s.versions = {{"dtrain", std::string(version())}};
    s.world_size = world_.size();
    s.run_id = run_id_;
    if (found_) s.parent_run_id = found_->state.run_id;
    s.metrics["train_loss"] = loss_;
    if (eval_) {
      s.metrics["eval_step"] = static_cast<double>(evaluated_step_);
      s.metrics["eval_loss"] = eval_->loss;
      if (eval_->accuracy >= 0) s.metrics["eval_accuracy"] = eval_->accuracy;
    }
    return s;
  }

  void save() {
    watchdog_.beat("save", static_cast<std::uint64_t>(step_));
    const auto begin = Clock::now();
    io::RunState s = run_state(step_);
    alone([&] {
      model_->pull();
      s.parameter_hash = model_->parameter_hash();
    });
    if (auto report = writer_->save(s, model_->tensors())) tell(*report);
    seconds_.checkpoint += since(begin);
  }

  void tell(const io::SaveReport& r) {
    if (r.durable) {
      say(fmt::format("checkpoint {} is durable ({:.1f} MiB, stall {:.1f} ms, written in {:.2f} s)", r.path,
                      static_cast<double>(r.bytes) / (1024.0 * 1024.0), 1e3 * r.copy_seconds, r.write_seconds));
    } else {
      if (progress_) progress_->line(fmt::format("checkpoint of step {} failed; training goes on", r.step));
      if (main_) print_line(stderr, fmt::format("error: checkpoint of step {}: {}", r.step, r.error));
    }
    for (const auto& remark : r.remarks) warn(remark);
  }

  void require_durable(const io::SaveReport& r) {
    tell(r);
    if (!r.durable) throw CheckpointError(fmt::format("the last checkpoint could not be written: {}", r.error));
  }

  ExitCode stopped() {
    save();
    if (auto report = writer_->finish()) require_durable(*report);
    progress_->finish();
    say(fmt::format("stopped by {} at step {} of {} with everything saved: run the same command again to go on",
                    stop_.pending() ? stop_.name() : std::string("a signal on another rank"), step_, total_steps_));
    return ExitCode::stopped;
  }

  // ---- the end ----------------------------------------------------------------------------------------------------

  void finish_summary() {
    if (!main_) return;
    model_->pull();
    const double seconds = since(start_);
    const std::int64_t samples = (step_ - first_step_) * config_.batch.global;
    Json eval = Json::object();
    if (eval_) {
      eval["loss"] = eval_->loss;
      if (eval_->accuracy >= 0) eval["accuracy"] = eval_->accuracy;
    }
    const Json summary{{"eval", eval},
                       {"train", {{"loss", loss_}}},
                       {"steps", step_},
                       {"epochs", epoch()},
                       {"samples", step_ * config_.batch.global},
                       {"seconds", seconds},
                       {"samples_per_second", train_seconds_ > 0 ? static_cast<double>(samples) / train_seconds_ : 0.0},
                       {"ranks", world_.size()},
                       {"device", device_->kind() == DeviceKind::cpu ? "cpu" : "cuda"},
                       {"precision", name_of(config_.precision)},
                       {"configuration_hash", input_.hash},
                       {"parameter_hash", model_->parameter_hash()},
                       {"version", version()}};
    write_whole_file(config_.log.directory, "summary.json", summary.dump(2) + "\n");
    if (eval_) {
      if (eval_->accuracy >= 0) say(fmt::format("test accuracy {:.4f}", eval_->accuracy));
      say(fmt::format("test loss {:.4f}", eval_->loss));
    }
    say(fmt::format("done: {} steps in {}, {:.0f} samples/s; summary in {}/summary.json", step_ - first_step_,
                    format_duration(seconds), train_seconds_ > 0 ? static_cast<double>(samples) / train_seconds_ : 0.0,
                    config_.log.directory));
  }

  const LoadedConfig& input_;
  const RunConfig& config_;
  comm::World& world_;
  StopSignals& stop_;
  std::unique_ptr<Group> group_;
  std::unique_ptr<Collective> collective_;
  comm::Watchdog& watchdog_;
  bool main_;

  BatchShare batch_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Stream> compute_;
  std::optional<io::Dataset> train_data_, eval_data_;
  std::unique_ptr<Program> program_;
  std::unique_ptr<ParameterStore> store_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<ModelState> model_;
  std::unique_ptr<comm::GradientReducer> reducer_;
  std::unique_ptr<io::Loader> loader_, eval_loader_;
  std::unique_ptr<Feed> feed_;
  std::unique_ptr<io::CheckpointWriter> writer_;
  std::optional<io::FoundCheckpoint> found_;
  std::string run_id_;

  StepState state_;
  std::int64_t step_ = 0;  // steps done
  std::int64_t first_step_ = 0, total_steps_ = 0, samples_ = 1;
  std::uint64_t applied_ = 0;
  double loss_ = 0;
  std::optional<EvalMetrics> eval_;
  std::int64_t evaluated_step_ = -1;  // what `eval_` is of

  std::unique_ptr<Progress> progress_;
  Progress::Now now_;
  std::optional<MetricsFile> metrics_;
  std::ofstream sample_log_;
  PhaseSeconds seconds_;  // sums since the last logged step
  std::int64_t interval_steps_ = 0, last_line_ = 0;
  bool log_due_ = false;
  double waited_before_ = 0, train_seconds_ = 0;
  Clock::time_point start_, interval_start_;
};

}  // namespace

std::unique_ptr<Device> make_run_device(DeviceChoice choice, int threads, const comm::World& world) {
  if (choice == DeviceChoice::cuda) return make_device(DeviceKind::cuda, world.local_rank());
  // `auto` means the CPU until the CUDA device has its kernels.
  if (threads <= 0) {
    const int online = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    threads = std::max(1, std::min(world.cpus(), online / world.local_size()));
  }
  return make_device(DeviceKind::cpu, 0, threads);
}

ExitCode train(const LoadedConfig& input, comm::World& world, StopSignals& stop) {
  // Outlives the report of what went wrong: its end waits for a save under way and for a sum on the wire, and the
  // other ranks do not wait for long.
  std::optional<Trainer> trainer;
  const auto report = [&](const std::string& text) {
    if (trainer) trainer->end_progress();
    std::fflush(stdout);
    std::fputs(text.c_str(), stderr);
    std::fflush(stderr);
  };
  try {
    trainer.emplace(input, world, stop);
    return trainer->run();
  } catch (const RankFailure& e) {
    const std::string where = world.size() > 1 ? fmt::format("rank {} ({}): ", world.rank(), world.host()) : "";
    report(fmt::format("error: {}{}\n", where, e.what()));
    world.abort(e.code());
  } catch (const std::exception& e) {
    ExitCode code = ExitCode::bug;
    const std::string text = error_text(e, code);
    if (world.rank() == 0) report(text);
    return code;
  }
}

}  // namespace dtrain::launch
