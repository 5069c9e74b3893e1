#include "tests/comm/nccl/simulated_nccl.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include "nccl.h"
#include "runtime/device/device.hpp"
#include "runtime/tensor/bf16.hpp"
#include "runtime/tensor/f16.hpp"
#include "tests/support/async_device.hpp"

using dtrain::Bf16;
using dtrain::F16;
using dtrain::HostTask;
using dtrain::Stream;
using dtrain::test::AsyncDevice;
using dtrain::test::simulated_nccl;

namespace {

enum class Kind : std::uint8_t { all_reduce, reduce_scatter, all_gather, broadcast, exchange };

struct Transfer {
  const void* from;
  void* to;
  std::size_t bytes;
  int peer;
};

/// A call of one rank, small enough for a host task.
struct Call {
  Kind kind;
  std::uint8_t type, operation;
  int root;
  const void* in;
  void* out;
  std::size_t count;
  const std::vector<Transfer>* transfers;

  bool fits(const Call& o) const {
    return kind == o.kind && type == o.type && operation == o.operation && root == o.root && count == o.count;
  }
};

std::size_t size_of(std::uint8_t type) {
  switch (type) {
    case ncclInt8:
    case ncclUint8:
      return 1;
    case ncclFloat16:
    case ncclBfloat16:
      return 2;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32:
      return 4;
    default:
      return 8;
  }
}

template <class T, class Wide>
void reduce(const std::vector<Call>& calls, std::size_t begin, std::size_t n, T* out, Wide (*widen)(T),
            T (*narrow)(Wide)) {
  for (std::size_t i = 0; i < n; ++i) {
    Wide value = widen(static_cast<const T*>(calls[0].in)[begin + i]);
    for (std::size_t r = 1; r < calls.size(); ++r) {
      const Wide next = widen(static_cast<const T*>(calls[r].in)[begin + i]);
      value = calls[0].operation == ncclSum ? static_cast<Wide>(value + next) : std::max(value, next);
    }
    out[i] = narrow(value);
  }
}

template <class T>
T same(T v) {
  return v;
}

void reduce(const std::vector<Call>& calls, std::size_t begin, std::size_t n, void* out) {
  switch (calls[0].type) {
    case ncclFloat32:
      return reduce<float, float>(calls, begin, n, static_cast<float*>(out), same, same);
    case ncclFloat64:
      return reduce<double, double>(calls, begin, n, static_cast<double*>(out), same, same);
    case ncclUint8:
      return reduce<std::uint8_t, std::uint8_t>(calls, begin, n, static_cast<std::uint8_t*>(out), same, same);
    case ncclInt32:
      return reduce<std::int32_t, std::int32_t>(calls, begin, n, static_cast<std::int32_t*>(out), same, same);
    case ncclInt64:
      return reduce<std::int64_t, std::int64_t>(calls, begin, n, static_cast<std::int64_t*>(out), same, same);
    case ncclUint64:
      return reduce<std::uint64_t, std::uint64_t>(calls, begin, n, static_cast<std::uint64_t*>(out), same, same);
    case ncclBfloat16:
      return reduce<Bf16, float>(calls, begin, n, static_cast<Bf16*>(out), dtrain::to_float, dtrain::to_bf16);
    case ncclFloat16:
      return reduce<F16, float>(calls, begin, n, static_cast<F16*>(out), dtrain::to_float, dtrain::to_f16);
    default:
      throw std::runtime_error("simulated NCCL: a type that nobody adds");
  }
}

/// All ranks of one unique id. The last rank to come to a call does it for all.
class Room {
 public:
  explicit Room(int ranks) : calls_(static_cast<std::size_t>(ranks)) {}

  void join() {
    const std::lock_guard lock(mutex_);
    ++joined_;
  }
  bool complete() {
    const std::lock_guard lock(mutex_);
    return joined_ == static_cast<int>(calls_.size()) && !simulated_nccl().never_starts;
  }

  void meet(int rank, const Call& call, const std::atomic<bool>& aborted) {
    std::unique_lock lock(mutex_);
    const std::uint64_t mine = round_;
    calls_[static_cast<std::size_t>(rank)] = call;
    if (++arrived_ == static_cast<int>(calls_.size())) {
      for (const Call& c : calls_)
        if (!c.fits(calls_[0])) throw std::runtime_error("simulated NCCL: ranks call different things");
      perform();
      arrived_ = 0;
      ++round_;
      changed_.notify_all();
      return;
    }
    while (round_ == mine && !aborted) changed_.wait_for(lock, std::chrono::milliseconds(2));
    if (round_ == mine) --arrived_;  // its memory may go now
  }

 private:
  void perform() {
    const Call& first = calls_[0];
    const std::size_t size = size_of(first.type), ranks = calls_.size(), bytes = first.count * size;
    std::vector<std::byte> whole;
    switch (first.kind) {
      case Kind::all_reduce:
        whole.resize(bytes);
        reduce(calls_, 0, first.count, whole.data());
        for (const Call& c : calls_) std::memcpy(c.out, whole.data(), bytes);
        return;
      case Kind::reduce_scatter:
        whole.resize(bytes * ranks);
        reduce(calls_, 0, first.count * ranks, whole.data());
        for (std::size_t r = 0; r < ranks; ++r) std::memcpy(calls_[r].out, whole.data() + r * bytes, bytes);
        return;
      case Kind::all_gather:
        whole.resize(bytes * ranks);
        for (std::size_t r = 0; r < ranks; ++r) std::memcpy(whole.data() + r * bytes, calls_[r].in, bytes);
        for (const Call& c : calls_) std::memcpy(c.out, whole.data(), whole.size());
        return;
      case Kind::broadcast:
        for (const Call& c : calls_) std::memmove(c.out, calls_[static_cast<std::size_t>(first.root)].in, bytes);
        return;
      case Kind::exchange:
        return exchange();
    }
  }

  /// The k-th receive from a peer takes its k-th send to this rank; all sends are read before anything is written.
  void exchange() {
    struct Copy {
      void* to;
      std::vector<std::byte> bytes;
    };
    std::vector<Copy> copies;
    std::size_t sends = 0;
    for (std::size_t r = 0; r < calls_.size(); ++r) {
      std::map<int, std::size_t> taken;
      for (const Transfer& t : *calls_[r].transfers) {
        sends += t.from != nullptr;
        if (t.to == nullptr) continue;
        std::size_t skip = taken[t.peer]++;
        for (const Transfer& s : *calls_[static_cast<std::size_t>(t.peer)].transfers) {
          if (s.from == nullptr || s.peer != static_cast<int>(r) || skip-- > 0) continue;
          if (s.bytes != t.bytes) throw std::runtime_error("simulated NCCL: a message of another size");
          const auto* from = static_cast<const std::byte*>(s.from);
          copies.push_back({t.to, {from, from + s.bytes}});
          break;
        }
      }
    }
    if (sends != copies.size()) throw std::runtime_error("simulated NCCL: sends without receives, or the reverse");
    for (const Copy& c : copies) std::memcpy(c.to, c.bytes.data(), c.bytes.size());
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Call> calls_;
  int joined_ = 0, arrived_ = 0;
  std::uint64_t round_ = 0;
};

}  // namespace

struct ncclComm {
  std::shared_ptr<Room> room;
  int rank = 0;
  std::atomic<bool> aborted{false};
  std::list<std::vector<Transfer>> groups;  // of recorded work, too
  // A call that is given late.
  bool started = false, late = false;
  int looks_left = 0, calls = 0;
  Call call{};
  Stream* stream = nullptr;
  std::mutex mutex;

  bool dead() const { return rank == simulated_nccl().dead_rank; }

  void enqueue(const Call& c, Stream& on) {
    on.host(HostTask::of([comm = this, c] {
      if (comm->dead() || comm->aborted) return;
      comm->room->meet(comm->rank, c, comm->aborted);
    }));
  }
  ncclResult_t give(Call c, cudaStream_t on) {
    const std::lock_guard lock(mutex);
    auto& simulation = simulated_nccl();
    if (late) throw std::logic_error("simulated NCCL: a call before the last one was enqueued");
    ++simulation.calls;
    if (++calls == simulation.refused_call) return ncclInvalidUsage;
    c.in = AsyncDevice::real(c.in);
    c.out = AsyncDevice::real(c.out);
    auto& to = *reinterpret_cast<Stream*>(on);
    looks_left = simulation.late_by;
    if (looks_left == 0) {
      enqueue(c, to);
      return ncclSuccess;
    }
    call = c;
    stream = &to;
    late = true;
    return ncclInProgress;
  }
};

namespace {

struct State {
  std::mutex mutex;
  int ids = 0;
  std::map<int, std::shared_ptr<Room>> rooms;
  std::list<ncclComm> communicators;  // never freed while streams may know them
};
State& state() {
  static State s;
  return s;
}

struct OpenGroup {
  bool open = false;
  std::vector<Transfer> transfers;
  ncclComm* comm = nullptr;
  cudaStream_t stream = nullptr;
};
thread_local OpenGroup group;

ncclResult_t add(const Transfer& t, ncclComm* comm, cudaStream_t stream) {
  if (!group.open) return ncclInvalidUsage;
  group.transfers.push_back(t);
  group.comm = comm;
  group.stream = stream;
  return ncclSuccess;
}

}  // namespace

namespace dtrain::test {

SimulatedNccl& simulated_nccl() {
  static SimulatedNccl s;
  return s;
}

void SimulatedNccl::reset() {
  never_starts = noticed = abort_hangs = false;
  late_by = refused_call = 0;
  dead_rank = -1;
  calls = aborted = destroyed = registered = allocated = 0;
  const std::lock_guard lock(state().mutex);
  state().rooms.clear();
  state().communicators.clear();
}

}  // namespace dtrain::test

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = 22809;
  return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclRemoteError ? "remote process exited or there was a network error"
                                   : (result == ncclSuccess ? "no error" : "simulated error");
}
const char* ncclGetLastError(ncclComm_t) {
  return simulated_nccl().noticed ? "socket closed by remote peer" : "";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const std::lock_guard lock(state().mutex);
  *id = {};
  const int number = ++state().ids;
  std::memcpy(id->internal, &number, sizeof number);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t* config) {
  if (config->blocking != 0) return ncclInvalidArgument;
  const std::lock_guard lock(state().mutex);
  int number = 0;
  std::memcpy(&number, id.internal, sizeof number);
  auto& room = state().rooms[number];
  if (!room) room = std::make_shared<Room>(ranks);
  ncclComm& made = state().communicators.emplace_back();
  made.room = room;
  made.rank = rank;
  room->join();
  *comm = &made;
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* result) {
  const std::lock_guard lock(comm->mutex);
  auto& simulation = simulated_nccl();
  *result = ncclSuccess;
  if (!comm->started) {
    comm->started = comm->room->complete();
    if (!comm->started) *result = ncclInProgress;
  } else if (simulation.noticed && !comm->dead()) {
    *result = ncclRemoteError;
  } else if (comm->late) {
    if (--comm->looks_left > 0) {
      *result = ncclInProgress;
    } else {
      comm->late = false;
      comm->enqueue(comm->call, *comm->stream);
    }
  }
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t) {
  return ncclInProgress;
}
ncclResult_t ncclCommDestroy(ncclComm_t) {
  ++simulated_nccl().destroyed;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  ++simulated_nccl().aborted;
  while (simulated_nccl().abort_hangs) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  comm->aborted = true;
  return ncclSuccess;
}

ncclResult_t ncclMemAlloc(void** memory, size_t bytes) {
  void* const near = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (near == nullptr) return ncclSystemError;
  std::memset(near, 0xff, bytes);
  *memory = AsyncDevice::moved(near);
  ++simulated_nccl().allocated;
  return ncclSuccess;
}
ncclResult_t ncclMemFree(void* memory) {
  std::free(AsyncDevice::real(memory));
  --simulated_nccl().allocated;
  return ncclSuccess;
}
ncclResult_t ncclCommRegister(ncclComm_t, void* memory, size_t, void** handle) {
  *handle = memory;
  ++simulated_nccl().registered;
  return ncclSuccess;
}
ncclResult_t ncclCommDeregister(ncclComm_t, void*) {
  --simulated_nccl().registered;
  return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t operation,
                           ncclComm_t comm, cudaStream_t stream) {
  return comm->give({Kind::all_reduce, static_cast<std::uint8_t>(type), static_cast<std::uint8_t>(operation), 0, in,
                     out, count, nullptr},
                    stream);
}
ncclResult_t ncclReduceScatter(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t operation,
                               ncclComm_t comm, cudaStream_t stream) {
  return comm->give({Kind::reduce_scatter, static_cast<std::uint8_t>(type), static_cast<std::uint8_t>(operation), 0, in,
                     out, count, nullptr},
                    stream);
}
ncclResult_t ncclAllGather(const void* in, void* out, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  return comm->give({Kind::all_gather, static_cast<std::uint8_t>(type), 0, 0, in, out, count, nullptr}, stream);
}
ncclResult_t ncclBroadcast(const void* in, void* out, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
  return comm->give({Kind::broadcast, static_cast<std::uint8_t>(type), 0, root, in, out, count, nullptr}, stream);
}

ncclResult_t ncclGroupStart() {
  group = {};
  group.open = true;
  return ncclSuccess;
}
ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return add({AsyncDevice::real(data), nullptr, count * size_of(static_cast<std::uint8_t>(type)), peer}, comm, stream);
}
ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  return add({nullptr, AsyncDevice::real(data), count * size_of(static_cast<std::uint8_t>(type)), peer}, comm, stream);
}
ncclResult_t ncclGroupEnd() {
  group.open = false;
  if (group.comm == nullptr) return ncclSuccess;
  const auto& kept = group.comm->groups.emplace_back(std::move(group.transfers));
  return group.comm->give({Kind::exchange, ncclUint8, 0, 0, nullptr, nullptr, 0, &kept}, group.stream);
}
}
