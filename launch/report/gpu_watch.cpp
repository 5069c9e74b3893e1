#include "launch/report/gpu_watch.hpp"

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
  last_ = {*latest_->joules, samples};
  if (!taken_) taken_ = last_;
}

Energy GpuWatch::take() noexcept {
  if (!last_ || last_->samples == taken_->samples) return {};
  const Energy spent{last_->joules - taken_->joules, static_cast<double>(last_->samples - taken_->samples)};
  taken_ = last_;
  return spent.joules < 0 ? Energy{} : spent;  // its counter began anew
}

}  // namespace dtrain::launch
