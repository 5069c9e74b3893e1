#include "launch/bench/step.hpp"

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "comm/collective/agree.hpp"
#include "comm/collective/reducer.hpp"
#include "io/dataset/dataset.hpp"
#include "io/dataset/loader.hpp"
#include "launch/base/alone.hpp"
#include "launch/base/text.hpp"
#include "launch/data/data.hpp"
#include "launch/data/device_data.hpp"
#include "launch/place/device_placement.hpp"
#include "launch/place/machine.hpp"
#include "launch/plan/bucket_tuning.hpp"
#include "launch/plan/layers.hpp"
#include "launch/plan/profile.hpp"
#include "launch/plan/statistics.hpp"
#include "launch/train/engine.hpp"
#include "launch/train/train_step.hpp"
#include "runtime/config/version.hpp"
#include "runtime/device/cuda_graph_cache.hpp"
#include "runtime/optim/optimizer.hpp"
#include "runtime/program/rates.hpp"

namespace dtrain::launch {

namespace {

using Json = nlohmann::ordered_json;

constexpr double rate_seconds = 0.6;  // of measuring what the machine can do
constexpr int profile_sizes = 3;      // micro batches of which parts are noted: m, m/2, m/4

struct Phase {
  const char* name;
  std::vector<double> seconds;  // by step
  Estimate estimate = {};
};
enum PhaseIndex : std::uint8_t { whole, data, forward, backward, exposed, optimizer, phase_count };

/// Notes when forward ends and when each bucket is complete, and sends nothing: by the host's clock, or by the device's
/// own events where it is asynchronous.
class PassTimes final : public StepHooks {
 public:
  PassTimes(Device& device, std::size_t buckets) : samples(buckets), ready_(buckets) {
    if (!device.asynchronous()) return;
    for (auto* event : {&begin_, &backward_, &end_}) *event = device.make_timer();
    for (std::size_t b = 0; b < buckets; ++b) marks_.push_back(device.make_timer());
  }
  void bucket_ready(int bucket, Stream& stream) override {
    const auto b = static_cast<std::size_t>(bucket);
    if (begin_) stream.record(*marks_[b]);
    ready_[b] = comm::seconds_now();
  }
  void params_needed(int, Stream&) override {}

  /// Around a pass.
  void begin(Program& program, Stream& stream) {
    if (!begin_) return;
    stream.record(*begin_);
    program.mark_backward(backward_.get());
  }
  void end(Program& program, Stream& stream) {
    if (!begin_) return;
    stream.record(*end_);
    program.mark_backward(nullptr);
  }
  /// What the latest pass, which is done, took.
  void read(const Program& program) {
    auto s = program.seconds();
    if (begin_) {
      s.forward = backward_->seconds_since(*begin_);
      s.backward = end_->seconds_since(*backward_);
    }
    forwards.push_back(s.forward);
    backwards.push_back(s.backward);
    for (std::size_t b = 0; b < ready_.size(); ++b)
      samples[b].push_back(begin_ ? marks_[b]->seconds_since(*backward_) : ready_[b] - s.begin - s.forward);
  }

  std::vector<std::vector<double>> samples;  // by bucket: seconds after forward
  std::vector<double> forwards, backwards;

 private:
  std::vector<double> ready_;
  std::unique_ptr<Event> begin_, backward_, end_;
  std::vector<std::unique_ptr<Event>> marks_;
};

class StepBench {
 public:
  StepBench(comm::World& world, const LoadedConfig& input, const StepBenchOptions& options, StopSignals& stop,
            std::unique_ptr<Device> device)
      : world_(world),
        input_(input),
        config_(input.config),
        options_(options),
        stop_(stop),
        device_(std::move(device)),
        group_(world.make_group()) {
    config_.batch.warmup = {};  // the step of the longest part of a run, in the micro batches of that run
  }

  BenchReport run() {
    const comm::Fact facts[] = {{"dtrain version", std::string(version())}, {"configuration hash", input_.hash}};
    comm::agree_on(*group_, world_.host(), facts);
    if (!device_) device_ = placed_device(config_, world_, *group_, placement_);
    group_->agree([&] {
      batch_ = check_batch(input_, world_.size());
      engine_.emplace(world_, std::move(device_));
    });
    engine_->connect(config_, world_);
    group_->agree([&] { set_up(); });
    const SumPath sums{*group_, engine_->collective(), engine_->device(), config_.communication.gradient_dtype,
                       config_.optimizer.shard && !needs_whole_parameters(config_.optimizer)};
    RunChoices choices(*group_);
    choices.recall(config_.log.directory);  // of the run that is timed, where there is one
    tune_buckets(config_, *graph_, batch_.accumulation, world_, sums, choices);
    choices.prepare(engine_->device(), [&] { prepare(); });
    start();
    time_steps();
    if (!options_.brief) {
      alone([&] { time_layers(); });
      group_->barrier();  // together: what all do at once is what a step can have
      alone([&] {
        matrix_rate_ = measure_matrix_rate(engine_->device(), config_.precision, rate_seconds);
        memory_rate_ = measure_memory_rate(engine_->device(), rate_seconds / 2);
      });
    }
    if (!options_.profile.empty()) note_profile();
    return {text(), json()};
  }

 private:
  void set_up() {
    data_.emplace(open_data(config_, config_.data.train, DataUse::training, config_.data.cache_mib));
    stored_ = stored_ports(*data_);
    graph_.emplace(training_graph(config_, batch_.micro, stored_));
    check_data(config_, *graph_, stored_, *data_, DataUse::training);
  }

  void prepare() {
    const std::vector<LoadedSet> sets =
        load_sets(config_, *graph_, stored_, *data_, nullptr, world_.rank(), world_.size(), engine_->device());
    engine_->bind(std::move(*graph_), config_, Mode::train, layouts_of(sets));
    step_.emplace(config_, *engine_, world_.watchdog(), stop_, batch_.accumulation);
    status_.batch = config_.batch.schedule();
    status_.samples = static_cast<std::int64_t>(data_->count());
    status_.total_steps =
        std::max<std::int64_t>(total_steps(config_, data_->count()), options_.warm_up + options_.steps);
    on_device_ = DeviceData::make(engine_->device(), engine_->compute(), sets[0]);
    loader_ = io::Loader::training(*data_, sets[0].options);
    step_->model().initialize(engine_->plan().graph, config_.seed);
    status_.loss_scale = loss_scaling(config_).initial;
  }

  void start() {
    std::vector<std::uint64_t> weights;  // reading them may fail on one rank alone
    group_->agree([&] { weights = loader_->loss_weights(0); });
    step_->start(status_, sum_weights(*group_, weights));
    engine_->pack();
    loader_->seek(0);
  }

  // ---- whole steps
  // ----------------------------------------------------------------------------------------------------

  void time_steps() {
    group_->barrier();
    double begin = 0;
    for (int i = -options_.warm_up; i < options_.steps; ++i) {
      if (i == 0) begin = comm::seconds_now();
      PhaseSeconds s;
      const double t = comm::seconds_now();
      step_->run(status_, *loader_, on_device_.get(), false, s);
      ++status_.step;
      bool stopped = false;
      while (step_->under_way() > step_->lag()) stopped = TrainStep::stop_requested(step_->read(s)) || stopped;
      const double seconds = comm::seconds_now() - t;
      if (stopped) throw Error(ExitCode::stopped, "stopped by a signal");
      if (i < 0) continue;
      const double rest = s.forward + s.backward + s.communication_exposed + s.optimizer;
      const double values[] = {seconds,    std::max(0.0, seconds - rest), s.forward,
                               s.backward, s.communication_exposed,       s.optimizer};
      for (std::size_t p = 0; p < phase_count; ++p) phases_[p].seconds.push_back(values[p]);
    }
    PhaseSeconds rest;
    while (step_->under_way() > 0) step_->read(rest);
    mean_seconds_ = (comm::seconds_now() - begin) / options_.steps;
    step_->settle();
    engine_->pack();
    for (Phase& phase : phases_) phase.estimate = median_of(phase.seconds);
    hosts_ = world_.host_count();
  }

  void time_layers() {
    LayerTimes times(engine_->plan(), engine_->device());
    NoHooks hooks;
    engine_->program().observe(&times);
    CudaGraphCache cache(engine_->device(), replays());
    for (int i = -warm_up(); i < std::min(options_.steps, 30); ++i) {
      cache.run(0, engine_->compute(), [&] { pass(*engine_, hooks); });
      engine_->compute().synchronize();
      if (i >= 0) times.pass_done();
    }
    engine_->program().observe(nullptr);
    layers_ = times.rows();
  }

  /// Passes by themselves are replayed where steps are: no layer waits for the host then.
  bool replays() const {
    return config_.cuda.graphs && engine_->device().asynchronous() && engine_->collective().recordable();
  }
  /// Passes until one is replayed.
  int warm_up() const { return engine_->device().asynchronous() ? 3 : 0; }

  void pass(Engine& engine, StepHooks& hooks) {
    engine.program().run({Mode::train, true, true}, 0, engine.store(), step_->state(), hooks, engine.compute());
  }

  // ---- parts for predictions
  // --------------------------------------------------------------------------------------------

  void note_profile() {
    std::vector<StepProfile> parts;
    std::int64_t micro = batch_.micro;
    for (int i = 0; i < profile_sizes && micro >= 1; ++i, micro /= 2) parts.push_back(measure_part(micro));
    group_->agree([&] {
      if (world_.rank() == 0)
        for (const StepProfile& part : parts) note(options_.profile, part);
    });
  }

  /// Forward and backward of one micro batch of this size, on all ranks at once and without communication.
  StepProfile measure_part(std::int64_t micro) {
    std::optional<Engine> own;
    if (micro != batch_.micro) {
      group_->agree([&] {
        own.emplace(world_, make_run_device(config_, world_, placement_));
        own->bind(training_graph(config_, micro, stored_),
                  config_);  // sums inside the graph are communication
        copy_inputs(*own);
      });
    }
    Engine& engine = own ? *own : *engine_;
    PassTimes times(engine.device(), engine.store().layout().buckets.size());
    CudaGraphCache cache(engine.device(), replays());
    for (int i = -3; i < std::max(options_.steps, 10); ++i) {
      group_->barrier();
      alone([&] {
        cache.run(0, engine.compute(), [&] {
          times.begin(engine.program(), engine.compute());
          pass(engine, times);
          times.end(engine.program(), engine.compute());
        });
        engine.compute().synchronize();
        if (i >= 0) times.read(engine.program());
      });
    }
    const double fraction = static_cast<double>(micro) / static_cast<double>(batch_.micro);
    StepProfile p;
    p.work = work_hash(input_);
    p.micro = micro;
    p.ranks_on_host = world_.local_size();
    p.threads = compute_threads(config_.threads, world_);
    p.cpus = std::min<double>(world_.cpus(), static_cast<double>(read_machine().cpus) / world_.local_size());
    p.data = phases_[data].estimate.value / static_cast<double>(batch_.accumulation) * fraction;
    p.forward = median_of(times.forwards).value;
    p.backward = median_of(times.backwards).value;
    p.update = phases_[optimizer].estimate.value;
    for (const auto& samples : times.samples) p.ready.push_back(median_of(samples).value);
    for (const Bucket& b : engine.store().layout().buckets)
      p.ends.push_back(static_cast<double>(b.end * sizeof(float)));
    return p;
  }

  /// The first samples of what the engine of the whole steps has, and its parameters.
  void copy_inputs(Engine& to) {
    const InputSlot &from_slot = engine_->program().slot(0), &to_slot = to.program().slot(0);
    const auto copy = [&](const Tensor& into, const Tensor& from) {
      if (into) to.device().copy(into.data, from.data, into.bytes(), to.compute());
    };
    for (std::size_t i = 0; i < to_slot.inputs.size(); ++i) copy(to_slot.inputs[i], from_slot.inputs[i]);
    copy(to_slot.positions, from_slot.positions);
    to.device().copy(to.store().params(), engine_->store().params(),
                     engine_->store().layout().param_floats * sizeof(float), to.compute());
    to.compute().synchronize();
    to.pack();
  }

  // ---- the report
  // -------------------------------------------------------------------------------------------------------

  double samples_per_second() const { return static_cast<double>(config_.batch.global) / mean_seconds_; }
  /// Of this rank, in a step.
  double flops() const {
    return engine_->plan().train_flops_per_sample * static_cast<double>(config_.batch.global) / world_.size();
  }
  double flops_rate() const { return flops() / phases_[whole].estimate.value; }

  /// Seconds that the machine's rates allow.
  double bound(const LayerPass& p) const {
    return std::max(matrix_rate_ > 0 ? p.flops / matrix_rate_ : 0, p.bytes / memory_rate_);
  }
  /// Those over the time taken.
  double of_bound(const LayerPass& p) const { return p.seconds.value > 0 ? bound(p) / p.seconds.value : 0; }

  /// Seconds of a step in which each layer runs at those rates, the update reads and writes each value once, and
  /// nothing else takes time: neither data nor communication.
  double step_bound() const {
    double micro_batch = 0;
    for (const LayerRow& row : layers_) micro_batch += bound(row.forward) + bound(row.backward);
    const double trained =
        static_cast<double>(engine_->store().layout().param_floats) / (config_.optimizer.shard ? world_.size() : 1);
    const double moved =
        trained * sizeof(float) * (3 + 2 * state_count(config_.optimizer));  // gradient, and to and fro
    return micro_batch * static_cast<double>(batch_.accumulation) + moved / memory_rate_;
  }

  std::string text() const {
    std::string out =
        fmt::format("{}: {} {} on {} {} ({}), global batch {} = {} x {} x {}; {} steps after {} of warm-up\n",
                    config_.name, world_.size(), world_.size() == 1 ? "rank" : "ranks", hosts_,
                    hosts_ == 1 ? "host" : "hosts", engine_->device().name(), config_.batch.global, world_.size(),
                    batch_.accumulation, batch_.micro, options_.steps, options_.warm_up);
    TextTable phases({"<phase", "ms (95 %)", "fastest", "of the step"});
    for (const Phase& p : phases_)
      phases.row({p.name, text_of(p.estimate, 1e3, 3), fmt::format("{:.3f}", p.estimate.least * 1e3),
                  fmt::format("{:.1f} %", 100 * p.estimate.value / phases_[whole].estimate.value)});
    out += "\n" + phases.str();
    out += fmt::format("\n{} samples/s; {}FLOP a step on each rank, {}FLOP/s",
                       grouped(std::int64_t(samples_per_second())), quantity(flops()), quantity(flops_rate()));
    if (options_.brief) return out + "\n";
    if (matrix_rate_ > 0)
      out += fmt::format(" = {:.0f} % of {}FLOP/s, the quickest matrix product here", 100 * flops_rate() / matrix_rate_,
                         quantity(matrix_rate_));
    out += fmt::format("; memory {}B/s copied (read and written)\n", quantity(memory_rate_));
    TextTable layers({"<layer", "<op", "forward ms", "FLOP/s", "of bound", "backward ms", "FLOP/s", "of bound"});
    for (const LayerRow& row : layers_) {
      std::vector<std::string> cells{row.name, row.op};
      for (const LayerPass* p : {&row.forward, &row.backward}) {
        cells.push_back(fmt::format("{:.3f}", p->seconds.value * 1e3));
        cells.push_back(p->flops > 0 && p->seconds.value > 0 ? quantity(p->flops / p->seconds.value) : "");
        cells.push_back(p->seconds.value > 0 ? fmt::format("{:.0f} %", 100 * of_bound(*p)) : "");
      }
      layers.row(cells);
    }
    out += "\n" + layers.str();
    out +=
        "\nLayers: medians of one micro batch, without communication. of bound: what the matrix product's rate, or "
        "that of\n"
        "copies for the bytes that must move, would take, over the time; above 100 % the caches hold what is read.\n";
    out += fmt::format(
        "The whole-step bound, all layers and the update at these rates and nothing else: {:.3f} ms; the step reaches "
        "{:.0f} % of it\n",
        1e3 * step_bound(), 100 * step_bound() / phases_[whole].estimate.value);
    return out;
  }

  Json pass_json(const LayerPass& p) const {
    return {{"seconds", to_json(p.seconds)}, {"flops", p.flops}, {"bytes", p.bytes}, {"of_bound", of_bound(p)}};
  }

  std::string json() const {
    Json seconds = Json::object();
    constexpr const char* keys[] = {"step", "data", "forward", "backward", "communication_exposed", "optimizer"};
    for (std::size_t p = 0; p < phase_count; ++p) seconds[keys[p]] = to_json(phases_[p].estimate);
    Json report{
        {"name", config_.name},
        {"ranks", world_.size()},
        {"hosts", hosts_},
        {"device", engine_->device().name()},
        {"batch", {{"global", config_.batch.global}, {"micro", batch_.micro}, {"accumulation", batch_.accumulation}}},
        {"steps", options_.steps},
        {"seconds", seconds},
        {"samples_per_second", samples_per_second()},
        {"flops_per_step", flops()},
        {"flops_per_second", flops_rate()}};
    if (!options_.brief) {
      report["matrix_flops_per_second"] = matrix_rate_;
      report["memory_bytes_per_second"] = memory_rate_;
      report["step_bound_seconds"] = step_bound();
      report["layers"] = Json::array();
      for (const LayerRow& row : layers_)
        report["layers"].push_back({{"name", row.name},
                                    {"op", row.op},
                                    {"forward", pass_json(row.forward)},
                                    {"backward", pass_json(row.backward)}});
    }
    return report.dump(2) + "\n";
  }

  comm::World& world_;
  const LoadedConfig& input_;
  RunConfig config_;  // with bucket sizes, once they are chosen
  const StepBenchOptions& options_;
  StopSignals& stop_;
  std::unique_ptr<Device> device_;  // until the engine has it; a test may bring its own
  std::unique_ptr<Group> group_;
  DevicePlacement placement_;
  BatchSplit batch_;
  RunStatus status_;
  std::optional<Engine> engine_;
  std::optional<Graph> graph_;  // until the engine has it
  std::optional<io::Dataset> data_;
  models::StoredPorts stored_;
  std::unique_ptr<DeviceData> on_device_;
  std::unique_ptr<io::Loader> loader_;
  std::optional<TrainStep> step_;

  std::array<Phase, phase_count> phases_{
      Phase{"step", {}}, {"data", {}}, {"forward", {}}, {"backward", {}}, {"exposed communication", {}},
      {"update", {}}};
  double mean_seconds_ = 0, matrix_rate_ = 0, memory_rate_ = 0;
  int hosts_ = 1;
  std::vector<LayerRow> layers_;
};

}  // namespace

BenchReport bench_step(comm::World& world, const LoadedConfig& input, const StepBenchOptions& options,
                       StopSignals& stop, std::unique_ptr<Device> device) {
  return StepBench(world, input, options, stop, std::move(device)).run();
}

}  // namespace dtrain::launch
