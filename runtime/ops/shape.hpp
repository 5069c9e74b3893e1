// What shape inference says of an op: outputs, parameters, what is kept for backward, and what the planner may do with
// it. Plain data; nothing here knows a device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/tensor/tensor.hpp"

namespace dtrain {

/// An op as users write it: kinds.hpp.
template <class Op>
struct OpKind;

/// How a parameter is filled at the start; draws are keyed by (seed, Purpose::init, parameter index in the graph,
/// element).
struct Init {
  enum class Kind : std::uint8_t { zeros, ones, uniform, normal } kind = Kind::zeros;
  double scale = 0;  // half width of uniform, standard deviation of normal
};

/// How a layer of weights and biases is filled. What is not set: uniform within 1 / sqrt(fan_in), as in PyTorch.
struct AffineInit {
  std::optional<Init> weight{}, bias{};
};

/// A trained parameter of an op: canonical (logical, plain) shape, always f32.
struct ParamDesc {
  std::string_view name;  // "weight", "bias"
  TensorDesc desc;
  Init init;
  bool decay = true;  // weight decay applies (not to biases and norms)
};

/// A kept value of an op that is not trained, always f32: running statistics.
struct StateDesc {
  std::string_view name;  // "running_mean"
  TensorDesc desc;
  float initial = 0;
  double momentum = 0.1;  // weight of the newest statistics
  bool kept = true;       // in checkpoints; false: what one text leaves for its next pass
};

/// Bits that say which inputs and outputs backward reads; inputs counted from bit 0.
struct Reads {
  std::uint32_t in = 0;   // for the gradient of the parameters or of the input
  std::uint32_t out = 0;  // likewise
};

/// Permission to share memory.
struct Alias {
  enum class Kind : std::uint8_t {
    view,            // out[to] IS in[from]: the same bytes, the forward does nothing (and grad_in is grad_out)
    out_over_in,     // out[to] may overwrite in[from] if nobody reads that later
    grad_over_grad,  // grad of in[from] may overwrite grad of out[to]
  } kind;
  std::uint8_t from, to;
};

/// Upper bounds of what a kernel of any device needs, for plans that are made without one; in bytes.
struct Bounds {
  std::size_t workspace = 0;
  std::size_t workspace_if_added = 0;  // where gradients of inputs are added to others, if that is more
  bool gradients_apart = false;        // see Needs
};

struct OpShape {
  std::vector<TensorDesc> out;
  std::vector<ParamDesc> params;  // trained
  std::vector<StateDesc> state;   // kept but not trained: running statistics
  std::vector<TensorDesc> saved;  // forward -> own backward: argmax, masks, statistics of rows
  Reads backward_reads;
  std::uint32_t differentiable = 1;  // bit i: input i takes a gradient (labels and weights do not)
  std::vector<Alias> may_share;
  std::int64_t loss_classes = 0;  // of a loss that compares labels: among so many
  double flops = 0;               // forward, this batch; multiply and add count as two
  Bounds bounds;

  bool epilogue = false;           // an activation is applied inside: BackwardActivation is a step of the plan
  bool backward_at_once = false;   // gradients of parameters and inputs are made of the same sums: one step of the plan
  bool cheap = false;              // quick to compute again instead of keeping its output (RecomputePolicy::light)
  bool loss = false;               // the output holds LossSums
  bool loss_in_backward = false;   // of a loss: in training Backward computes it too, and there is no Forward
  bool training_only = false;      // evaluation leaves it out: statistics of a batch that only training reads
  bool summed_over_ranks = false;  // a view whose value (and gradient) the plan sums over all ranks at this place
};

/// Elements of a loss op's output: they are added up over micro-batches and travel behind the gradients, in the last
/// bucket. Sums over the positions that take part: of weight * loss, of weights, how many have the label's logit as the
/// largest or among the five largest, and how many there are.
enum LossSum : std::uint8_t { loss_sum, weight_sum, correct_sum, top5_sum, position_sum, loss_sum_count };

/// How a program uses an op, as far as it spares a kernel work to know.
struct OpUse {
  bool input_gradient = true;        // backward gives gradients of inputs
  bool input_gradient_added = true;  // some of them to what other readers of an input have left
  bool trained = true;               // there are training passes at all
  bool params_gradient = true;       // backward gives gradients of parameters; of some it may give none
};

/// What a kernel wants of its plan; bytes are 64-byte aligned when given.
struct Needs {
  std::size_t workspace = 0;     // scratch of a single call
  std::size_t packed = 0;        // packed parameters, alive from update to update
  bool gradients_apart = false;  // no gradient of an input may lie over that of an output (Alias::Kind::grad_over_grad)
};

}  // namespace dtrain
