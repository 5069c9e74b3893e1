// StepTimers: where the time of a step goes on an asynchronous device: events on its streams, read
// when the step's results are, and turned into times of the host's clock for the timeline.
// Owns the events; used on the training thread. For metrics one step in so many is timed, with events that a recording
// may hold; the steps of a timeline have events of their own in turns, and are not recorded: what a replay does to an
// event the next one undoes before it is read.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "comm/collective/bucket_timers.hpp"
#include "launch/report/run_files.hpp"
#include "runtime/device/device.hpp"
#include "runtime/ranks/trace.hpp"

namespace dtrain::launch {

class StepTimers {
 public:
  struct Sizes {
    std::int64_t micro_batches = 1;  // of the largest step
    std::size_t buckets = 0;         // that are summed over ranks
    bool gathers = false;            // ranks wait for parameters of others
    int lag = 0;                     // steps that are given ahead of those that are read
    bool timeline = false;           // some step will be traced
  };
  /// On a device that is not asynchronous nothing is ever timed.
  StepTimers(Device&, const Sizes&);

  /// What follows is of step number `step`, of so many micro batches. With `trace`, where spans of it go, it is traced;
  /// the first such waits for the device, to learn how its clock stands to the host's. `fresh`: nothing of the step is
  /// replayed.
  void choose(std::int64_t step, std::int64_t micro_batches, Trace* trace, bool fresh, Stream& compute);
  /// Whether anything of this step is noted, and whether all of it: what follows does nothing for other steps.
  bool timed() const noexcept { return set_ != nullptr; }
  bool traced() const noexcept { return set_ != nullptr && set_->trace != nullptr; }
  comm::BucketTimers* buckets() noexcept { return set_ != nullptr && set_->buckets ? &*set_->buckets : nullptr; }

  void begin(Stream& compute) { mark(set_ ? set_->begin.get() : nullptr, compute); }
  /// Around the wait for a micro batch's data.
  void data_wanted(std::int64_t micro_batch, Stream& compute) { mark(at(micro_batch, &Pass::wanted), compute); }
  void data_there(std::int64_t micro_batch, Stream& compute) { mark(at(micro_batch, &Pass::there), compute); }
  /// For Program::mark_backward; null where it is of no interest. Of a step that is not traced the last pass alone is.
  Event* backward(std::int64_t micro_batch) { return inner(micro_batch) ? at(micro_batch, &Pass::backward) : nullptr; }
  void pass_done(std::int64_t micro_batch, Stream& compute) {
    if (inner(micro_batch)) mark(at(micro_batch, &Pass::done), compute);
  }
  void end(Stream& compute) { mark(set_ ? set_->end.get() : nullptr, compute); }

  /// Step number `step` is done: reads it if it was timed, and notes its spans if it was traced.
  void read(std::int64_t step);
  /// Of the latest timed step, as device seconds a step; zeros before the first.
  const PhaseSeconds& latest() const noexcept { return latest_; }
  /// Seconds from the begin of that step; empty before the first.
  std::span<const comm::BucketTiming> latest_buckets() const noexcept { return latest_buckets_; }
  /// The device's clock, in the spans, is within this of the host's.
  double clock_error() const noexcept { return clock_error_; }

 private:
  static constexpr std::int64_t every = 8;  // more than StepMemory::lag()
  struct Pass {
    std::unique_ptr<Event> wanted, there, backward, done;
  };
  struct Set {
    std::unique_ptr<Event> begin, end;
    std::vector<Pass> passes;
    std::size_t unused = 0;  // of them, at the front, so that the last pass has the same events in each step
    std::optional<comm::BucketTimers> buckets;
    std::int64_t step = -1;  // that it was used for last, and that was not read yet
    Trace* trace = nullptr;
    double begin_at = 0;  // on the host's clock, once read
  };
  Set make_set(Device&, const Sizes&) const;
  static void mark(Event* event, Stream& stream) {
    if (event != nullptr) stream.record(*event);
  }
  Event* at(std::int64_t micro_batch, std::unique_ptr<Event> Pass::*event) {
    return set_ != nullptr ? (set_->passes[set_->unused + static_cast<std::size_t>(micro_batch)].*event).get()
                           : nullptr;
  }
  bool inner(std::int64_t micro_batch) const {
    return traced() || (timed() && set_->unused + static_cast<std::size_t>(micro_batch) + 1 == set_->passes.size());
  }
  void set_clock(Stream&);
  PhaseSeconds phases_of(Set&);
  void note(const Set&, std::int64_t step) const;

  const bool enabled_;
  std::vector<Set> sets_;  // the first for metrics, the others for the timeline
  Set* set_ = nullptr;     // of the step that was chosen
  PhaseSeconds latest_;
  std::span<const comm::BucketTiming> latest_buckets_;
  std::unique_ptr<Event> anchor_, other_anchor_;
  double anchored_ = 0, clock_error_ = 0;  // host seconds at `anchor_`
  const Set* read_last_ = nullptr;         // of the timeline
  std::int64_t step_read_last_ = -1;
};

}  // namespace dtrain::launch
