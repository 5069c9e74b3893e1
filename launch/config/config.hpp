// Everything a run is told: one plain struct made of the floors' own settings.
// Values only; filled by launch/config/config_file.hpp from YAML, overrides and defaults.
#pragma once

#include <cstdint>
#include <string>

#include "comm/collective/config.hpp"
#include "io/checkpoint/config.hpp"
#include "io/dataset/config.hpp"
#include "models/model/ports.hpp"
#include "runtime/device/device.hpp"
#include "runtime/optim/batch_schedule.hpp"
#include "runtime/optim/optimizer.hpp"
#include "runtime/plan/plan.hpp"

namespace dtrain::launch {

enum class DeviceChoice : std::uint8_t { automatic, cpu, cuda };
enum class Deterministic : std::uint8_t { run, elastic, off };

struct BatchConfig {
  std::int64_t global = 128;
  std::int64_t micro = 0;  // 0: auto, global / ranks
  BatchWarmup warmup;
  BatchSchedule schedule() const { return {global, warmup}; }
};
/// Exponential moving average of the parameters.
struct EmaConfig {
  double decay = 0;  // 0: none
};
/// `train.dynamic_loss_scale`: see LossScaling.
struct DynamicLossScale {
  double initial = 65536, minimum = 0x1p-10, maximum = 16777216;
  std::int64_t growth_steps = 2000;
  friend bool operator==(const DynamicLossScale&, const DynamicLossScale&) = default;
};
/// `train.stop_after`: early stopping.
struct StopAfter {
  std::int64_t evaluations = 0;  // 0: never
  double better_by = 0;
};
/// `train.target`: good enough; below 0: none.
struct Target {
  static constexpr double none = -1;
  double loss = none, accuracy = none;
};
struct TrainConfig {
  static constexpr double automatic_scale = 0, dynamic_scale = -1;
  std::int64_t epochs = 1;
  std::int64_t steps = 0;  // > 0: instead of epochs
  Clipping clip;           // `clip_norm`
  EmaConfig ema;
  double loss_scale = automatic_scale;  // that, dynamic_scale, or the scale
  DynamicLossScale dynamic_loss_scale;
  std::int64_t eval_every_steps = 0;  // 0: at the end of each epoch, and at the end
  StopAfter stop_after;
  Target target;
  double max_hours = 0;  // of this process; 0: no limit
  bool done = false;     // it is a success to be ended by max_hours: no setting, the command says it
};
struct TraceConfig {
  std::int64_t first_step = 10;
  std::int64_t steps = 0;  // 0: no timeline
};
struct LogConfig {
  std::int64_t every_steps = 10;
  std::string directory;  // empty: runs/<name>
  bool samples = false;   // samples-rank-R.txt: stream positions and sample indices of every step
  TraceConfig trace;      // trace.json
};

struct MemoryConfig {
  RecomputePolicy recompute = RecomputePolicy::none;
};

/// Of GPUs.
struct CudaConfig {
  bool tf32 = false;
  bool graphs = true;
  bool synchronous = false;
  bool share_gpus = false;    // several ranks may compute on one
  bool mixed_models = false;  // GPUs may differ
  bool affinity = true;       // ranks are bound to cores near their GPUs
};

struct RunConfig {
  std::string name = "run";
  std::uint64_t seed = 1;
  DeviceChoice device = DeviceChoice::automatic;
  DType precision = DType::f32;
  int threads = 0;  // compute threads a rank on the cpu; 0: allowed cores / local ranks
  models::ModelConfig model;
  io::DataConfig data;
  BatchConfig batch;
  UpdateRule optimizer{Sgd{}};
  Schedule schedule;
  TrainConfig train;
  MemoryConfig memory;
  CudaConfig cuda;
  comm::CommConfig communication;
  io::CheckpointConfig checkpoint;
  Deterministic deterministic = Deterministic::run;
  LogConfig log;
};

/// With what data.mix makes of them.
models::StoredPorts mixed_ports(const RunConfig&, models::StoredPorts);

/// What these settings make of the loss scale: dynamic where they say so, or where layers compute in float16 and they
/// say nothing; else `initial` is the scale of all steps.
LossScaling loss_scaling(const RunConfig&);
/// What these settings say of the plan of a run on so many ranks.
PlanOptions plan_options(const RunConfig&, int ranks);
/// The model for micro batches of so many samples, with what optimizer.groups say of its parameters.
Graph training_graph(const RunConfig&, std::int64_t micro, const models::StoredPorts& = {});
/// What they say of its CUDA devices.
/// Norms of several ranks go by own kernels: cuDNN's wait for all of a GPU's processors at once, some of which a
/// collective beside them holds until other ranks come; and `elastic` promises the bits of any number of ranks.
CudaOptions cuda_options(const RunConfig&, int ranks);

}  // namespace dtrain::launch
