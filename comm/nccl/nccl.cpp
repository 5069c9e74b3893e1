#include "comm/nccl/nccl.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <nccl.h>

#include "comm/collective/deadlines.hpp"
#include "runtime/device/host_buffer.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

namespace {

using Clock = std::chrono::steady_clock;

constexpr auto look_every = std::chrono::milliseconds(100);  // for errors that no call has met
constexpr double end_seconds = 5;                            // for the end of a communicator that all ranks leave
constexpr auto lock_patience = std::chrono::seconds(1);      // with a call that does not return, before ending it
constexpr auto heard_within = std::chrono::seconds(2);       // by the training thread, once its streams are free

ncclDataType_t datatype(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return ncclFloat32;
    case DType::bf16:
      return ncclBfloat16;
    case DType::f16:
      return ncclFloat16;
    case DType::f64:
      return ncclFloat64;
    case DType::u8:
      return ncclUint8;
    case DType::u16:
      break;
    case DType::i32:
      return ncclInt32;
    case DType::i64:
      return ncclInt64;
    case DType::u64:
      return ncclUint64;
  }
  throw BugError("an element type that NCCL does not know");
}

ncclRedOp_t operation(Reduce reduce) {
  return reduce == Reduce::sum ? ncclSum : ncclMax;
}

cudaStream_t native(Stream& stream) {
  return static_cast<cudaStream_t>(stream.native());
}

std::size_t count(const Tensor& t) {
  return static_cast<std::size_t>(t.elements());
}

Clock::time_point after(double seconds) {
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

std::string text_of(ncclResult_t result, ncclComm_t comm) {
  const char* const last = ncclGetLastError(comm);
  return last != nullptr && *last != 0 ? fmt::format("{} ({})", ncclGetErrorString(result), last)
                                       : std::string(ncclGetErrorString(result));
}

/// Owns a communicator that never blocks its caller: a call may return before it has enqueued anything, and the
/// communicator says when it has.
class Handle {
 public:
  Handle() = default;
  ~Handle() {
    if (comm_ == nullptr) return;
    // All ranks leave at about the same time; where they do not, nobody waits for long.
    const ncclResult_t begun = ncclCommFinalize(comm_);
    const bool ends = begun == ncclSuccess || begun == ncclInProgress;
    if (ends && settled(after(end_seconds)) == ncclSuccess) {
      ncclCommDestroy(comm_);
    } else {
      ncclCommAbort(comm_);
    }
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  ncclComm_t get() const noexcept { return comm_; }
  ncclComm_t* out() noexcept { return &comm_; }
  /// What became of the latest call: in progress only where the time is up.
  ncclResult_t settled(Clock::time_point until) const {
    for (int looks = 0;; ++looks) {
      ncclResult_t state = ncclInProgress;
      const ncclResult_t asked = ncclCommGetAsyncError(comm_, &state);
      if (asked != ncclSuccess) return asked;
      if (state != ncclInProgress || Clock::now() >= until) return state;
      // An ordinary call is enqueued within microseconds; connections take longer.
      if (looks < 100) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(std::chrono::microseconds(200));
      }
    }
  }
  /// Streams that wait for the other ranks come free, with memory that is worth nothing.
  void abort() {
    if (comm_ != nullptr) ncclCommAbort(std::exchange(comm_, nullptr));
  }

 private:
  ncclComm_t comm_ = nullptr;
};

class Nccl final : public DeviceExchange, private Memory {
 public:
  Nccl(Group& group, Device& device, const CommConfig& config, LastResort last_resort)
      : device_(device),
        rank_(group.rank()),
        size_(group.size()),
        seconds_(config.timeout_seconds),
        last_resort_(std::move(last_resort)) {
    ncclUniqueId id{};
    group.agree([&] {
      device.make_current();
      if (rank_ != 0) return;
      const ncclResult_t made = ncclGetUniqueId(&id);
      if (made != ncclSuccess) throw CommError("ncclGetUniqueId: " + text_of(made, nullptr), rank_);
    });
    std::vector<std::byte> bytes(sizeof id);
    std::memcpy(bytes.data(), &id, sizeof id);
    group.broadcast(bytes, 0);
    std::memcpy(&id, bytes.data(), sizeof id);
    group.agree([&] { start(id, config.set_up_timeout_seconds); });
    watcher_ = std::thread([this] { watch(); });
  }
  ~Nccl() override {
    {
      const std::lock_guard lock(watching_);
      closing_ = true;
      closing_changed_.notify_all();
    }
    watcher_.join();
    if (ender_.joinable()) ender_.join();
  }
  Nccl(const Nccl&) = delete;
  Nccl& operator=(const Nccl&) = delete;

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }
  bool recordable() const noexcept override { return true; }

  void all_reduce(Tensor t, Reduce reduce, Stream& stream) override {
    call("all_reduce", t.bytes(), [&](ncclComm_t comm) {
      return ncclAllReduce(t.data, t.data, count(t), datatype(t.desc.dtype), operation(reduce), comm, native(stream));
    });
  }
  void reduce_scatter(Tensor in, Tensor out, Reduce reduce, Stream& stream) override {
    check_shard("reduce_scatter", out, in);
    call("reduce_scatter", in.bytes(), [&](ncclComm_t comm) {
      return ncclReduceScatter(in.data, out.data, count(out), datatype(in.desc.dtype), operation(reduce), comm,
                               native(stream));
    });
  }
  void all_gather(Tensor in, Tensor out, Stream& stream) override {
    check_shard("all_gather", in, out);
    call("all_gather", out.bytes(), [&](ncclComm_t comm) {
      return ncclAllGather(in.data, out.data, count(in), datatype(in.desc.dtype), comm, native(stream));
    });
  }
  void broadcast(Tensor t, int root, Stream& stream) override {
    if (root < 0 || root >= size_) throw BugError(fmt::format("broadcast from rank {} of {}", root, size_));
    call("broadcast", t.bytes(), [&](ncclComm_t comm) {
      return ncclBroadcast(t.data, t.data, count(t), datatype(t.desc.dtype), root, comm, native(stream));
    });
  }

  void exchange(std::span<const Transfer> sends, std::span<const Transfer> receives, Stream& stream) override {
    std::size_t bytes = 0;
    for (const Transfer& t : sends) bytes += t.bytes;
    for (const Transfer& t : receives) bytes += t.bytes;
    call("exchange", bytes, [&](ncclComm_t comm) {
      ncclResult_t result = ncclGroupStart();
      if (result != ncclSuccess) return result;
      const auto keep = [&](ncclResult_t one) {
        if (one != ncclSuccess && one != ncclInProgress && result == ncclSuccess) result = one;
      };
      for (const Transfer& t : sends)
        if (t.bytes > 0) keep(ncclSend(t.data, t.bytes, ncclUint8, t.peer, comm, native(stream)));
      for (const Transfer& t : receives)
        if (t.bytes > 0) keep(ncclRecv(t.data, t.bytes, ncclUint8, t.peer, comm, native(stream)));
      const ncclResult_t ended = ncclGroupEnd();
      return result == ncclSuccess ? ended : result;
    });
  }

  void check() override {
    if (failed_.load()) throw_failure();
  }

  std::string state() const override {
    const char* const what = what_.load();
    std::string text = fmt::format("nccl {}: {}", nccl_version(), failed_.load() ? "failed" : "no error");
    if (failed_.load()) {
      const std::unique_lock lock(text_mutex_, std::try_to_lock);
      if (lock.owns_lock()) text = fmt::format("nccl {}: {}", nccl_version(), failure_);
    }
    if (what != nullptr) text += fmt::format("; call {} is {} of {} bytes", sequence_.load(), what, bytes_.load());
    return text;
  }

  Memory* memory() noexcept override { return this; }

 private:
  // ---- start and end
  void start(const ncclUniqueId& id, double limit) {
    const auto until = after(limit);
    ncclConfig_t options = NCCL_CONFIG_INITIALIZER;
    options.blocking = 0;
    begin("the start", 0);
    ncclResult_t result = ncclCommInitRankConfig(comm_.out(), size_, id, rank_, &options);
    if (result == ncclSuccess || result == ncclInProgress) result = comm_.settled(until);
    if (result == ncclInProgress) too_late(limit);
    if (result != ncclSuccess) fail(result);
    connect(until, limit);
  }

  /// Sums that need every kind of call and so every connection, which NCCL would otherwise make in the first step; and
  /// that show that the ranks can sum at all.
  void connect(Clock::time_point until, double limit) {
    const auto ranks = static_cast<std::size_t>(size_);
    const Buffer memory(device_, (2 * ranks + 1) * sizeof(float));
    const HostBuffer pinned(device_, sizeof(float));
    const auto done = device_.make_event();
    const auto stream = device_.make_stream(StreamUse::communication);
    const auto view = [&](std::size_t at, std::size_t n) {
      return Tensor{{DType::f32, Shape{static_cast<std::int64_t>(n)}}, memory.at(at * sizeof(float))};
    };
    auto& value = *static_cast<float*>(pinned.data());
    value = static_cast<float>(rank_ + 1);
    device_.copy(memory.data(), &value, sizeof value, *stream);
    all_reduce(view(0, 1), Reduce::sum, *stream);
    all_gather(view(0, 1), view(1, ranks), *stream);
    std::vector<Transfer> sends, receives;
    for (std::size_t r = 0; r < ranks; ++r) {
      sends.push_back({static_cast<int>(r), memory.at((1 + r) * sizeof(float)), sizeof(float)});
      receives.push_back({static_cast<int>(r), memory.at((1 + ranks + r) * sizeof(float)), sizeof(float)});
    }
    exchange(sends, receives, *stream);
    reduce_scatter(view(1 + ranks, ranks), view(0, 1), Reduce::sum, *stream);
    broadcast(view(0, 1), 0, *stream);
    device_.copy(&value, memory.data(), sizeof value, *stream);
    stream->record(*done);
    while (!done->done()) {
      ncclResult_t state = ncclSuccess;
      const ncclResult_t asked = ncclCommGetAsyncError(comm_.get(), &state);
      if (asked != ncclSuccess) fail(asked);
      if (state != ncclSuccess && state != ncclInProgress) fail(state);
      if (Clock::now() >= until) too_late(limit);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    // The sum of 1 to n, n times.
    const int sum = size_ * (size_ + 1) / 2;
    const float expected = static_cast<float>(size_) * static_cast<float>(sum);
    if (value != expected)
      throw CommError(fmt::format("NCCL sums wrongly on rank {}: {} instead of {}; NCCL_DEBUG=INFO tells what it uses",
                                  rank_, value, expected),
                      rank_, sequence_);
    sequence_ = 0;
    what_ = nullptr;
  }

  [[noreturn]] void too_late(double limit) {
    comm_.abort();
    throw CommError(
        fmt::format("NCCL did not start on rank {} within {:g} s (communication.{}): another rank did not come, or the "
                    "GPUs cannot reach each other; NCCL_DEBUG=INFO tells more",
                    rank_, limit, setting_of(Deadline::set_up).name),
        rank_, sequence_);
  }

  // ---- calls
  void begin(const char* what, std::size_t bytes) {
    bytes_ = bytes;
    what_ = what;
  }

  void check_shard(const char* what, const Tensor& shard, const Tensor& whole) const {
    if (shard.desc.dtype != whole.desc.dtype || shard.elements() * size_ != whole.elements())
      throw BugError(fmt::format("{}: a shard of {} elements and {} in all do not fit {} ranks", what, shard.elements(),
                                 whole.elements(), size_));
  }

  template <class Call>
  void call(const char* what, std::size_t bytes, Call give) {
    const std::lock_guard lock(mutex_);
    if (failed_.load()) throw_failure();
    ++sequence_;
    begin(what, bytes);
    if (bytes == 0) return;
    ncclResult_t result = give(comm_.get());
    if (result == ncclInProgress) result = comm_.settled(after(seconds_));
    if (result != ncclSuccess) fail(result);
  }

  // ---- failures
  /// Of the latest call; the lock is held, or nobody else is there yet.
  [[noreturn]] void fail(ncclResult_t result) {
    note(fmt::format("{} number {} ({} bytes) failed on rank {}: {}", what_.load(), sequence_.load(), bytes_.load(),
                     rank_, text_of(result, comm_.get())));
    comm_.abort();
    throw_failure();
  }

  /// First, so that whoever sees what streams do after an abort sees this.
  void note(const std::string& text) {
    const std::lock_guard lock(text_mutex_);
    if (!failed_.load()) failure_ = text;
    failed_ = true;
  }

  [[noreturn]] void throw_failure() {
    heard_ = true;
    const std::lock_guard lock(text_mutex_);
    throw CommError(failure_, rank_, sequence_.load());
  }

  static bool lock_within(std::unique_lock<std::mutex>& lock, Clock::duration limit) {
    for (const auto end = Clock::now() + limit; !lock.try_lock();) {
      if (Clock::now() >= end) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }

  /// Errors of other ranks and of the network arrive while nobody calls; kernels that wait for what will never come end
  /// by an abort alone, and only then does the training thread come back from its streams.
  void watch() {
    std::unique_lock watching(watching_);
    while (!closing_changed_.wait_for(watching, look_every, [this] { return closing_; })) {
      std::unique_lock lock(mutex_, std::defer_lock);
      // Where a call does not return, it waits for the streams that only the abort sets free.
      const bool calm = lock_within(lock, lock_patience);
      if (failed_.load()) return;
      ncclResult_t state = ncclSuccess;
      const ncclResult_t asked = ncclCommGetAsyncError(comm_.get(), &state);
      const ncclResult_t error = asked != ncclSuccess ? asked : state;
      if (error == ncclSuccess || error == ncclInProgress) continue;
      const std::string text =
          fmt::format("a collective up to number {} failed on rank {}{}: {}", sequence_.load(), rank_,
                      calm ? "" : ", whose latest call does not return", text_of(error, comm_.get()));
      note(text);
      if (calm) lock.unlock();  // calls see the failure from here on
      // On a thread of its own: it frees memory of the GPU, which may wait for what is broken.
      ender_ = std::thread([this] { comm_.abort(); });
      const bool ends = closing_changed_.wait_for(watching, heard_within, [this] { return closing_; });
      if (!ends && !heard_.load() && last_resort_) last_resort_(text);
      return;
    }
  }

  // ---- memory
  void* allocate(std::size_t bytes) override {
    const std::lock_guard lock(mutex_);
    if (failed_.load()) throw_failure();
    void* memory = nullptr;
    if (ncclMemAlloc(&memory, bytes) != ncclSuccess)
      throw OutOfMemory(fmt::format("out of memory: {} has no {:.1f} MiB left for what ranks exchange", device_.name(),
                                    static_cast<double>(bytes) / (1 << 20)));
    // Registered, it travels without a copy where the hardware can do that. Otherwise it travels as all memory does.
    void* handle = nullptr;
    if (ncclCommRegister(comm_.get(), memory, bytes, &handle) != ncclSuccess) handle = nullptr;
    registered_[memory] = handle;
    return memory;
  }
  void release(void* memory) noexcept override {
    const std::lock_guard lock(mutex_);
    const auto found = registered_.find(memory);
    if (found == registered_.end()) return;
    // A communicator that failed is being ended, and takes its registrations along.
    if (found->second != nullptr && !failed_.load()) ncclCommDeregister(comm_.get(), found->second);
    registered_.erase(found);
    ncclMemFree(memory);
  }

  Device& device_;
  const int rank_, size_;
  const double seconds_;
  const LastResort last_resort_;
  // One call at a time: of the training thread, and the watcher's looks and abort.
  std::mutex mutex_;
  Handle comm_;
  std::map<void*, void*> registered_;  // memory and its handle

  std::atomic<std::uint64_t> sequence_{0};
  std::atomic<const char*> what_{nullptr};
  std::atomic<std::size_t> bytes_{0};
  std::atomic<bool> failed_{false}, heard_{false};  // by the training thread
  mutable std::mutex text_mutex_;
  std::string failure_;

  std::mutex watching_;
  std::condition_variable closing_changed_;
  bool closing_ = false;
  std::thread watcher_, ender_;
};

}  // namespace

bool nccl_available() noexcept {
  return true;
}

std::string nccl_version() {
  int v = 0;
  if (ncclGetVersion(&v) != ncclSuccess) return "unknown";
  return fmt::format("{}.{}.{}", v / 10000, v / 100 % 100, v % 100);
}

std::unique_ptr<DeviceExchange> make_nccl_collective(Group& group, Device& device, const CommConfig& config,
                                                     LastResort last_resort) {
  return std::make_unique<Nccl>(group, device, config, std::move(last_resort));
}

}  // namespace dtrain::comm
