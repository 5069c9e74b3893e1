// The flat parameter layout: every trained parameter's place in one f32 buffer, ordered as backward finishes gradients,
// cut into buckets; kept states and frozen parameters lie behind them. FlatLayout and Bucket are plain data of the
// plan; ParameterStore owns the parameters and one buffer for gradients on a device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/device/device.hpp"
#include "runtime/graph/graph.hpp"

namespace dtrain {

/// Where a parameter lies, in floats from the start of the flat buffers. Aligned to 16 floats; the gap up to the next
/// is zero for ever.
struct FlatParam {
  ParamId id = -1;  // index in Graph::params()
  std::string name;
  Shape shape;
  std::size_t offset = 0;
  std::size_t size = 0;  // elements
  bool decay = true;
  ParamUpdate update = {};
  std::vector<std::int64_t> matrices = {};  // see GraphParam
};

/// Where a kept state lies: its value in the buffer of parameters, and the sum of the step's statistics at the same
/// place of the buffer of gradients.
struct FlatState {
  StateId id = -1;  // index in Graph::states()
  std::string name;
  Shape shape;
  std::size_t offset = 0, size = 0;
  float initial = 0;
  double momentum = 0.1;
  bool kept = true;  // in checkpoints
};

/// A contiguous range [begin, end) of the flat gradient buffer that is reduced at once. May cut through a parameter.
struct Bucket {
  std::size_t begin = 0, end = 0;
  std::size_t bytes() const noexcept { return (end - begin) * sizeof(float); }
};

/// [0, param_floats) trained parameters | [param_floats, state_end) kept states | `extras` floats: the LossSums of
/// each loss, the StepTail, and zeros | frozen parameters, which the buffer of gradients and optimizer state do not
/// have. States and extras are inside the last bucket, frozen parameters in none.
struct FlatLayout {
  static constexpr std::size_t alignment = 16;  // floats: 64 bytes

  std::vector<FlatParam> params;  // in flat order: the first is ready first; frozen ones behind the trained ones
  std::vector<FlatState> states;  // in graph order
  std::vector<Bucket> buckets;    // in flat order: bucket 0 is ready first
  std::size_t param_floats = 0;   // up to here trained parameters, aligned
  std::size_t state_floats = 0;   // behind them states, aligned
  std::size_t losses = 1;         // whose sums are behind states
  std::size_t extras = extras_for(1, 0);
  std::size_t frozen_floats = 0;  // behind states and extras: frozen parameters, aligned
  /// Where no shard may cut through a parameter: shard r is [whole_shards[r], whole_shards[r + 1]). Else empty.
  std::vector<std::size_t> whole_shards;
  std::size_t state_end() const noexcept { return param_floats + state_floats; }
  /// Where the StepTail lies.
  std::size_t tail_begin() const noexcept { return state_end() + losses * sums_per_loss; }
  /// Of so many losses, some of them counted.
  static constexpr std::size_t extras_for(std::size_t losses, std::size_t counted) noexcept {
    return (losses * sums_per_loss + StepTail::floats(counted) + alignment - 1) / alignment * alignment;
  }
  /// Of the gradients, and of what lies beside them.
  std::size_t total_floats() const noexcept { return state_end() + extras; }
  /// Of the parameters.
  std::size_t all_floats() const noexcept { return total_floats() + frozen_floats; }
  std::span<const FlatParam> trained() const noexcept;
  std::span<const FlatParam> frozen() const noexcept;
  const FlatParam& of(ParamId) const;
};

struct BucketOptions {
  double bucket_mib = 25;      // largest bucket
  double last_bucket_mib = 1;  // the last one is what is exposed: smaller
  int at_least = 4;            // aim for so many buckets where the model is small ...
  double smallest_mib = 0.25;  // ... but not for smaller ones than this
  int shards = 1;              // the parameters of every bucket are cut into so many equal shards of whole norm blocks
  bool whole = false;          // shards end where parameters end; they are unequal, and buckets are as with one shard
};

/// Which part of the parameters is a rank's own, where the optimizer is sharded (ZeRO-1).
struct Shard {
  int rank = 0, ranks = 1;
};
/// The trained parameters of a bucket: without what lies behind the last one.
Bucket parameters_of(const FlatLayout&, std::size_t bucket);
/// The rank's shard of them, which may be empty where shards are whole. The layout was planned for so many shards.
Bucket shard_of(const FlatLayout&, std::size_t bucket, Shard);
/// Floats of one of a rank's buffers of optimizer state: laid out like the parameters, or its shards one after another.
std::size_t optimizer_state_floats(const FlatLayout&, Shard);
/// The same of the rank that has most.
std::size_t most_optimizer_state_floats(const FlatLayout&, int shards);
/// Cuts the parameters, in flat order, into so many contiguous runs of whole ones that the longest is as short as can
/// be. Returns ranks + 1 offsets in floats; a run may be empty. Pure.
std::vector<std::size_t> cut_whole_shards(std::span<const FlatParam>, std::size_t param_floats, int shards);

/// Cuts [0, total) into buckets; the last one holds at least `tail` floats. Pure.
std::vector<Bucket> cut_buckets(std::size_t total_floats, const BucketOptions&, std::size_t tail = 0);

/// Owns parameters and gradients, f32, flat.
class ParameterStore {
 public:
  /// `memory`: in place of the device's own.
  ParameterStore(Device&, const FlatLayout&, Memory* memory = nullptr);
  const FlatLayout& layout() const noexcept { return layout_; }
  float* params() const noexcept { return static_cast<float*>(params_.data()); }
  float* gradients() const noexcept { return static_cast<float*>(gradients_.data()); }
  Tensor param(ParamId) const;
  /// Of a trained parameter.
  Tensor gradient(ParamId) const;
  Tensor state(StateId) const;
  Tensor state_sums(StateId) const;
  Tensor bucket(std::size_t index) const;  // view of the gradients, rank 1
  /// In the extras behind the gradients: sums of the graph's loss with this index (LossSum).
  Tensor loss_sums(std::size_t loss = 0) const;

 private:
  FlatLayout layout_;
  Buffer params_, gradients_;
};

/// Fills the (host-visible) parameters and states from the graph's specs; keyed by (seed, parameter index), so equal on
/// every rank.
void initialize(float* flat_params, const FlatLayout&, const Graph&, std::uint64_t seed);

/// Hash of names, shapes and fp32 bytes in name order: independent of ranks, buckets and flat order. 16 hex digits
/// (XXH3-64).
std::string parameter_hash(const float* flat_params, const FlatLayout&);
/// Of some of them: layout.frozen(), say.
std::string parameter_hash(const float* flat_params, std::span<const FlatParam>);

}  // namespace dtrain
