// A Program is a plan bound to one device: prepared kernels, one arena, packed parameters and two input slots.
// It owns all of that; run() walks the plan's steps on the caller's thread and the given stream and allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/device/device.hpp"
#include "runtime/optim/optimizer.hpp"
#include "runtime/plan/flat.hpp"
#include "runtime/plan/plan.hpp"
#include "runtime/program/batch_layout.hpp"
#include "runtime/ranks/group.hpp"

namespace dtrain {

/// Called from inside run(), in plan order. A plain interface: nothing is allocated.
class StepHooks {
 public:
  virtual ~StepHooks() = default;
  virtual void bucket_ready(int bucket, Stream&) = 0;
  virtual void params_needed(int bucket, Stream&) = 0;
};
class NoHooks final : public StepHooks {
 public:
  void bucket_ready(int, Stream&) override {}
  void params_needed(int, Stream&) override {}
};

/// Sees each step of the plan's training list when it has run, with its host seconds: for benchmarks.
class StepObserver {
 public:
  virtual ~StepObserver() = default;
  virtual void ran(const Step&, double seconds) = 0;
  /// On an asynchronous device: what to record in front of the step with this index in the list,
  /// and, with the number of steps, behind the last one. Then ran() is not called. Null: the host waits for each step.
  virtual Event* mark(std::size_t /*index*/) { return nullptr; }
};

/// Fixed device addresses of one micro batch, laid out as a BatchLayout says.
struct InputSlot {
  std::vector<Tensor> inputs;    // as Graph::inputs()
  Tensor positions;              // u64 [N]: stream position of each sample
  std::byte* carried = nullptr;  // what a loader fills: [copied, bytes) of the layout
};

class Program {
 public:
  static constexpr int slots = 2;
  /// Prepares every kernel, plans with their real needs and allocates. Throws DeviceError, OutOfMemory (with the bytes
  /// by kind).
  /// `ranks` is what CrossRankSum steps run on, on the stream of run(); without one they do nothing. `layouts`: of the
  /// batches that the slots are filled with, which differ in what travels in place of values; none: values travel.
  Program(Device&, Graph, const PlanOptions&, Collective* ranks = nullptr, std::span<const BatchLayout> layouts = {});
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  const Plan& plan() const noexcept;
  const InputSlot& slot(int index) const noexcept;
  /// A slot's view of the input of that name. Throws BugError where there is none.
  const Tensor& input(int slot, std::string_view name) const;
  /// For UpdateArgs::packed: the packed copies that an update can leave itself, one for each of FlatLayout::params.
  /// Empty where it can leave none.
  std::span<const PackedCopy> packed_copies() const noexcept;
  /// Who changed the parameters, or some of them.
  enum class Changed : std::uint8_t {
    anyhow,     // initialization, load, an update of some ranks
    by_update,  // an update of all of them that was given packed_copies(): those are right
  };
  /// The first forward of each node refreshes its packed copy, so that parameters may still be on their way
  /// (StepHooks::params_needed).
  void parameters_changed(Changed = Changed::anyhow) noexcept;
  /// Refreshes those packed copies at once.
  void pack(const ParameterStore&, Stream&, Changed = Changed::anyhow);
  /// Refreshes the packed copies that are taken to be right, and names the first parameter of which one was not; empty
  /// where all were. Blocks.
  std::string wrong_copy(const ParameterStore&, Stream&);
  /// `store` may be another graph's: parameters and states are found by their names. Throws ShapeError where it lacks
  /// one. Train: forward, backward into `store`'s gradients; loss sums are added to (or, in the first micro batch,
  /// overwrite) store.loss_sums(k). Evaluate: forward only; loss sums likewise.
  void run(const Pass&, int slot, const ParameterStore& store, const StepState&, StepHooks&, Stream&);
  /// The next training passes record this where forward ends; null: nothing.
  void mark_backward(Event*) noexcept;
  /// Waits after each step of the plan, so that an error names its layer: to look for a fault.
  void wait_after_each_step(bool) noexcept;
  /// `what` went wrong on the device some time ago: with what is known of where.
  std::string explain(const std::string& what) const;
  /// Whom training passes tell of their steps; null: nobody.
  void observe(StepObserver*) noexcept;
  /// The value of a node's output of the latest pass, as it lies in the arena (tests; may have been overwritten by
  /// aliases).
  Tensor value(ValueId) const;
  MemoryUse memory(int optimizer_floats, int shards = 1) const;
  /// Output `index` of the graph (logits, predictions), of the latest evaluation pass.
  Tensor output(int slot, std::size_t index = 0) const;
  /// Host seconds of forward and backward of the latest train pass.
  struct Seconds {
    double begin = 0;  // of forward, on the steady clock
    double forward = 0, backward = 0;
  };
  Seconds seconds() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dtrain
