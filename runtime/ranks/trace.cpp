#include "runtime/ranks/trace.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

namespace dtrain {

const char* name_of(Activity activity) noexcept {
  constexpr const char* names[] = {"step",       "data",       "forward", "backward", "update",
                                   "checkpoint", "evaluation", "exposed", "queued",   "sum"};
  return names[static_cast<std::size_t>(activity)];
}

std::vector<Span> Trace::spans() const {
  const std::size_t n = std::min(added_, ring_.size());
  std::vector<Span> out;
  out.reserve(n);
  for (std::size_t i = added_ - n; i < added_; ++i) out.push_back(ring_[i % ring_.size()]);
  return out;
}

ClockOffset measure_clock(Group& group, const std::function<double()>& clock, int rounds) {
  ClockOffset best{0, group.rank() == 0 ? 0 : std::numeric_limits<double>::infinity()};
  std::vector<std::byte> there, back(sizeof(double));
  for (int other = 1; other < group.size(); ++other) {
    for (int i = 0; i < rounds; ++i) {
      // Rank 0 asks; the other one notes when it heard that, and answers; rank 0 tells it when question and answer
      // were.
      double times[2] = {clock(), 0};
      there.assign(1, std::byte{0});
      group.broadcast(there, 0);
      const double heard = clock();
      group.broadcast(back, other);
      times[1] = clock();
      there.resize(sizeof times);
      std::memcpy(there.data(), times, sizeof times);
      group.broadcast(there, 0);
      if (group.rank() != other) continue;
      std::memcpy(times, there.data(), sizeof times);
      const double error = (times[1] - times[0]) / 2;
      if (error < best.error) best = {times[0] + error - heard, error};
    }
  }
  return best;
}

}  // namespace dtrain
