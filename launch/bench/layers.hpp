// Times of the layers of a program, forward and backward, with the operations and bytes that the plan says they need.
// LayerTimes observes a Program; what it found are plain rows. Costs are pure functions of the plan's steps.
#pragma once

#include <string>
#include <vector>

#include "launch/bench/statistics.hpp"
#include "runtime/plan.hpp"
#include "runtime/program.hpp"

namespace dtrain::launch {

/// What a step of a pass needs at least: floating point operations, and bytes read and written, were nothing in a
/// cache.
struct StepCost {
  double flops = 0, bytes = 0;
};
/// Nothing for steps that belong to no node.
StepCost cost_of(const Step&, const Graph&);
/// -1 for steps that belong to none.
NodeId node_of(const Step&) noexcept;

struct LayerPass {
  Estimate seconds;
  double flops = 0;
  double bytes = 0;  // that must be read and written at least, were nothing in a cache
};
struct LayerRow {
  std::string name, op;
  LayerPass forward, backward;
};

class LayerTimes final : public StepObserver {
 public:
  explicit LayerTimes(const Plan&);
  void ran(const Step&, double seconds) override;
  /// Ends a pass.
  void pass_done();
  std::vector<LayerRow> rows() const;

 private:
  struct Pass {
    double seconds = 0, flops = 0, bytes = 0;
    std::vector<double> samples;
  };
  const Plan& plan_;
  std::vector<Pass> forward_, backward_;  // by node
  bool counted_ = false;
};

}  // namespace dtrain::launch
