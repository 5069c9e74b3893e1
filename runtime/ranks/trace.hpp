// Trace: what a rank did and when, kept in a ring of fixed size, and how far its clock is from rank 0's.
// A Trace belongs to the training thread and allocates nothing after it was made; launch/ writes the timeline.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "runtime/ranks/group.hpp"

namespace dtrain {

enum class Activity : std::uint8_t {
  step,
  data,
  forward,
  backward,
  update,
  checkpoint,
  evaluation,
  // of a bucket
  exposed,  // the step waits for its sum
  queued,   // complete, but the sums before it are not done
  sum,
};
const char* name_of(Activity) noexcept;

/// Seconds of this rank's steady clock.
struct Span {
  double begin = 0, end = 0;
  std::int64_t step = 0;
  std::int32_t bucket = -1;
  Activity activity = Activity::step;
};

class Trace {
 public:
  explicit Trace(std::size_t capacity) : ring_(capacity) {}
  /// The oldest span makes room where the ring is full.
  void add(const Span& span) noexcept {
    if (ring_.empty()) return;
    ring_[added_++ % ring_.size()] = span;
  }
  /// Those that are left, in the order in which they were added.
  std::vector<Span> spans() const;
  std::size_t dropped() const noexcept { return added_ > ring_.size() ? added_ - ring_.size() : 0; }

 private:
  std::vector<Span> ring_;
  std::size_t added_ = 0;
};

/// What to add to this rank's clock to have rank 0's; the true value is within `error` of it.
struct ClockOffset {
  double seconds = 0, error = 0;
};
/// Collective: rank 0 and each other rank in turn exchange messages, and the quickest of `rounds` round trips counts.
/// `clock`: seconds of this rank's clock.
ClockOffset measure_clock(Group&, const std::function<double()>& clock, int rounds = 16);

}  // namespace dtrain
