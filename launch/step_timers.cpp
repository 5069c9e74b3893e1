#include "launch/step_timers.hpp"

namespace dtrain::launch {

StepTimers::StepTimers(Device& device, std::int64_t micro_batches) : enabled_(device.asynchronous()) {
  if (!enabled_) return;
  for (auto* event : {&begin_, &backward_, &updating_, &end_}) *event = device.make_timer();
  for (std::int64_t j = 0; j < micro_batches; ++j) passes_.push_back({device.make_timer(), device.make_timer()});
}

void StepTimers::read() {
  PhaseSeconds s;
  s.step = end_->seconds_since(*begin_);
  s.optimizer = end_->seconds_since(*updating_);
  // Each pass lasts until the next one's data are wanted; only the last one is cut in two, and the others like it.
  double passes = 0;
  for (std::size_t j = 0; j < passes_.size(); ++j) {
    s.data += passes_[j].there->seconds_since(*passes_[j].wanted);
    const Event& done = j + 1 < passes_.size() ? *passes_[j + 1].wanted : *updating_;
    passes += done.seconds_since(*passes_[j].there);
  }
  const double forward = backward_->seconds_since(*passes_.back().there);
  const double whole = updating_->seconds_since(*passes_.back().there);
  s.forward = whole > 0 ? passes * forward / whole : 0;
  s.backward = passes - s.forward;
  latest_ = s;
}

}  // namespace dtrain::launch
