#include "tests/support/async_device.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <set>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "runtime/tensor/error.hpp"
#include "tests/support/async_kernels.hpp"

namespace dtrain::test {

namespace {

constexpr std::uintptr_t far = std::uintptr_t{1} << 62;  // not canonical: a touch ends the process

}  // namespace

void* AsyncDevice::moved(void* memory) {
  return reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(memory) | far);
}
void* AsyncDevice::real(const void* memory) {
  return reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(memory) & ~far);
}

// ---- events and streams
// ----------------------------------------------------------------------------------------------

class AsyncEvent final : public Event {
 public:
  explicit AsyncEvent(AsyncDevice& d) : device(d), inner(d.near().make_event()) {}
  bool done() const override { return inner->done(); }
  void synchronize() override {
    device.forbid_while_recording("waiting for an event");
    if (!inner->done()) ++device.event_waits;
    inner->synchronize();
  }
  double seconds_since(const Event& earlier) const override {
    return inner->seconds_since(*static_cast<const AsyncEvent&>(earlier).inner);
  }
  AsyncDevice& device;
  std::unique_ptr<Event> inner;
};

class AsyncStream final : public Stream {
 public:
  AsyncStream(AsyncDevice& d, StreamUse u) : device(d), use(u), inner(d.near().make_stream(StreamUse::copy)) {}
  ~AsyncStream() override { device.go(); }
  void record(Event&) override;
  void wait(Event&) override;
  void host(const HostTask&) override;
  void synchronize() override {
    device.forbid_while_recording("waiting for a stream");
    ++device.stream_waits;
    inner->synchronize();
  }
  void* native() const noexcept override { return static_cast<Stream*>(const_cast<AsyncStream*>(this)); }

  void submit(const HostTask& task) {
    inner->host(HostTask::of([d = &device, u = use] { d->pass_gate(u); }));
    inner->host(task);
  }
  bool recorded() const;

  AsyncDevice& device;
  const StreamUse use;
  std::unique_ptr<Stream> inner;
};

struct AsyncDevice::Recording {
  struct Item {
    AsyncStream* stream;
    enum class Kind : std::uint8_t { host, record, wait } kind;
    HostTask task;
    AsyncEvent* event = nullptr;
  };
  std::thread::id thread = std::this_thread::get_id();
  std::vector<Item> items;
  std::set<const AsyncStream*> streams;              // that take part
  std::set<const AsyncStream*> unjoined;             // whose latest work the first stream does not wait for
  std::map<const AsyncEvent*, AsyncStream*> events;  // recorded inside
  AsyncStream* first = nullptr;
};

class AsyncDevice::Replayed final : public Replay {
 public:
  Replayed(AsyncDevice& device, std::vector<Recording::Item> items) : device_(device), items_(std::move(items)) {}
  void launch(Stream& stream) override {
    if (&stream != items_.front().stream) throw BugError("a recording is replayed on another stream");
    ++device_.replays;
    for (const Recording::Item& item : items_) {
      if (item.kind == Recording::Item::Kind::host) item.stream->submit(item.task);
      if (item.kind == Recording::Item::Kind::record) item.stream->inner->record(*item.event->inner);
      if (item.kind == Recording::Item::Kind::wait) item.stream->inner->wait(*item.event->inner);
    }
  }

 private:
  AsyncDevice& device_;
  std::vector<Recording::Item> items_;
};

bool AsyncStream::recorded() const {
  return device.recording_ != nullptr && device.recording_->thread == std::this_thread::get_id() &&
         device.recording_->streams.contains(this);
}

void AsyncStream::host(const HostTask& task) {
  if (!recorded()) return submit(task);
  auto& r = *device.recording_;
  r.items.push_back({this, AsyncDevice::Recording::Item::Kind::host, task});
  if (this != r.first) r.unjoined.insert(this);
}

void AsyncStream::record(Event& event) {
  auto& own = static_cast<AsyncEvent&>(event);
  if (!recorded()) return inner->record(*own.inner);
  device.recording_->items.push_back({this, AsyncDevice::Recording::Item::Kind::record, {}, &own});
  device.recording_->events[&own] = this;
}

void AsyncStream::wait(Event& event) {
  auto& own = static_cast<AsyncEvent&>(event);
  auto* r = device.recording_;
  const bool recording = r != nullptr && r->thread == std::this_thread::get_id();
  const bool inside = recording && r->events.contains(&own);
  if (inside) {  // a stream that waits for the recorded work takes part from then on
    r->streams.insert(this);
    if (this == r->first) r->unjoined.erase(r->events[&own]);
    if (this != r->first) r->unjoined.insert(this);
    r->items.push_back({this, AsyncDevice::Recording::Item::Kind::wait, {}, &own});
    return;
  }
  if (recorded()) throw BugError("recorded work waits for an event from outside of the recording");
  inner->wait(*own.inner);
}

bool AsyncDevice::recorded(const Stream& stream) {
  return static_cast<const AsyncStream&>(stream).recorded();
}

void AsyncDevice::forbid_while_recording(const char* what) const {
  if (recording_ != nullptr && recording_->thread == std::this_thread::get_id())
    throw BugError(fmt::format("{} while work is recorded", what));
}

std::unique_ptr<Replay> AsyncDevice::record(Stream& stream, const std::function<void()>& work, std::string& why_not) {
  if (!options_.records) {
    why_not = "the test says so";
    return nullptr;
  }
  Recording recording;
  recording.first = &static_cast<AsyncStream&>(stream);
  recording.streams.insert(recording.first);
  recording_ = &recording;
  try {
    work();
  } catch (...) {
    recording_ = nullptr;
    throw;
  }
  recording_ = nullptr;
  if (!recording.unjoined.empty()) throw BugError("recorded work ends on a stream that the first does not wait for");
  ++recordings;
  return std::make_unique<Replayed>(*this, std::move(recording.items));
}

// ---- memory
// ------------------------------------------------------------------------------------------------------------

void* AsyncDevice::allocate(std::size_t bytes) {
  forbid_while_recording("an allocation");
  if (options_.memory_limit > 0 && used_ + bytes > options_.memory_limit)
    throw OutOfMemory(fmt::format("out of memory: {} has no {} bytes left", name(), bytes));
  void* memory = near_->allocate(bytes);
  std::memset(memory, 0xff, bytes);
  used_ += bytes;
  sizes_[memory] = bytes;
  ++allocations;
  return moved(memory);
}

void AsyncDevice::release(void* memory) noexcept {
  const auto found = sizes_.find(real(memory));
  used_ -= found->second;
  sizes_.erase(found);
  near_->release(real(memory));
}

std::size_t AsyncDevice::free_memory() const {
  return options_.memory_limit > used_ ? options_.memory_limit - used_ : 0;
}

void AsyncDevice::hold() {
  const std::lock_guard lock(mutex_);
  held_ = true;
}
void AsyncDevice::go() {
  const std::lock_guard lock(mutex_);
  held_ = false;
  changed_.notify_all();
}
void AsyncDevice::pass_gate(StreamUse use) {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !held_; });
  }
  const int delay = use == StreamUse::copy ? options_.copy_delay_us : options_.compute_delay_us;
  if (delay > 0) std::this_thread::sleep_for(std::chrono::microseconds(delay));
  if (use == StreamUse::compute && fail_in_ > 0 && --fail_in_ == 0)
    throw DeviceError("an illegal memory access was encountered");
}

std::unique_ptr<Stream> AsyncDevice::make_stream(StreamUse use) {
  return std::make_unique<AsyncStream>(*this, use);
}
std::unique_ptr<Event> AsyncDevice::make_event() {
  return std::make_unique<AsyncEvent>(*this);
}
void AsyncDevice::copy(void* dst, const void* src, std::size_t bytes, Stream& stream) {
  if (bytes == 0) return;
  const auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % sizeof(std::uint64_t) == 0; };
  if (bytes == sizeof(std::uint64_t) && aligned(dst) && aligned(src)) {  // as one word: somebody may read it meanwhile
    auto* const to = static_cast<std::uint64_t*>(real(dst));
    auto* const from = static_cast<std::uint64_t*>(real(const_cast<void*>(src)));
    stream.host(HostTask::of([to, from] { std::atomic_ref(*to).store(std::atomic_ref(*from).load()); }));
    return;
  }
  stream.host(HostTask::of([to = real(dst), from = real(src), bytes] { std::memcpy(to, from, bytes); }));
}
void AsyncDevice::zero(void* dst, std::size_t bytes, Stream& stream) {
  if (bytes == 0) return;
  stream.host(HostTask::of([to = real(dst), bytes] { std::memset(to, 0, bytes); }));
}

AsyncDevice::AsyncDevice(const Options& options)
    : options_(options),
      near_(options.near ? options.near() : make_cpu_device(1)),
      inline_(near_->make_stream(StreamUse::compute)),
      kernels_(std::make_unique<AsyncKernels>(*this, near_->kernels(), *inline_)) {}

AsyncDevice::~AsyncDevice() = default;

}  // namespace dtrain::test
