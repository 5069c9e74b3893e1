// ParameterAverage: an exponential moving average of the parameters, for evaluation and for whoever uses the model.
// Owns one flat f32 buffer on the device, laid out like the parameters; used on the trainer's thread and the given
// stream.
#pragma once

#include <cstddef>

#include "runtime/device/device.hpp"
#include "runtime/plan/flat.hpp"

namespace dtrain {

class ParameterAverage {
 public:
  ParameterAverage(Device&, double decay, const FlatLayout&);
  float* data() const noexcept { return static_cast<float*>(average_.data()); }
  /// Right after the update of the parameters in [begin, end) of the flat buffers.
  void update(const ParameterStore&, std::size_t begin, std::size_t end, const StepState&, Stream&);
  /// The average becomes the parameters.
  void restart(const ParameterStore&, Stream&);
  /// Parameters and average change places, in pieces, until the next call. Kept states stay where they are.
  void exchange(const ParameterStore&, Stream&);

 private:
  Device& device_;
  double decay_;
  Buffer average_, piece_;
};

}  // namespace dtrain
