// Tracing: the steps of `log.trace` as a timeline of all ranks on one clock, log.directory/trace.json, for Perfetto
// (ui.perfetto.dev) or chrome://tracing.
// Owns the ring in which this rank's spans are noted; used on the training thread, its methods at step boundaries.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "comm/world/world.hpp"
#include "launch/base/clock.hpp"
#include "launch/config/config.hpp"
#include "runtime/plan/flat.hpp"
#include "runtime/ranks/group.hpp"
#include "runtime/ranks/trace.hpp"

namespace dtrain::launch {

class Tracing {
 public:
  /// `directory`: where trace.json goes. `accumulation`: micro batches a step.
  Tracing(const TraceConfig&, std::string directory, const FlatLayout&, std::int64_t accumulation, const comm::World&,
          Group&);

  /// Where to note what happens in this step, counted from 1; null outside of the steps that were asked for.
  Trace* at(std::int64_t step) noexcept;
  /// Something between steps, from `begin` until now.
  void note(Activity, Clock::time_point begin, std::int64_t step) noexcept;
  /// The last step that was asked for is among those before `next`, and the timeline is not written yet.
  bool done_before(std::int64_t next) const noexcept { return open_ && next - config_.first_step >= config_.steps; }
  /// Before step `next`: writes the timeline where the last step that was asked for is done. Collective. Returns what
  /// rank 0 should say; empty: nothing. `device_clock`: steps were timed by a device, whose clock is within this of the
  /// host's; nothing: by the host.
  std::string write_if_done(std::int64_t next, std::optional<double> device_clock = {});
  /// The same at the end of the run, whatever is left to do.
  std::string write(std::optional<double> device_clock = {});

 private:
  std::string write_events(double origin, const ClockOffset&, std::optional<double> device_clock);

  TraceConfig config_;
  std::string path_;
  const FlatLayout& layout_;
  const comm::World& world_;
  Group& group_;
  Trace trace_;
  bool open_;  // not written yet
};

}  // namespace dtrain::launch
