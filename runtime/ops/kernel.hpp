// A Kernel: an op prepared for a device and for fixed shapes, and what its calls are given.
// A Program owns its kernels and runs them on the stream it gives them; a call allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/device/step_state.hpp"
#include "runtime/ops/shape.hpp"
#include "runtime/tensor/tensor.hpp"

namespace dtrain {

class Stream;

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
  int loss = 0;  // of a loss: which of the graph's
};

enum class Write : std::uint8_t { none, overwrite, accumulate };
struct GradSlot {
  Tensor grad;
  Write write = Write::none;
};
inline bool wanted(const GradSlot& slot) {
  return slot.write != Write::none;
}
inline bool wanted(std::span<const GradSlot> slots, std::size_t i) {
  return i < slots.size() && wanted(slots[i]);
}
struct OpGrads {
  std::span<const Tensor> out;  // gradients of the outputs (empty for a loss: see StepState::loss_seed)
  std::span<const GradSlot> in, params;
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
  /// OpShape::epilogue. `grad_out` belongs to the plan and nobody else reads it.
  virtual void backward_activation(const OpArgs&, Tensor /*grad_out*/, Stream&) {}
  /// Writes exactly the slots that are not `none`. The plan calls it once for the parameters and once for the inputs,
  /// or, where OpShape::backward_at_once, once for all.
  virtual void backward(const OpArgs&, const OpGrads&, Stream&) = 0;
};

/// Of an op whose output is its input's memory.
class ViewKernel final : public Kernel {
 public:
  void forward(const OpArgs&, Stream&) override {}
  void backward(const OpArgs&, const OpGrads&, Stream&) override {}
};

}  // namespace dtrain
