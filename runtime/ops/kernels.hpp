// Kernels: what a Program and an Optimizer need of a device beside memory and streams: ops, updates, norms, sums,
// casts. A Device owns its Kernels and hands them out; they are used by one thread at a time, enqueue on the stream
// that they are given, and pointers are device memory unless a comment says otherwise.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "runtime/device/algorithm_choices.hpp"
#include "runtime/device/step_state.hpp"
#include "runtime/ops/op.hpp"
#include "runtime/tensor/tensor.hpp"

namespace dtrain {

struct UpdateRule;
struct UpdateArgs;
struct StateUpdateArgs;
struct ImageFormat;
struct ImageBatch;

class Kernels {
 public:
  virtual ~Kernels() = default;
  /// Chooses algorithm, descriptors and layouts once. Throws DeviceError where the device cannot run the op.
  virtual std::unique_ptr<Kernel> prepare(const OpSpec&, std::span<const TensorDesc> in, const OpUse&) = 0;
  /// What prepare() has chosen by measurement so far, and what use() gave.
  virtual AlgorithmChoices choices() const { return {}; }
  /// From now on prepare() takes these, and measures only what they lack.
  virtual void use(const AlgorithmChoices&) {}
  /// One optimizer update of the range that `args` names, in place.
  virtual void update(const UpdateRule&, const UpdateArgs&, Stream&) = 0;
  /// Moves each kept state towards the mean of the step's statistics, in place: see update_math.hpp.
  virtual void update_states(const StateUpdateArgs&, Stream&) = 0;
  /// average += average_rate(decay, step) * (params - average), for `n` floats; nothing in a skipped step.
  virtual void average(float* average, const float* params, std::size_t n, double decay, const StepState& step,
                       Stream&) = 0;
  /// Sum of squares of `n` floats into partial[i] (double), one for each fixed block of norm_block floats, so that the
  /// total does not depend on how buckets or shards cut the buffer.
  virtual void sum_squares(const float* x, std::size_t n, double* partial, Stream&) = 0;
  /// Decides on the step's update: the norm of the mean gradient, clipping, whether a gradient is not finite; see
  /// step_math.hpp. Blocks are added in a fixed order.
  virtual void finish_gradients(const GradientArgs&, Stream&) = 0;
  /// After the step's updates: close_step() of step_math.hpp.
  virtual void finish_step(const FinishArgs&, Stream&) = 0;
  /// Gathers, augments and normalizes a micro batch of stored bytes; see image_load.hpp.
  virtual void load_images(const ImageFormat&, const ImageBatch&, Stream&) = 0;
  /// out[i] = parts[0][i] + (parts[1][i] + ... (+ parts.back()[i])) for begin <= i < end, innermost first. `out` may be
  /// the last part. The list of pointers is host memory and stays until the stream was there.
  virtual void add(std::span<const float* const> parts, float* out, std::size_t begin, std::size_t end, Stream&) = 0;
  /// f32 to bf16, to nearest with ties to even, or back.
  virtual void cast(Tensor from, Tensor to, Stream&) = 0;
};

}  // namespace dtrain
