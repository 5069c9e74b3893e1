// StepTimers: where the time of a step goes on a device that works behind the host's back: events on the compute
// stream, read when the step's results are.
// Owns the events; used on the training thread. One step in so many is timed, so that its events are read before they
// are recorded again and cost nothing to speak of.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "launch/run_files.hpp"
#include "runtime/device.hpp"

namespace dtrain::launch {

class StepTimers {
 public:
  /// On a device that is not asynchronous nothing is ever timed.
  StepTimers(Device&, std::int64_t micro_batches);

  /// Whether step number `step` is timed: what follows is for such steps alone.
  bool times(std::int64_t step) const noexcept { return enabled_ && step % every == 0; }
  void begin(Stream& compute) { compute.record(*begin_); }
  /// Around the wait for a micro batch's data, and after its pass.
  void data_wanted(std::int64_t micro_batch, Stream& compute) { compute.record(*passes_[at(micro_batch)].wanted); }
  void data_there(std::int64_t micro_batch, Stream& compute) { compute.record(*passes_[at(micro_batch)].there); }
  /// For Program::mark_backward in the last micro batch; and after it.
  Event& backward() noexcept { return *backward_; }
  void backward_done(Stream& compute) { compute.record(*updating_); }
  void end(Stream& compute) { compute.record(*end_); }

  /// Of a timed step that is done.
  void read();
  /// Of the latest timed step, as device seconds a step; zeros before the first.
  const PhaseSeconds& latest() const noexcept { return latest_; }

 private:
  static constexpr std::int64_t every = 8;  // more than StepMemory::lag()
  struct Pass {
    std::unique_ptr<Event> wanted, there;
  };
  static std::size_t at(std::int64_t micro_batch) { return static_cast<std::size_t>(micro_batch); }

  const bool enabled_;
  std::unique_ptr<Event> begin_, backward_, updating_, end_;
  std::vector<Pass> passes_;
  PhaseSeconds latest_;
};

}  // namespace dtrain::launch
