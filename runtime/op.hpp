// The closed set of operations, what shape inference says of each, and the Kernel that a device prepares for one.
// Specs and shapes are plain data; a Kernel is owned by a Program and runs on the stream it is given, allocating
// nothing.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/step_state.hpp"
#include "runtime/tensor.hpp"

namespace dtrain {

class Stream;

// ---- the ops -------------------------------------------------------------------------------------------------------

/// Applied to an op's output inside its kernel; its backward (gradient of the pre-activation) is a step of its own.
enum class Activation : std::uint8_t { none, relu };

/// y[N, units] = act(x[N, features] W^T + b). params: weight [units, features], bias [units].
struct Linear {
  std::int64_t units = 0;
  bool bias = true;
  Activation activation = Activation::none;
};
/// x[N, C, H, W] -> act(conv). params: weight [filters, C, kernel_h, kernel_w], bias [filters]. Zero padding.
struct Conv2d {
  std::int64_t filters = 0;
  std::array<std::int64_t, 2> kernel{1, 1}, stride{1, 1}, padding{0, 0};  // {h, w}
  bool bias = true;
  Activation activation = Activation::none;
};
/// Window maximum without padding; the first of equal maxima takes the gradient. A rest that does not fill a window is
/// dropped.
struct MaxPool2d {
  std::array<std::int64_t, 2> size{2, 2}, stride{2, 2};
};
struct Relu {};
/// Keeps an element with probability 1 - rate and scales it by 1 / (1 - rate); identity in evaluation. Draws are keyed
/// by (seed, Purpose::dropout, id, stream position of the sample, element), so they depend on neither rank nor
/// micro-batch.
struct Dropout {
  double rate = 0.5;
  std::uint32_t id = 0;  // distinct a layer of a model
};
/// [N, ...] -> [N, product]: a view, no copy; see Layout::flattened_channels_last.
struct Flatten {};
/// in: logits [N, classes], labels i32 [N], weight f32 [N]. out: sums, f32 [loss_sums] (see LossSum). A loss is a sum
/// and a weight: sum over samples of weight * (log-sum-exp - logit of the label). Gradients are of the sum; the update
/// divides by the sum of weights.
struct SoftmaxCrossEntropy {};
/// in: prediction [N, D], target f32 [N, D], weight f32 [N]. Sum over samples of weight * mean over D of the squared
/// difference.
struct MeanSquaredError {};

using OpSpec = std::variant<Linear, Conv2d, MaxPool2d, Relu, Dropout, Flatten, SoftmaxCrossEntropy, MeanSquaredError>;

/// "conv2d", "linear", ...
std::string_view name_of(const OpSpec&) noexcept;
bool is_loss(const OpSpec&) noexcept;

/// Elements of a loss op's output: they are added up over micro-batches and travel behind the gradients, in the last
/// bucket.
enum LossSum : std::uint8_t { loss_sum, weight_sum, correct_sum, loss_sum_count = 4 };

// ---- what shape inference says -------------------------------------------------------------------------------------

/// How a parameter is filled at the start; draws are keyed by (seed, Purpose::init, parameter index in the graph,
/// element).
struct Init {
  enum class Kind : std::uint8_t { zeros, ones, uniform, normal } kind = Kind::zeros;
  double scale = 0;  // half width of uniform, deviation of normal
};

/// A trained parameter of an op: canonical (logical, plain) shape, always f32.
struct ParamDesc {
  std::string_view name;  // "weight", "bias"
  TensorDesc desc;
  Init init;
  bool decay = true;  // weight decay applies (not to biases and norms)
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

struct OpShape {
  std::vector<TensorDesc> out;
  std::vector<ParamDesc> params;  // trained
  std::vector<TensorDesc> state;  // kept but not trained: running statistics
  std::vector<TensorDesc> saved;  // forward -> own backward: argmax, masks, log-sum-exp
  Reads backward_reads;
  std::uint32_t differentiable = 1;  // bit i: input i takes a gradient (labels and weights do not)
  std::vector<Alias> may_share;
  double flops = 0;  // forward, this batch; multiply and add count as two
};

/// Pure. Throws ShapeError that names the op and the shapes (the graph adds the layer's name).
OpShape infer(const OpSpec&, std::span<const TensorDesc> in);

// ---- kernels
// ---------------------------------------------------------------------------------------------------------

enum class Mode : std::uint8_t { train, evaluate };

/// One run of a Program over one micro-batch.
struct Pass {
  Mode mode = Mode::train;
  bool first = true;  // first micro-batch of the step: gradients are overwritten, later ones accumulate
  bool last = true;   // last micro-batch of the step: buckets become ready
};

struct OpArgs {
  std::span<const Tensor> in, out, params, state, saved;
  std::span<const Tensor> positions;  // one u64 [N] tensor: the stream position of each sample
  Tensor packed;                      // what pack() wrote
  Tensor workspace;
  Pass pass;
  const StepState& step;
};

enum class Write : std::uint8_t { none, overwrite, accumulate };
struct GradSlot {
  Tensor grad;
  Write write = Write::none;
};
struct OpGrads {
  std::span<const Tensor> out;  // gradients of the outputs (empty for a loss: its seed is 1)
  std::span<const GradSlot> in, params;
};

/// Bytes a kernel wants, all 64-byte aligned when given.
struct Needs {
  std::size_t workspace = 0;  // scratch of a single call
  std::size_t packed = 0;     // packed parameters, alive from update to update
};

/// An op prepared for a device and for fixed shapes. Calls allocate nothing and never block the host (cpu: they run
/// inline).
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual Needs needs() const { return {}; }
  /// Refreshes the packed copy from the canonical fp32 parameters; called once after each update.
  virtual void pack(std::span<const Tensor> /*master*/, Tensor /*packed*/, Stream&) {}
  virtual void forward(const OpArgs&, Stream&) = 0;
  /// Turns the gradient of the output into the gradient of the pre-activation, in place; called once before backward if
  /// has_epilogue(op). `grad_out` belongs to the plan and nobody else reads it.
  virtual void backward_activation(const OpArgs&, Tensor /*grad_out*/, Stream&) {}
  /// Writes exactly the slots that are not `none`. The plan calls it once for the parameters and once for the inputs.
  virtual void backward(const OpArgs&, const OpGrads&, Stream&) = 0;
};

/// True where the op applies an activation inside, so that BackwardActivation is a step of the plan.
bool has_epilogue(const OpSpec&) noexcept;

}  // namespace dtrain
