// BucketTimers: when the buckets of a step were ready, summed and waited for on an asynchronous device, and how long
// the step waited for parameters of other ranks' shards: events on the streams, read afterwards. Owns the events of one
// step; recorded on the training thread, as work that may be part of a recording.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/device/device.hpp"

namespace dtrain::comm {

/// Seconds of one clock at which a bucket's gradients were ready, its sum began and ended, and at which the step wanted
/// the sum and went on with it.
struct BucketTiming {
  double ready = 0, begin = 0, end = 0;
  double wanted = 0, there = 0;
  double exposed() const noexcept { return there - wanted; }
};

class BucketTimers {
 public:
  enum class Mark : std::uint8_t { ready, begin, end, wanted, there, parameters_wanted, parameters_there, count };

  /// `gathers`: ranks also wait for parameters; else these two marks are no events.
  BucketTimers(Device&, std::size_t buckets, bool gathers);

  void record(Mark, std::size_t bucket, Stream&);
  /// Waits for the norms of all shards: marked as parameters of a bucket behind the last one.
  std::size_t norms() const noexcept { return buckets_.size() - 1; }
  /// Nothing is recorded yet. (What is replayed records again without being asked.)
  void clear() noexcept;
  /// Once the step is done: timings(), as seconds since `origin`, a timer of the same step. A bucket that was not
  /// recorded is all zeros.
  void read(const Event& origin);
  std::span<const BucketTiming> timings() const noexcept { return timings_; }
  /// Seconds of exposed sums, of waits for the norms, and of waits for parameters.
  double exposed_sums() const noexcept { return exposed_sums_; }
  double exposed_norms() const noexcept { return exposed_norms_; }
  double exposed_parameters() const noexcept { return exposed_parameters_; }

 private:
  struct Timer {
    std::unique_ptr<Event> event;
    bool recorded = false;
  };
  using Timers = std::array<Timer, static_cast<std::size_t>(Mark::count)>;
  static Timer& at(Timers& timers, Mark mark) { return timers[static_cast<std::size_t>(mark)]; }
  static double between(Timers&, Mark from, Mark to);

  std::vector<Timers> buckets_;
  std::vector<BucketTiming> timings_;
  double exposed_sums_ = 0, exposed_norms_ = 0, exposed_parameters_ = 0;
};

}  // namespace dtrain::comm
