// One row an op configuration: the table that drives values, gradients, determinism and write rules on every device.
// Plain data, and OpRun, which owns one kernel with all the memory of a call; tests use it from one thread.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "runtime/device/device.hpp"
#include "runtime/ops/op.hpp"

namespace dtrain::test {

struct OpRow {
  std::string name;  // as in tests/golden/ops.json
  std::uint64_t seed = 0;
  OpSpec op;
  TensorDesc in;                      // of input 0, floats or index values; losses add labels or targets, and weights
  std::vector<TensorDesc> more_in{};  // of the other inputs; BatchNormalize adds moments
  float scale = 1;                    // of the inputs
  std::uint32_t vocabulary = 0;       // index values are below it
  DType labels = DType::i32;          // of a cross-entropy
  bool weighs_positions = false;      // a loss: a weight for each of them, not for a sample
};
/// What the row computes in.
DType dtype_of(const OpRow&);
bool is_loss(const OpRow&);
/// Rows in float32 (losses among them), then the same ops in bfloat16, named "..._bf16", and in float16, "..._f16".
const std::vector<OpRow>& op_table();

/// Ops on shapes that fill many blocks of a GPU, in float32; no golden file has them.
const std::vector<OpRow>& large_ops();
/// The row with inputs of this type.
OpRow in_dtype(OpRow, DType);

/// Values in logical order <-> the memory order of a tensor.
std::vector<float> to_memory(const TensorDesc&, const std::vector<float>& logical);
std::vector<float> to_logical(const TensorDesc&, const float* memory);

/// `n` draws of the golden files' stream D(seed, item, 0): signed, and raw.
std::vector<float> signed_draws(std::uint64_t seed, std::uint64_t item, std::int64_t n);
std::uint32_t raw_draw(std::uint64_t seed, std::uint64_t item, std::uint32_t sub, std::int64_t element);

/// ||a - b|| / ||b||, in double; infinite where a is not finite.
double relative_error(const std::vector<float>& a, const std::vector<float>& b);

/// A prepared kernel with inputs as the golden files describe them. Outputs, saved tensors, workspace and gradients
/// start as NaN.
class OpRun {
  /// In the device's memory, and what the host has of it: copied to the device before each call, and back after it.
  struct Memory {
    Memory(Device& d, const TensorDesc& desc)
        : on_device(d, desc.bytes()), bytes(desc.bytes()), tensor{desc, on_device.data()} {}
    Tensor host() const { return {tensor.desc, bytes.data()}; }
    Buffer on_device;
    mutable std::vector<std::byte> bytes;
    Tensor tensor;
  };
  Memory step_;

 public:
  OpRun(Device&, const OpRow&);
  OpRun(const OpRun&) = delete;
  OpRun& operator=(const OpRun&) = delete;

  void forward(Pass pass = {});
  /// Activation mask, parameters and inputs, as the plan calls them. Fills grad_in and grad_params.
  void backward(Write in, Write params);
  void backward_activation();
  void backward_only(Write in, std::vector<Write> params);
  void backward_only(std::vector<Write> in, std::vector<Write> params);
  /// Poisons what a pass writes.
  void poison();
  /// From now on the two tensors of the alias share memory.
  void share(const Alias&);
  /// Both gradients of the inputs in one place, as where an op reads a value twice.
  void share_input_gradients();

  // Logical order. They may be changed before forward(); `x` is inputs[0]. `moments` is BatchNormalize's input 1.
  std::vector<std::vector<float>> inputs;
  std::vector<float>& x;
  std::vector<double> moments;
  std::vector<std::vector<float>> params, state;
  std::vector<float> grad_out;  // may be changed before backward()
  std::vector<float> out() const;
  std::vector<float> grad_in(std::size_t i = 0) const;
  std::vector<float> grad_param(std::size_t) const;
  std::vector<float> state_sum(std::size_t) const;
  /// Inputs that take a gradient.
  std::vector<std::size_t> differentiable() const;
  /// What the host has of it.
  Tensor out_tensor() const { return host_of(out_views_[0]); }
  void set_grads(float value);
  const OpShape& shape() const { return shape_; }
  StepState& step;  // as the device finds it in the next call
  int loss = 0;     // which of a graph's losses it is
  std::vector<std::int32_t> labels;
  std::vector<float> targets, weights;

 private:
  std::vector<TensorDesc> describe();
  OpArgs args(Pass pass);
  void upload();
  Tensor host_of(const Tensor& on_device) const;
  template <class Function>
  void each_memory(Function) const;
  template <class Call>
  void on_device(Call);
  Device& device_;
  OpRow row_;
  OpShape shape_;
  std::unique_ptr<Kernel> kernel_;
  std::unique_ptr<Stream> stream_;
  std::vector<Memory> in_, out_, params_, state_, state_sums_, saved_, positions_, grad_out_, grad_in_, grad_params_;
  std::vector<Memory> packed_;
  Buffer workspace_;  // the library's: it may be large, and the host never sees it
  std::vector<Tensor> in_views_, out_views_, param_views_, state_views_, state_sum_views_, saved_views_,
      position_views_, grad_out_views_, grad_in_views_;
};

/// As DType::bf16 or f16 holds them.
std::vector<float> rounded_to(DType, std::vector<float>);

}  // namespace dtrain::test
