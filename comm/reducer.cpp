#include "comm/reducer.hpp"

#include <chrono>

#include "runtime/error.hpp"

namespace dtrain::comm {

double seconds_now() noexcept {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

GradientReducer::GradientReducer(Device& device, Collective& collective, const ParameterStore& store,
                                 const CommConfig& config)
    : collective_(collective), on_host_(device.kind() == DeviceKind::cpu) {
  if (config.gradient_dtype != DType::f32) {
    throw ConfigError("communication.gradient_dtype: only float32 gradients can be sent so far");
  }
  if (collective.size() == 1) return;
  stream_ = device.make_stream(StreamUse::communication);
  const std::size_t buckets = store.layout().buckets.size();
  timings_.resize(buckets);
  for (std::size_t b = 0; b < buckets; ++b) {
    pending_.push_back({device.make_event(), device.make_event(), store.bucket(b), false});
  }
}

// The stream's destructor finishes what was enqueued; gradients and collective are still there.
GradientReducer::~GradientReducer() = default;

void GradientReducer::begin_step() noexcept {
  exposed_ = 0;
}

void GradientReducer::bucket_ready(int bucket, Stream& compute) {
  if (!stream_) return;
  Pending& p = pending_.at(static_cast<std::size_t>(bucket));
  BucketTiming& timing = timings_[static_cast<std::size_t>(bucket)];
  if (p.started) throw BugError("a bucket became ready again before its sum was waited for");
  timing = {.ready = seconds_now(), .begin = 0, .end = 0};
  compute.record(*p.ready);
  stream_->wait(*p.ready);
  if (on_host_) stream_->host(HostTask::of([&timing] { timing.begin = seconds_now(); }));
  collective_.all_reduce(p.gradients, Reduce::sum, *stream_);
  if (on_host_) stream_->host(HostTask::of([&timing] { timing.end = seconds_now(); }));
  stream_->record(*p.done);
  p.started = true;
}

void GradientReducer::wait(int bucket, Stream& compute) {
  if (!stream_) return;
  Pending& p = pending_.at(static_cast<std::size_t>(bucket));
  if (!p.started) return;
  p.started = false;
  const double begin = seconds_now();
  compute.wait(*p.done);
  exposed_ += seconds_now() - begin;
}

void GradientReducer::wait_all(Stream& compute) {
  for (std::size_t b = 0; b < pending_.size(); ++b) wait(static_cast<int>(b), compute);
}

std::size_t GradientReducer::bytes_per_step() const noexcept {
  std::size_t bytes = 0;
  for (const Pending& p : pending_) bytes += p.gradients.bytes();
  return bytes;
}

}  // namespace dtrain::comm
