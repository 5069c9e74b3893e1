#include "runtime/device/device.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "runtime/tensor/error.hpp"

namespace dtrain {

namespace {

class HostTimeline final : public Timeline {
 public:
  std::uint64_t reached() const noexcept override {
    const std::lock_guard lock(mutex_);
    return reached_;
  }
  void reach(std::uint64_t value) noexcept override {
    // Notified under the lock: who waits may destroy the timeline as soon as it has the lock.
    const std::lock_guard lock(mutex_);
    reached_ = std::max(reached_, value);
    changed_.notify_all();
  }
  bool wait(std::uint64_t value, double seconds) const override {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return reached_ >= value; });
  }

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::uint64_t reached_ = 0;
};

}  // namespace

// On a stream with a thread of its own the thread waits.
void Stream::reach(Timeline& timeline, std::uint64_t value) {
  host(HostTask::of([t = &timeline, value] { t->reach(value); }));
}

void Stream::await(Timeline& timeline, std::uint64_t value) {
  host(HostTask::of([t = &timeline, value] {
    while (!t->wait(value, 60)) continue;
  }));
}

std::unique_ptr<Timeline> Device::make_timeline() {
  return std::make_unique<HostTimeline>();
}

std::unique_ptr<Device> make_device(DeviceKind kind, int ordinal, int threads, const CudaOptions& cuda) {
  switch (kind) {
    case DeviceKind::cpu:
      return make_cpu_device(threads);
    case DeviceKind::cuda:
      return make_cuda_device(ordinal, cuda);
  }
  throw BugError("unknown kind of device");
}

}  // namespace dtrain
