#include "tests/support/async_device.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <set>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "runtime/input/image_load.hpp"
#include "runtime/optim/optimizer.hpp"
#include "runtime/plan/flat.hpp"

namespace dtrain::test {

namespace {

constexpr std::uintptr_t far = std::uintptr_t{1} << 62;  // not canonical: a touch ends the process

Tensor real_tensor(const Tensor& t) {
  Tensor out = t;
  out.data = AsyncDevice::real(t.data);
  return out;
}

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

AsyncDevice::AsyncDevice(const Options& options)
    : options_(options),
      near_(options.near ? options.near() : make_cpu_device(1)),
      inline_(near_->make_stream(StreamUse::compute)) {}

AsyncDevice::~AsyncDevice() = default;

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

// ---- kernels
// -----------------------------------------------------------------------------------------------------------

/// Calls of the CPU's kernel, later: with copies of all arguments, as a kernel launch takes them.
class AsyncKernel final : public Kernel {
 public:
  AsyncKernel(AsyncDevice& device, std::unique_ptr<Kernel> inner, Stream& at_once)
      : device_(device), inner_(std::move(inner)), at_once_(at_once) {}
  Needs needs() const override { return inner_->needs(); }
  std::span<const PackedPart> packed_parts() const override { return inner_->packed_parts(); }
  void pack(std::span<const Tensor> master, Tensor packed, Stream& stream) override {
    ++device_.packs;
    Call& call = take(Call::Kind::pack, stream);
    call.params.assign(master.begin(), master.end());
    call.packed = packed;
    give(call, stream);
  }
  void forward(const OpArgs& args, Stream& stream) override {
    Call& call = take(Call::Kind::forward, stream);
    call.set(args);
    give(call, stream);
  }
  void backward_activation(const OpArgs& args, Tensor grad_out, Stream& stream) override {
    Call& call = take(Call::Kind::activation, stream);
    call.set(args);
    call.grad_out = grad_out;
    give(call, stream);
  }
  void backward(const OpArgs& args, const OpGrads& grads, Stream& stream) override {
    Call& call = take(Call::Kind::backward, stream);
    call.set(args);
    call.out_grads.assign(grads.out.begin(), grads.out.end());
    call.in_slots.assign(grads.in.begin(), grads.in.end());
    call.param_slots.assign(grads.params.begin(), grads.params.end());
    give(call, stream);
  }

 private:
  struct Call {
    enum class Kind : std::uint8_t { pack, forward, activation, backward } kind = Kind::forward;
    std::vector<Tensor> in, out, params, state, saved, state_sums, positions, out_grads;
    std::vector<GradSlot> in_slots, param_slots;
    Tensor packed, workspace, grad_out;
    Pass pass;
    const StepState* step = nullptr;
    std::atomic<bool> busy{true};
    bool kept = false;  // by a recording

    void set(const OpArgs& a) {
      const auto copy = [](std::vector<Tensor>& to, std::span<const Tensor> from) {
        to.assign(from.begin(), from.end());
      };
      copy(in, a.in);
      copy(out, a.out);
      copy(params, a.params);
      copy(state, a.state);
      copy(saved, a.saved);
      copy(state_sums, a.state_sums);
      copy(positions, a.positions);
      packed = a.packed;
      workspace = a.workspace;
      pass = a.pass;
      step = &a.step;
    }
    void to_real() {
      for (auto* list : {&in, &out, &params, &state, &saved, &state_sums, &positions, &out_grads})
        for (Tensor& t : *list) t = real_tensor(t);
      for (auto* list : {&in_slots, &param_slots})
        for (GradSlot& s : *list) s.grad = real_tensor(s.grad);
      packed = real_tensor(packed);
      workspace = real_tensor(workspace);
      grad_out = real_tensor(grad_out);
      step = AsyncDevice::real(step);
    }
  };

  Call& take(Call::Kind kind, Stream& stream) {
    ++device_.kernel_calls;
    const auto free = std::find_if(calls_.begin(), calls_.end(), [](const Call& c) { return !c.busy; });
    Call& call = free != calls_.end() ? *free : calls_.emplace_back();
    call.busy = true;
    call.kind = kind;
    call.kept = static_cast<AsyncStream&>(stream).recorded();
    return call;
  }
  void give(Call& call, Stream& stream) {
    call.to_real();
    stream.host(HostTask::of([this, c = &call] {
      run(*c);
      if (!c->kept) c->busy = false;
    }));
  }
  void run(Call& c) {
    if (c.kind == Call::Kind::pack) return inner_->pack(c.params, c.packed, at_once_);
    const OpArgs args{c.in,        c.out,    c.params,    c.state, c.saved, c.state_sums,
                      c.positions, c.packed, c.workspace, c.pass,  *c.step};
    if (c.kind == Call::Kind::forward) inner_->forward(args, at_once_);
    if (c.kind == Call::Kind::activation) inner_->backward_activation(args, c.grad_out, at_once_);
    if (c.kind == Call::Kind::backward) inner_->backward(args, {c.out_grads, c.in_slots, c.param_slots}, at_once_);
  }

  AsyncDevice& device_;
  std::unique_ptr<Kernel> inner_;
  Stream& at_once_;
  std::deque<Call> calls_;
};

std::unique_ptr<Kernel> AsyncDevice::prepare(const OpSpec& op, std::span<const TensorDesc> in, const OpUse& use) {
  auto inner = near_->prepare(op, in, use);
  if (!inner) return nullptr;
  if (!options_.model.empty()) {
    std::string key = fmt::format("{}: {}", options_.model, name_of(op));
    for (const TensorDesc& t : in) key += " " + t.shape.str();
    if (choices_.find(key) == nullptr) {
      ++measured;
      choices_.set(key, options_.algorithm);
    }
  }
  return std::make_unique<AsyncKernel>(*this, std::move(inner), *inline_);
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
void AsyncDevice::update(const UpdateRule& rule, const UpdateArgs& args, Stream& stream) {
  // UpdateArgs with all it takes is too large for a task.
  struct Kept {
    const UpdateRule* rule;
    float *params, *m, *v;
    const float* gradients;
    std::uint32_t begin, end, state_begin;
    const FlatLayout* layout;
    const StepState* step;
    double* norms;
    std::span<const PackedCopy> packed;
  };
  const Kept k{&rule,
               real(args.params),
               real(args.state[0]),
               real(args.state[1]),
               real(args.gradients),
               static_cast<std::uint32_t>(args.begin),
               static_cast<std::uint32_t>(args.end),
               static_cast<std::uint32_t>(args.state_begin),
               args.layout,
               real(args.step),
               real(args.norms),
               args.packed};
  stream.host(HostTask::of([this, k] {
    UpdateArgs a;
    a.params = k.params;
    a.gradients = k.gradients;
    a.state[0] = k.m;
    a.state[1] = k.v;
    a.begin = k.begin;
    a.end = k.end;
    a.layout = k.layout;
    a.step = k.step;
    a.norms = k.norms;
    a.state_begin = k.state_begin;
    std::vector<PackedCopy> packed(k.packed.begin(), k.packed.end());
    for (PackedCopy& copy : packed) copy.to = real(copy.to);
    a.packed = packed;
    near_->update(*k.rule, a, *inline_);
  }));
}
void AsyncDevice::update_states(const StateUpdateArgs& args, Stream& stream) {
  StateUpdateArgs a = args;
  a.params = real(args.params);
  a.gradients = real(args.gradients);
  a.step = real(args.step);
  stream.host(HostTask::of([this, a] { near_->update_states(a, *inline_); }));
}
void AsyncDevice::average(float* average, const float* params, std::size_t n, double decay, const StepState& step,
                          Stream& stream) {
  stream.host(HostTask::of([this, to = real(average), from = real(params), n, decay, s = real(&step)] {
    near_->average(to, from, n, decay, *s, *inline_);
  }));
}
void AsyncDevice::sum_squares(const float* x, std::size_t n, double* partial, Stream& stream) {
  stream.host(
      HostTask::of([this, from = real(x), n, to = real(partial)] { near_->sum_squares(from, n, to, *inline_); }));
}
void AsyncDevice::finish_gradients(const GradientArgs& args, Stream& stream) {
  GradientArgs a = args;
  a.step = real(args.step);
  a.squares = real(args.squares);
  stream.host(HostTask::of([this, a] { near_->finish_gradients(a, *inline_); }));
}
void AsyncDevice::finish_step(const FinishArgs& args, Stream& stream) {
  FinishArgs a = args;
  a.step = real(args.step);
  a.sums = real(args.sums);
  stream.host(HostTask::of([this, a] { near_->finish_step(a, *inline_); }));
}
void AsyncDevice::load_images(const ImageFormat& format, const ImageBatch& batch, Stream& stream) {
  ImageBatch b = batch;
  b.stored = real(batch.stored);
  b.rows = real(batch.rows);
  b.draws = real(batch.draws);
  b.out = real(batch.out);
  stream.host(HostTask::of([this, f = &format, b] {
    ImageFormat near = *f;
    near.table = real(f->table);
    near.scale = real(f->scale);
    near.offset = real(f->offset);
    near_->load_images(near, b, *inline_);
  }));
}
void AsyncDevice::add(std::span<const float* const> parts, float* out, std::size_t begin, std::size_t end,
                      Stream& stream) {
  stream.host(HostTask::of([this, parts, to = real(out), begin, end] {
    std::vector<const float*> near;
    for (const float* p : parts) near.push_back(real(p));
    near_->add(near, to, begin, end, *inline_);
  }));
}
void AsyncDevice::cast(Tensor from, Tensor to, Stream& stream) {
  stream.host(HostTask::of(
      [this, a = real(from.data), b = real(to.data), ta = from.desc.dtype, tb = to.desc.dtype, n = from.elements()] {
        near_->cast({{ta, Shape{n}}, a}, {{tb, Shape{n}}, b}, *inline_);
      }));
}

}  // namespace dtrain::test
