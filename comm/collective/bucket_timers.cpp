#include "comm/collective/bucket_timers.hpp"

#include <algorithm>

namespace dtrain::comm {

BucketTimers::BucketTimers(Device& device, std::size_t buckets, bool gathers)
    : buckets_(buckets + 1), timings_(buckets) {
  for (std::size_t b = 0; b <= buckets; ++b) {
    for (auto m = Mark::ready; m != Mark::count; m = static_cast<Mark>(static_cast<int>(m) + 1)) {
      const bool of_parameters = m == Mark::parameters_wanted || m == Mark::parameters_there;
      if (of_parameters ? gathers : b < buckets) at(buckets_[b], m).event = device.make_timer();
    }
  }
}

void BucketTimers::record(Mark mark, std::size_t bucket, Stream& stream) {
  Timer& timer = at(buckets_.at(bucket), mark);
  if (!timer.event) return;
  stream.record(*timer.event);
  timer.recorded = true;
}

void BucketTimers::clear() noexcept {
  for (Timers& timers : buckets_)
    for (Timer& timer : timers) timer.recorded = false;
}

double BucketTimers::between(Timers& timers, Mark from, Mark to) {
  if (!at(timers, from).recorded || !at(timers, to).recorded) return 0;
  return std::max(0.0, at(timers, to).event->seconds_since(*at(timers, from).event));
}

void BucketTimers::read(const Event& origin) {
  exposed_sums_ = exposed_norms_ = exposed_parameters_ = 0;
  for (std::size_t b = 0; b < buckets_.size(); ++b) {
    Timers& timers = buckets_[b];
    (b == norms() ? exposed_norms_ : exposed_parameters_) +=
        between(timers, Mark::parameters_wanted, Mark::parameters_there);
    if (b == norms()) continue;
    const auto when = [&](Mark mark) {
      Timer& timer = at(timers, mark);
      return timer.recorded ? timer.event->seconds_since(origin) : 0;
    };
    timings_[b] = {when(Mark::ready), when(Mark::begin), when(Mark::end), when(Mark::wanted), when(Mark::there)};
    exposed_sums_ += timings_[b].exposed();
  }
}

}  // namespace dtrain::comm
