// The plan: one list of steps for a training pass and one for evaluation, with the lifetimes, memory offsets, parameter
// order, buckets and costs that follow from it. Pure functions over a Graph; plain data, no device, printed by `dtrain
// check`.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <variant>
#include <vector>

#include "runtime/graph/graph.hpp"
#include "runtime/plan/flat.hpp"

namespace dtrain {

struct Forward {
  NodeId node;
};
struct Recompute {
  NodeId node;
};
struct BackwardActivation {
  NodeId node;
};
struct BackwardData {
  NodeId node;
};
struct BackwardParams {
  NodeId node;
};
/// Both at once: see OpShape::backward_at_once. Of some losses their value too: see OpShape::loss_in_backward.
struct Backward {
  NodeId node;
};
/// The value (or its gradient) is summed over all ranks, in place.
struct CrossRankSum {
  ValueId value{};  // a root
  bool gradient = false;
};
/// All gradients of the bucket are complete (in the last micro batch).
struct BucketReady {
  int bucket;
};
/// The parameters of this bucket are read from here on.
struct ParamsNeeded {
  int bucket;
};
using Step = std::variant<Forward, Recompute, BackwardActivation, BackwardData, BackwardParams, Backward, CrossRankSum,
                          BucketReady, ParamsNeeded>;

enum class MemoryKind : std::uint8_t { activation, saved, gradient, workspace };

/// A range of the arena with the steps between which it is alive.
struct Block {
  MemoryKind kind = MemoryKind::activation;
  std::string name;
  std::size_t bytes = 0;
  int first = 0, last = 0;  // indices into steps, inclusive
  std::size_t offset = 0;   // chosen by the packer; 64-byte aligned
};

/// Offsets for all blocks so that blocks alive at the same step do not overlap; returns the arena's size. Greedy,
/// largest first.
std::size_t pack_blocks(std::vector<Block>&);

/// Where the tensors of one pass live: indices into `blocks`, -1 where there is none (graph inputs, loss sums, unused).
struct PassPlan {
  std::vector<Step> steps;
  std::vector<Block> blocks;
  std::vector<int> value;                       // by value; a view has its root's block
  std::vector<int> value_backward;              // by value: what Recompute and backward see of it; mostly the same
  std::vector<int> gradient;                    // by value; -1 where nobody wants it
  std::vector<std::vector<int>> saved;          // by node
  std::vector<int> workspace;                   // by step
  std::vector<std::vector<Write>> input_write;  // by node and input: how backward writes the gradient
  std::vector<std::vector<bool>> param_first;   // by node and parameter: first contribution of the pass
  std::size_t arena_bytes = 0;
};

struct Plan {
  Graph graph{0};
  std::vector<ValueId> root;  // by value: the value whose memory it is, itself unless it is a view
  PassPlan train, evaluate;
  std::vector<std::size_t> packed_offset;  // by node, into the packed parameters
  std::size_t packed_bytes = 0;
  FlatLayout layout;
  double flops_per_sample = 0;        // forward
  double model_flops_per_sample = 0;  // forward and backward, without what is computed again
  double train_flops_per_sample = 0;  // with it
  std::size_t arena_bytes() const noexcept { return std::max(train.arena_bytes, evaluate.arena_bytes); }
};

/// What the planner asks of a device; without one, `estimated_needs` gives stated bounds.
using NeedsOf = std::function<Needs(NodeId)>;

/// What is not kept for backward but computed again: nothing, cheap ops (norms, activations, dropout, pooling), or
/// all between points that a single value passes (Chen et al. 2016). The bits are the same.
enum class RecomputePolicy : std::uint8_t { none, light, block };

struct PlanOptions {
  BucketOptions buckets;
  RecomputePolicy recompute = RecomputePolicy::none;
  NeedsOf needs;      // empty: estimated_needs, and `dtrain check` says so
  bool train = true;  // false: Plan::train stays empty, and so does what only training needs of memory
};

/// Upper bounds for workspaces where no device is at hand.
Needs estimated_needs(const GraphNode&, const OpUse&);

/// Order of parameters, steps, lifetimes, offsets. Throws BugError on an inconsistent graph.
Plan make_plan(Graph, const PlanOptions&);

/// Bytes by kind, for `dtrain check`.
struct MemoryUse {
  std::size_t parameters = 0, gradients = 0, optimizer = 0, packed = 0, arena = 0, inputs = 0;
  std::size_t total() const noexcept { return parameters + gradients + optimizer + packed + arena + inputs; }
};
/// `optimizer_floats`: floats of state a parameter (0 SGD, 1 momentum, 2 Adam); `shards`: ranks that share them.
MemoryUse memory_use(const Plan&, int optimizer_floats, int shards = 1);

}  // namespace dtrain
