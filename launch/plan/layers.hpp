// Times of the layers of a program, forward and backward, with the operations and bytes that the plan says they need.
// LayerTimes observes a Program, by events on its stream where the device is asynchronous, and owns them;
// what it found are plain rows. Costs are pure functions of the plan's steps.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "launch/plan/statistics.hpp"
#include "runtime/device/device.hpp"
#include "runtime/plan/plan.hpp"
#include "runtime/program/program.hpp"

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
  LayerTimes(const Plan&, Device&);
  void ran(const Step&, double seconds) override;
  Event* mark(std::size_t index) override { return marks_.empty() ? nullptr : marks_[index].get(); }
  /// Ends a pass, which the device has done.
  void pass_done();
  std::vector<LayerRow> rows() const;

 private:
  struct Pass {
    double seconds = 0, flops = 0, bytes = 0;
    std::vector<double> samples;
  };
  const Plan& plan_;
  std::vector<Pass> forward_, backward_;  // by node
  std::vector<std::unique_ptr<Event>> marks_;
  bool counted_ = false;
};

}  // namespace dtrain::launch
