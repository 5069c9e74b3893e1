// The optimizer of a run: its rule, its flat state buffers on the device, and the global norm of the gradients.
// Owns the state; applies updates to ranges of a ParameterStore on the given stream, from the trainer's thread.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "runtime/device.hpp"
#include "runtime/flat.hpp"
#include "runtime/optimizer.hpp"

namespace dtrain {

class Optimizer {
 public:
  Optimizer(Device&, const UpdateRule&, const FlatLayout&);
  const UpdateRule& rule() const noexcept { return rule_; }
  int states() const noexcept { return state_count(rule_); }
  /// Flat state buffer `i`, laid out like the parameters; zero at the start.
  float* state(int i) const noexcept { return static_cast<float*>(state_[static_cast<std::size_t>(i)].data()); }
  /// Updates the parameters in [begin, end) of the flat buffers; what lies behind the parameters is left alone. Where
  /// needs_whole_parameters(rule), the range may cut through none.
  void update(const ParameterStore&, std::size_t begin, std::size_t end, const StepState&, Stream&);
  /// Moves the kept states by the step's statistics, once the last bucket is summed.
  void update_states(const ParameterStore&, const StepState&, Stream&);
  /// L2 norm of all gradients as they stand, in double, over fixed blocks: not scaled. Blocks the host.
  double gradient_norm(const ParameterStore&, Stream&);

 private:
  Device& device_;
  UpdateRule rule_;
  std::array<Buffer, 2> state_;
  std::vector<double> partial_, norms_;
};

/// The first parameter (in graph order) with a gradient or value that is not finite; empty if all are. Host-visible
/// memory.
std::string first_nonfinite(const float* flat, const FlatLayout&);

}  // namespace dtrain
