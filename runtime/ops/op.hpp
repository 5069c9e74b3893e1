// The closed set of operations, what shape inference says of each, and the Kernel that a device prepares for one.
// Specs and shapes are plain data; a Kernel is owned by a Program and runs on the stream it is given, allocating
// nothing.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/device/step_state.hpp"
#include "runtime/ops/activation.hpp"
#include "runtime/tensor/tensor.hpp"

namespace dtrain {

class Stream;

// ---- the ops -------------------------------------------------------------------------------------------------------

/// How a parameter is filled at the start; draws are keyed by (seed, Purpose::init, parameter index in the graph,
/// element).
struct Init {
  enum class Kind : std::uint8_t { zeros, ones, uniform, normal } kind = Kind::zeros;
  double scale = 0;  // half width of uniform, deviation of normal
};

// Float inputs are f32, bf16 or, on cuda, f16, and the output has the dtype of the input; parameters and their
// gradients are f32.

/// y[N, units] = act(x[N, features] W^T + b). params: weight [units, features], bias [units]. The activation is one
/// whose derivative_of_output.
struct Linear {
  std::int64_t units = 0;
  bool bias = true;
  Activation activation = Activation::none;
  std::optional<Init> weight_init{};  // nothing: uniform within 1 / sqrt(fan_in), as the bias
};
/// x[N, C, H, W] -> act(conv). params: weight [filters, C / groups, kernel_h, kernel_w], bias [filters]. Zero padding.
/// groups = C = filters is a depthwise convolution. The activation is one whose derivative_of_output.
struct Conv2d {
  std::int64_t filters = 0;
  std::array<std::int64_t, 2> kernel{1, 1}, stride{1, 1}, padding{0, 0};  // {h, w}
  bool bias = true;
  Activation activation = Activation::none;
  std::array<std::int64_t, 2> dilation{1, 1};
  std::int64_t groups = 1;
  std::optional<Init> weight_init{};
};
/// Window maximum; padding never wins, and the first of equal maxima takes the gradient. A rest that does not fill a
/// window is dropped.
struct MaxPool2d {
  std::array<std::int64_t, 2> size{2, 2}, stride{2, 2}, padding{0, 0};
};
/// Window mean. `count_padding`: padding counts as zeros (PyTorch's default), else the mean is over what is there.
struct AveragePool2d {
  std::array<std::int64_t, 2> size{2, 2}, stride{2, 2}, padding{0, 0};
  bool count_padding = true;
};
/// x[N, C, H, W] -> mean over the pixels [N, C, 1, 1].
struct GlobalAveragePool {};
/// y = act(x), element by element.
struct Activate {
  Activation kind = Activation::relu;
};
/// y = act(a + b) of two equal shapes. The activation is one whose derivative_of_output.
struct Add {
  Activation activation = Activation::none;
};
/// y = a * b: equal shapes, or a [N, C, H, W] and b [N, C, 1, 1], which is broadcast over the pixels (squeeze and
/// excitation).
struct Multiply {};
/// Two or more inputs, one behind the other along the channels (or features) of each sample.
struct Concat {};
/// Batch normalization over the micro batch (and pixels), then the activation (one whose derivative_of_output).
/// params: weight, bias [C] (both spared from decay). state: running mean and variance (the unbiased one), as PyTorch
/// keeps them; evaluation reads them. Training adds the micro batch's statistics to OpArgs::state_sums: the mean over
/// micro batches and ranks moves the running ones once an update. saved: mean and 1 / deviation.
struct BatchNorm {
  double epsilon = 1e-5, momentum = 0.1;
  Activation activation = Activation::none;
  double initial_weight = 1;
};
// Batch normalization over all ranks is BatchMoments -> SumOverRanks -> BatchNormalize.
/// x -> f64 [2 C + 1]: sum and sum of squares of each channel, and the number of values of a channel.
struct BatchMoments {};
/// The sum of a value over all ranks at this place of the step; its own adjoint. A view: the plan has a CrossRankSum
/// step in its place.
struct SumOverRanks {};
/// in: x, moments. Otherwise as BatchNorm; backward gives gradients of x (moments held) and of the moments.
struct BatchNormalize {
  double epsilon = 1e-5, momentum = 0.1;
  Activation activation = Activation::none;
  double initial_weight = 1;
};
/// Layer normalization over the features of [N, features], or over the channels at each pixel of [N, C, H, W].
/// params: weight, bias (spared from decay). saved: mean and 1 / deviation of each row.
struct LayerNorm {
  double epsilon = 1e-5;
};
/// Another element type: f32, bf16, f16.
struct Cast {
  DType to = DType::f32;
};
/// Keeps an element with probability 1 - rate and scales it by 1 / (1 - rate); identity in evaluation. Draws are keyed
/// by (seed, Purpose::dropout, id, stream position of the sample, element), so they depend on neither rank nor
/// micro-batch.
struct Dropout {
  double rate = 0.5;
  std::uint32_t id = 0;       // distinct a layer of a model
  bool whole_sample = false;  // one draw a sample: stochastic depth (Huang et al. 2016)
};
/// [N, ...] -> [N, product]: a view, no copy; see Layout::flattened_channels_last.
struct Flatten {};
/// in: f32 logits [N, classes], labels i32 [N], weight f32 [N]. out: sums, f32 [loss_sums] (see LossSum). A loss is a
/// sum and a weight: sum over samples of weight * (log-sum-exp - (1 - s) * logit of the label - s * mean of the
/// logits), s the label smoothing. Gradients are of the sum times StepState::loss_scale; the update divides by that and
/// the sum of weights.
struct SoftmaxCrossEntropy {
  double label_smoothing = 0;
};
/// in: f32 prediction [N, D], target f32 [N, D], weight f32 [N]. Sum over samples of weight * mean over D of the
/// squared difference.
struct MeanSquaredError {};

using OpSpec = std::variant<Linear, Conv2d, MaxPool2d, AveragePool2d, GlobalAveragePool, Activate, Add, Multiply,
                            Concat, BatchNorm, BatchMoments, SumOverRanks, BatchNormalize, LayerNorm, Cast, Dropout,
                            Flatten, SoftmaxCrossEntropy, MeanSquaredError>;

/// "conv2d", "linear", ...
std::string_view name_of(const OpSpec&) noexcept;
bool is_loss(const OpSpec&) noexcept;
/// True for what evaluation leaves out: statistics of a batch that only training reads.
bool is_training_only(const OpSpec&) noexcept;

/// Elements of a loss op's output: they are added up over micro-batches and travel behind the gradients, in the last
/// bucket.
enum LossSum : std::uint8_t { loss_sum, weight_sum, correct_sum, top5_sum, loss_sum_count };

// ---- what shape inference says -------------------------------------------------------------------------------------

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
  std::vector<StateDesc> state;   // kept but not trained: running statistics
  std::vector<TensorDesc> saved;  // forward -> own backward: argmax, masks, log-sum-exp
  Reads backward_reads;
  std::uint32_t differentiable = 1;  // bit i: input i takes a gradient (labels and weights do not)
  std::vector<Alias> may_share;
  bool backward_at_once = false;  // gradients of parameters and inputs are made of the same sums: one step of the plan
  double flops = 0;               // forward, this batch; multiply and add count as two
};

/// Pure. Throws ShapeError that names the op and the shapes (the graph adds the layer's name).
OpShape infer(const OpSpec&, std::span<const TensorDesc> in);

// ---- kernels
// ---------------------------------------------------------------------------------------------------------

enum class Mode : std::uint8_t { train, evaluate };

/// One run of a Program over one micro-batch.
struct Pass {
  Mode mode = Mode::train;
  bool first = true;       // gradients are overwritten: first of the step, or each one before a MicroBatchTree
  bool last = true;        // last micro-batch of the step: buckets become ready
  bool recompute = false;  // forward again, for backward: outputs only, the same bits; state_sums are left alone
};

struct OpArgs {
  std::span<const Tensor> in, out, params, state, saved;
  std::span<const Tensor> state_sums;  // training: sums of the step's statistics; overwritten in its first micro batch
  std::span<const Tensor> positions;   // one u64 [N] tensor: the stream position of each sample
  Tensor packed;                       // what pack() wrote
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

/// What a kernel wants of its plan; bytes are 64-byte aligned when given.
struct Needs {
  std::size_t workspace = 0;     // scratch of a single call
  std::size_t packed = 0;        // packed parameters, alive from update to update
  bool gradients_apart = false;  // takes no leave of Alias::Kind::grad_over_grad
};

/// The most workspace that a kernel of the CUDA device gives a library for what own kernels can do as well, of an input
/// of so many bytes.
constexpr std::size_t most_library_workspace(std::size_t in) {
  return std::clamp(in, std::size_t{1} << 20, std::size_t{16} << 20);
}

/// How a program uses an op, as far as it spares a kernel work to know.
struct OpUse {
  bool input_gradient = true;        // backward gives gradients of inputs
  bool input_gradient_added = true;  // some of them to what other readers of an input have left
  bool trained = true;               // there are training passes at all
};

/// A copy of a parameter that pack() writes: cast, element by element; where a row has several channels and several
/// pixels, [rows, channels, pixels] as [rows, pixels, channels].
struct PackedPart {
  int param = 0;       // of the op
  std::size_t at = 0;  // bytes into the packed copy; 16-byte aligned
  DType dtype = DType::f32;
  std::int64_t channels = 1, pixels = 1;
};

/// An op prepared for a device and for fixed shapes. Calls allocate nothing and never block the host (cpu: they run
/// inline).
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual Needs needs() const { return {}; }
  /// Refreshes the packed copy from the canonical fp32 parameters; called once after each update.
  virtual void pack(std::span<const Tensor> /*master*/, Tensor /*packed*/, Stream&) {}
  /// All that pack() writes, where the device's update can write it as well and pack() is then spared; else empty.
  virtual std::span<const PackedPart> packed_parts() const { return {}; }
  virtual void forward(const OpArgs&, Stream&) = 0;
  /// Turns the gradient of the output into the gradient of the pre-activation, in place; called once before backward if
  /// has_epilogue(op). `grad_out` belongs to the plan and nobody else reads it.
  virtual void backward_activation(const OpArgs&, Tensor /*grad_out*/, Stream&) {}
  /// Writes exactly the slots that are not `none`. The plan calls it once for the parameters and once for the inputs,
  /// or, where OpShape::backward_at_once, once for all.
  virtual void backward(const OpArgs&, const OpGrads&, Stream&) = 0;
};

/// True where the op applies an activation inside, so that BackwardActivation is a step of the plan.
bool has_epilogue(const OpSpec&) noexcept;

}  // namespace dtrain
