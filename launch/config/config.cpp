#include "launch/config/config.hpp"

#include <utility>

#include "comm/collective/tables.hpp"
#include "io/checkpoint/tables.hpp"
#include "io/dataset/tables.hpp"
#include "launch/config/tables.hpp"
#include "models/model/build.hpp"
#include "models/model/ports.hpp"
#include "runtime/optim/matrices.hpp"
#include "runtime/optim/optimizer_fields.hpp"

namespace dtrain::launch {

namespace {

TypePtr<BatchWarmup> batch_warmup_table() {
  Table<BatchWarmup> warmup(
      "The batch grows in equal steps from a smaller one to batch.global, as Megatron's rampup-batch-size. The "
      "learning "
      "rate does not follow it.");
  warmup.add("from", &BatchWarmup::from, integer({0, 1'000'000'000}), "samples of the first update; 0: no warm-up");
  warmup.add("increment", &BatchWarmup::increment, integer({0, 1'000'000'000}),
             "the batch grows by so many samples at a time; 0: by `from`");
  warmup.add(
      "samples", &BatchWarmup::samples, integer({0, 1'000'000'000'000'000}),
      "the batch has grown to batch.global after so many samples; each smaller size takes an equal part of them");
  return shared(std::move(warmup));
}

TypePtr<BatchConfig> batch_table() {
  Table<BatchConfig> batch("Samples of a step. What is trained depends on `global` alone.");
  batch.add("global", &BatchConfig::global, integer({1, 1'000'000'000}), "samples of one update, over all ranks");
  batch
      .add("micro", &BatchConfig::micro, word_or("auto", 0, integer({1, 1'000'000'000})),
           "samples that a rank computes at once; auto: batch.global divided by the number of ranks; smaller numbers "
           "use "
           "gradient accumulation")
      .may_change();
  batch.add("warmup", &BatchConfig::warmup, batch_warmup_table(), "begin with a smaller batch, which grows to `global`")
      .shown_if([](const auto& b) { return b.warmup != BatchWarmup(); });
  return shared(std::move(batch));
}

TypePtr<EmaConfig> ema_table() {
  Table<EmaConfig> ema(
      "A moving average of the parameters: average = decay * average + (1 - decay) * parameters. After t updates the "
      "decay is at most (1 + t) / (10 + t), so that the average of a short run is not of its first steps.");
  ema.add("decay", &EmaConfig::decay, number({.least = 0, .most = 1, .below_most = true}),
          "0.999 averages over about 1000 steps; 0: no average");
  return shared(std::move(ema));
}

/// Powers of two leave the bits of gradients alone.
TypePtr<double> scale() {
  return number({.least = 1e-9, .most = 1e38});
}

TypePtr<DynamicLossScale> dynamic_loss_scale_table() {
  Table<DynamicLossScale> table(
      "A loss scale that is halved, and the update skipped, where a gradient is not finite, and doubled after so many "
      "updates in a row.");
  table.add("initial", &DynamicLossScale::initial, scale(), "the scale in the first step");
  table.add("growth_steps", &DynamicLossScale::growth_steps, integer({1, 1'000'000'000}),
            "updates in a row, after which it is doubled");
  table.add("minimum", &DynamicLossScale::minimum, scale(),
            "it goes no lower; a gradient that is not finite at this scale ends the run");
  table.add("maximum", &DynamicLossScale::maximum, scale(), "it goes no higher");
  return shared(std::move(table));
}

TypePtr<StopAfter> stop_after_table() {
  Table<StopAfter> stop(
      "Early stopping: the run ends, finished, when so many evaluations in a row were not better than the best before "
      "them. Better is what checkpoint.best says, or a lower loss.");
  stop.add("evaluations", &StopAfter::evaluations, integer({0, 1'000'000'000}), "so many; 0: never");
  stop.add("better_by", &StopAfter::better_by, number({.least = 0}),
           "an evaluation is better only by more than this, in loss or accuracy");
  return shared(std::move(stop));
}

TypePtr<Target> target_table() {
  Table<Target> target("The run ends, finished, with the first evaluation that is as good as one of these.");
  target.add("loss", &Target::loss, word_or("none", Target::none, number({.least = 0})), "this loss, or a lower one");
  target.add("accuracy", &Target::accuracy, word_or("none", Target::none, number({.least = 0, .most = 1})),
             "this accuracy, or a higher one");
  return shared(std::move(target));
}

TypePtr<TrainConfig> train_table() {
  Table<TrainConfig> train("How long training lasts, and what happens on the way.");
  train.add("epochs", &TrainConfig::epochs, integer({1, 1'000'000'000}), "passes over the data")
      .shown_if([](const auto& t) { return t.steps == 0; });
  train.add("steps", &TrainConfig::steps, integer({1}), "number of updates, in place of epochs")
      .shown_if([](const auto& t) { return t.steps > 0; });
  train.exclusive("epochs", "steps");
  train.add(
      "clip_norm", [](auto& t) -> auto& { return t.clip.max_norm; }, number({.least = 0}),
      "gradients of a larger global norm are scaled down to it; 0: never");
  train
      .add("ema", &TrainConfig::ema, ema_table(),
           "evaluate, and use the model, with an average of the parameters over the latest steps")
      .shown_if([](const auto& t) { return t.ema.decay > 0; });
  train.add(
      "loss_scale", &TrainConfig::loss_scale,
      word_or("auto", TrainConfig::automatic_scale, word_or("dynamic", TrainConfig::dynamic_scale, scale())),
      "the loss (the sum over the batch) is multiplied by it before backward, and the gradients are divided by it in "
      "the update, so that float16 does not round small gradients to 0; auto: dynamic where precision is float16, else "
      "1");
  train
      .add("dynamic_loss_scale", &TrainConfig::dynamic_loss_scale, dynamic_loss_scale_table(),
           "how a dynamic loss scale moves")
      .shown_if([](const auto& t) {
        return t.loss_scale == TrainConfig::dynamic_scale || t.dynamic_loss_scale != DynamicLossScale();
      });
  train.add("eval_every_steps", &TrainConfig::eval_every_steps, integer(),
            "evaluate after so many steps; 0: after each epoch. Always at the end");
  train
      .add("stop_after", &TrainConfig::stop_after, stop_after_table(),
           "end the run early, when evaluations do not get better any more")
      .shown_if([](const auto& t) { return t.stop_after.evaluations > 0; });
  train.add("target", &TrainConfig::target, target_table(), "end the run when an evaluation is good enough")
      .shown_if([](const auto& t) { return t.target.loss >= 0 || t.target.accuracy >= 0; });
  train
      .add(
          "max_hours", &TrainConfig::max_hours, number({.least = 0}),
          "after so many hours the command saves and ends with exit code 75 (0 with `dtrain --done`); the same command "
          "goes on from there, for as long again; 0: no limit")
      .shown_if([](const auto& t) { return t.max_hours > 0; });
  return shared(std::move(train));
}

TypePtr<TraceConfig> trace_table() {
  Table<TraceConfig> trace("A timeline of all ranks, trace.json, for ui.perfetto.dev: what each rank did, and when.");
  trace.add("first_step", &TraceConfig::first_step, integer({1}), "the first step of the timeline");
  trace.add("steps", &TraceConfig::steps, integer({0, 1'000'000}), "number of steps in the timeline; 0: no timeline");
  return shared(std::move(trace));
}

TypePtr<MemoryConfig> memory_table() {
  Table<MemoryConfig> memory("Settings that save memory and cost computation.");
  memory.add(
      "recompute", &MemoryConfig::recompute,
      choice<RecomputePolicy>(
          {{"none", RecomputePolicy::none}, {"light", RecomputePolicy::light}, {"block", RecomputePolicy::block}}),
      "what backward computes again instead of keeping it, with the same bits; light: norms, activations, "
      "pooling; block: whole blocks of layers");
  return shared(std::move(memory));
}

TypePtr<CudaConfig> cuda_table() {
  Table<CudaConfig> cuda("Settings of GPUs; the cpu ignores them.");
  cuda.add(
      "tf32", &CudaConfig::tf32, boolean(),
      "precision: float32 rounds the factors of products and convolutions to TF32 (10 bits): several times faster, "
      "about 1e-3 from float32");
  cuda.add("graphs", &CudaConfig::graphs, boolean(),
           "capture the work of a step once as a CUDA graph and replay it, with the same bits, where that is possible");
  cuda.add("synchronous", &CudaConfig::synchronous, boolean(),
           "wait after each layer, so that an error names the layer it happened in; slow, without graphs");
  cuda.add(
      "share_gpus", &CudaConfig::share_gpus, boolean(),
      "let several ranks compute on one GPU, for tests; NCCL then treats each rank as a host of its own, and sums are "
      "slow");
  cuda.add("mixed_models", &CudaConfig::mixed_models, boolean(),
           "train on GPUs of different models, at the pace of the slowest");
  cuda.add(
      "affinity", &CudaConfig::affinity, boolean(),
      "bind each rank to cores near its GPU, divided equally among the ranks there, unless the launcher has bound it");
  return shared(std::move(cuda));
}

TypePtr<LogConfig> log_table() {
  Table<LogConfig> log("What a run reports, and where.");
  log.add("every_steps", &LogConfig::every_steps, integer({1}), "write a line of metrics after so many steps");
  log.add("directory", &LogConfig::directory, text_or_empty(), "directory of this run's files; by default runs/<name>")
      .shown_if([](const auto& l) { return !l.directory.empty(); });
  log.add("samples", &LogConfig::samples, boolean(), "write which samples each rank took in every step");
  log.add("trace", &LogConfig::trace, trace_table(), "a timeline of some steps");
  return shared(std::move(log));
}

}  // namespace

LossScaling loss_scaling(const RunConfig& config) {
  const TrainConfig& t = config.train;
  const bool automatic = t.loss_scale == TrainConfig::automatic_scale;
  LossScaling scaling;
  scaling.dynamic = t.loss_scale == TrainConfig::dynamic_scale || (automatic && config.precision == DType::f16);
  scaling.initial = static_cast<float>(scaling.dynamic ? t.dynamic_loss_scale.initial : automatic ? 1 : t.loss_scale);
  scaling.growth_steps = static_cast<std::uint32_t>(t.dynamic_loss_scale.growth_steps);
  scaling.minimum = static_cast<float>(t.dynamic_loss_scale.minimum);
  scaling.maximum = static_cast<float>(t.dynamic_loss_scale.maximum);
  return scaling;
}

PlanOptions plan_options(const RunConfig& config, int ranks) {
  PlanOptions options;
  // What is to be chosen at start has BucketOptions' default until then.
  const comm::CommConfig& c = config.communication;
  if (c.bucket_mib > 0) options.buckets.bucket_mib = c.bucket_mib;
  if (c.last_bucket_mib > 0) options.buckets.last_bucket_mib = c.last_bucket_mib;
  options.buckets.at_least = c.least_buckets;
  options.buckets.shards = config.optimizer.shard ? ranks : 1;
  options.buckets.whole = config.optimizer.shard && needs_whole_parameters(config.optimizer);
  options.recompute = config.memory.recompute;
  return options;
}

models::StoredPorts mixed_ports(const RunConfig& config, models::StoredPorts stored) {
  stored.mixed = config.data.mix.on();
  return stored;
}

Graph training_graph(const RunConfig& config, std::int64_t micro, const models::StoredPorts& stored) {
  Graph graph = models::build(config.model, micro, config.precision, mixed_ports(config, stored));
  apply_groups(graph, config.optimizer.groups);
  mark_matrices(graph, config.optimizer);
  return graph;
}

CudaOptions cuda_options(const RunConfig& config, int ranks) {
  return {.tf32 = config.cuda.tf32,
          .nondeterministic = config.deterministic == Deterministic::off,
          .own_norms = ranks > 1 || config.deterministic == Deterministic::elastic};
}

TypePtr<RunConfig> run_table() {
  static const TypePtr<RunConfig> table = [] {
    Table<RunConfig> run("Everything of a run.");
    run.add("name", &RunConfig::name, text(), "name of the run; its files go to runs/<name>").may_change();
    run.add("seed", &RunConfig::seed, integer<std::uint64_t>(), "seed of every random draw");
    run.add("device", &RunConfig::device,
            choice<DeviceChoice>(
                {{"auto", DeviceChoice::automatic}, {"cpu", DeviceChoice::cpu}, {"cuda", DeviceChoice::cuda}}),
            "the device that computes; auto: GPUs where every rank has one")
        .may_change();
    run.add(
        "precision", &RunConfig::precision,
        choice<DType>({{"float32", DType::f32}, {"bfloat16", DType::bf16}, {"float16", DType::f16}}),
        "the type that layers compute with; parameters, their updates and losses stay float32; float16 needs device: "
        "cuda, and scales its loss (train.loss_scale)");
    run.add("threads", &RunConfig::threads, word_or("auto", 0, integer<int>({1, 4096})),
            "compute threads of each rank on the cpu; auto: as many as the cores that it may use")
        .may_change();
    run.add("model", &RunConfig::model, models::model_table(), "the network").required();
    run.add("data", &RunConfig::data, io::data_table(), "where samples come from").required();
    run.add("batch", &RunConfig::batch, batch_table(), "samples of a step");
    run.add("optimizer", &RunConfig::optimizer, optimizer_table(), "how parameters are updated").may_change();
    run.add("schedule", &RunConfig::schedule, schedule_table(), "the learning rate over time").may_change();
    run.add("train", &RunConfig::train, train_table(), "how long training lasts").may_change();
    run.add("memory", &RunConfig::memory, memory_table(), "settings that save memory");
    run.add("cuda", &RunConfig::cuda, cuda_table(), "settings of GPUs");
    run.add("communication", &RunConfig::communication, comm::communication_table(), "how ranks sum their gradients")
        .may_change();
    run.add("checkpoint", &RunConfig::checkpoint, io::checkpoint_table(), "saving and resuming").may_change();
    run.add(
        "deterministic", &RunConfig::deterministic,
        choice<Deterministic>(
            {{"run", Deterministic::run}, {"elastic", Deterministic::elastic}, {"off", Deterministic::off}}),
        "run: the same command gives the same bits; elastic: 1, 2, 4, 8, ... ranks give the same bits, with the same "
        "batch.micro (sums in fixed trees; one compute thread for each rank unless `threads` is set, on which the bits "
        "depend); off: neither");
    run.add("log", &RunConfig::log, log_table(), "what a run reports").may_change();
    return shared(std::move(run));
  }();
  return table;
}

}  // namespace dtrain::launch
