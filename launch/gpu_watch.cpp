#include "launch/gpu_watch.hpp"

#include <utility>

namespace dtrain::launch {

GpuWatch::GpuWatch(std::string bus_id, const char* library) : bus_id_(std::move(bus_id)) {
  if (bus_id_.empty()) return;
  monitor_.emplace(library);
  if (!monitor_->why_not().empty()) monitor_.reset();
}

void GpuWatch::look(std::int64_t samples, double now) {
  if (!monitor_ || (latest_ && now - looked_ < 1)) return;
  looked_ = now;
  latest_ = monitor_->read(bus_id_);
  if (!latest_ || !latest_->joules) return;
  const Mark mark{*latest_->joules, samples};
  const auto between = [&](const Mark& from) -> std::optional<double> {
    if (mark.samples <= from.samples) return std::nullopt;
    return (mark.joules - from.joules) / static_cast<double>(mark.samples - from.samples);
  };
  if (last_) recent_ = between(*last_);
  if (first_) of_all_ = between(*first_);
  if (!first_) first_ = mark;
  last_ = mark;
}

}  // namespace dtrain::launch
