#include "comm/world/local.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "comm/collective/fixed_order.hpp"
#include "comm/world/device_collective.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

namespace {

using Clock = std::chrono::steady_clock;

// Thrown by waits that end because another rank failed: less interesting than that rank's own error.
class OtherRankFailed final : public CommError {
 public:
  explicit OtherRankFailed(int rank) : CommError(fmt::format("rank {} failed", rank), rank) {}
};

// What the ranks of one group or communicator share: a barrier, an address a rank, and lanes of messages.
class Channel {
 public:
  Channel(int ranks, double timeout_seconds)
      : ranks_(ranks),
        timeout_(timeout_seconds),
        addresses_(static_cast<std::size_t>(ranks)),
        lanes_(static_cast<std::size_t>(ranks * ranks * Communicator::lanes)) {}

  int ranks() const noexcept { return ranks_; }

  void fail(int rank) {
    const std::lock_guard lock(mutex_);
    if (failed_ < 0) failed_ = rank;
    changed_.notify_all();
  }

  void barrier() {
    std::unique_lock lock(mutex_);
    const std::uint64_t mine = generation_;
    if (++arrived_ == ranks_) {
      arrived_ = 0;
      ++generation_;
      changed_.notify_all();
      return;
    }
    await(lock, "a barrier", [&] { return generation_ != mine; });
  }

  // Everybody's address, valid until leave().
  const std::vector<const void*>& meet(int rank, const void* mine) {
    {
      const std::lock_guard lock(mutex_);
      addresses_[static_cast<std::size_t>(rank)] = mine;
    }
    barrier();
    return addresses_;
  }
  void leave() { barrier(); }

  void reserve(std::size_t messages) {
    const std::lock_guard lock(mutex_);
    for (Lane& lane : lanes_) {
      if (lane.ring.size() < messages) lane.ring.resize(messages);
    }
  }

  std::uint64_t publish(int from, int to, int lane_index, const void* data, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    Lane& lane = lane_of(from, to, lane_index);
    if (lane.published - lane.consumed >= lane.ring.size()) throw BugError("more messages in flight than reserved");
    lane.ring[lane.published % lane.ring.size()] = {data, bytes};
    changed_.notify_all();
    return lane.published++;
  }

  void consume(int from, int to, int lane_index, std::uint64_t number, void* data, std::size_t bytes) {
    std::unique_lock lock(mutex_);
    Lane& lane = lane_of(from, to, lane_index);
    await(lock, "a message", [&] { return lane.published > number && lane.consumed == number; });
    const Message message = lane.ring[number % lane.ring.size()];
    if (message.bytes != bytes) throw BugError(fmt::format("a message of {} bytes for {}", message.bytes, bytes));
    lock.unlock();
    if (bytes > 0) std::memcpy(data, message.data, bytes);
    lock.lock();
    ++lane.consumed;
    changed_.notify_all();
  }

  void await_consumed(int from, int to, int lane_index, std::uint64_t number) {
    std::unique_lock lock(mutex_);
    const Lane& lane = lane_of(from, to, lane_index);
    await(lock, "a receiver", [&] { return lane.consumed > number; });
  }

 private:
  struct Message {
    const void* data = nullptr;
    std::size_t bytes = 0;
  };
  struct Lane {
    std::vector<Message> ring;
    std::uint64_t published = 0, consumed = 0;
  };

  Lane& lane_of(int from, int to, int lane) {
    const std::size_t pair =
        static_cast<std::size_t>(from) * static_cast<std::size_t>(ranks_) + static_cast<std::size_t>(to);
    return lanes_[pair * Communicator::lanes + static_cast<std::size_t>(lane)];
  }

  template <class Condition>
  void await(std::unique_lock<std::mutex>& lock, const char* what, Condition condition) {
    const auto end =
        Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(timeout_));
    const bool in_time = changed_.wait_until(lock, end, [&] { return condition() || failed_ >= 0; });
    if (condition()) return;
    if (in_time) throw OtherRankFailed(failed_);
    throw CommError(fmt::format("waited {} s for {} of the other ranks", timeout_, what));
  }

  const int ranks_;
  const double timeout_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int arrived_ = 0;
  std::uint64_t generation_ = 0;
  int failed_ = -1;
  std::vector<const void*> addresses_;
  std::vector<Lane> lanes_;
};

class LocalGroup final : public Group {
 public:
  LocalGroup(std::shared_ptr<Channel> channel, int rank) : channel_(std::move(channel)), rank_(rank) {}
  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return channel_->ranks(); }

  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> mine) override {
    std::vector<std::vector<std::byte>> out;
    for (const void* theirs : channel_->meet(rank_, &mine)) {
      const auto& bytes = *static_cast<const std::span<const std::byte>*>(theirs);
      out.emplace_back(bytes.begin(), bytes.end());
    }
    channel_->leave();
    return out;
  }
  void broadcast(std::vector<std::byte>& bytes, int root) override {
    const void* from = channel_->meet(rank_, &bytes)[static_cast<std::size_t>(root)];
    if (rank_ != root) bytes = *static_cast<const std::vector<std::byte>*>(from);
    channel_->leave();
  }
  void barrier() override { channel_->barrier(); }

 private:
  std::shared_ptr<Channel> channel_;
  int rank_;
};

template <class Call>
void with_type(DType dtype, Call call) {
  switch (dtype) {
    case DType::f32:
      return call(float{});
    case DType::f64:
      return call(double{});
    case DType::u8:
      return call(std::uint8_t{});
    case DType::u16:
      return call(std::uint16_t{});
    case DType::i32:
      return call(std::int32_t{});
    case DType::i64:
      return call(std::int64_t{});
    case DType::u64:
      return call(std::uint64_t{});
    case DType::bf16:
    case DType::f16:
      break;
  }
  throw CommError(fmt::format("local ranks cannot add {}", name_of(dtype)));
}

// Elements [begin, end) over all buffers, in rank order.
template <class T>
T reduced(const std::vector<const void*>& buffers, std::size_t i, Reduce reduce) {
  T value = static_cast<const T*>(buffers[0])[i];
  for (std::size_t r = 1; r < buffers.size(); ++r) {
    const T next = static_cast<const T*>(buffers[r])[i];
    value = reduce == Reduce::sum ? static_cast<T>(value + next) : std::max(value, next);
  }
  return value;
}

class LocalCommunicator final : public Communicator {
 public:
  LocalCommunicator(std::shared_ptr<Channel> channel, int rank) : channel_(std::move(channel)), rank_(rank) {}
  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return channel_->ranks(); }

  void all_reduce(void* inout, std::size_t count, DType dtype, Reduce reduce) override {
    const auto& buffers = channel_->meet(rank_, inout);
    with_type(dtype, [&](auto zero) {
      using T = decltype(zero);
      const auto n = static_cast<std::size_t>(size()), r = static_cast<std::size_t>(rank_);
      for (std::size_t i = count * r / n; i < count * (r + 1) / n; ++i) {
        const T value = reduced<T>(buffers, i, reduce);
        for (const void* buffer : buffers) static_cast<T*>(const_cast<void*>(buffer))[i] = value;
      }
    });
    channel_->leave();
  }

  void reduce_scatter(void* in, void* out, std::size_t shard, DType dtype, Reduce reduce) override {
    const auto& buffers = channel_->meet(rank_, in);
    with_type(dtype, [&](auto zero) {
      using T = decltype(zero);
      const std::size_t begin = static_cast<std::size_t>(rank_) * shard;
      for (std::size_t i = 0; i < shard; ++i) static_cast<T*>(out)[i] = reduced<T>(buffers, begin + i, reduce);
    });
    channel_->leave();
  }

  void all_gather(const void* in, void* out, std::size_t shard, DType dtype) override {
    auto* to = static_cast<std::byte*>(out);
    const std::size_t bytes = shard * size_of(dtype);
    for (const void* from : channel_->meet(rank_, in)) {
      if (from != to && bytes > 0) std::memcpy(to, from, bytes);
      to += bytes;
    }
    channel_->leave();
  }

  void broadcast(void* inout, std::size_t count, DType dtype, int root) override {
    const void* from = channel_->meet(rank_, inout)[static_cast<std::size_t>(root)];
    if (rank_ != root && count > 0) std::memcpy(inout, from, count * size_of(dtype));
    channel_->leave();
  }

  void reserve(int slots) override {
    transfers_.assign(static_cast<std::size_t>(slots), {});
    next_receive_.assign(static_cast<std::size_t>(size()) * lanes, 0);
    channel_->reserve(static_cast<std::size_t>(slots));
    channel_->barrier();
  }

  void post_send(int slot, int to, int lane, const void* data, std::size_t bytes) override {
    transfer(slot) = {Transfer::send, to, lane, channel_->publish(rank_, to, lane, data, bytes), nullptr, bytes};
  }

  void post_receive(int slot, int from, int lane, void* data, std::size_t bytes) override {
    transfer(slot) = {Transfer::receive,
                      from,
                      lane,
                      next_receive_[static_cast<std::size_t>(from) * lanes + static_cast<std::size_t>(lane)]++,
                      data,
                      bytes};
  }

  void wait(int first, int count) override {
    for (int slot = first; slot < first + count; ++slot) {
      Transfer& t = transfer(slot);
      if (t.kind == Transfer::receive) channel_->consume(t.peer, rank_, t.lane, t.number, t.data, t.bytes);
      if (t.kind == Transfer::send) channel_->await_consumed(rank_, t.peer, t.lane, t.number);
      t.kind = Transfer::none;
    }
  }

 private:
  struct Transfer {
    enum Kind { none, send, receive } kind = none;
    int peer = 0, lane = 0;
    std::uint64_t number = 0;  // of its lane
    void* data = nullptr;
    std::size_t bytes = 0;
  };
  Transfer& transfer(int slot) { return transfers_[static_cast<std::size_t>(slot)]; }

  std::shared_ptr<Channel> channel_;
  int rank_;
  std::vector<Transfer> transfers_;
  std::vector<std::uint64_t> next_receive_;
};

}  // namespace

class LocalWorld {
 public:
  LocalWorld(int ranks, double timeout_seconds) : ranks_(ranks), timeout_(timeout_seconds) {}
  int ranks() const noexcept { return ranks_; }

  std::shared_ptr<Channel> channel(int index) {
    const std::lock_guard lock(mutex_);
    while (channels_.size() <= static_cast<std::size_t>(index)) {
      channels_.push_back(std::make_shared<Channel>(ranks_, timeout_));
      if (failed_ >= 0) channels_.back()->fail(failed_);
    }
    return channels_[static_cast<std::size_t>(index)];
  }

  void fail(int rank) {
    const std::lock_guard lock(mutex_);
    if (failed_ < 0) failed_ = rank;
    for (const auto& channel : channels_) channel->fail(rank);
  }

 private:
  const int ranks_;
  const double timeout_;
  std::mutex mutex_;
  int failed_ = -1;
  std::vector<std::shared_ptr<Channel>> channels_;
};

int LocalRank::size() const noexcept {
  return world_.ranks();
}

std::unique_ptr<Group> LocalRank::make_group() {
  return std::make_unique<LocalGroup>(world_.channel(made_++), rank_);
}

std::unique_ptr<Communicator> LocalRank::make_communicator(Algorithm algorithm) {
  std::unique_ptr<Communicator> communicator = std::make_unique<LocalCommunicator>(world_.channel(made_++), rank_);
  if (algorithm == Algorithm::fixed_order) communicator = make_fixed_order(std::move(communicator));
  return communicator;
}

std::unique_ptr<Collective> LocalRank::make_collective(Algorithm algorithm) {
  return make_host_collective(make_communicator(algorithm));
}

std::unique_ptr<Collective> LocalRank::make_collective(Device& device, const CommConfig& config) {
  CollectiveMaker make{.size = size(), .host = "local"};
  make.group = [this] { return make_group(); };
  make.communicator = [this](Algorithm algorithm) { return make_communicator(algorithm); };
  std::string note;
  return make_device_collective(make, device, config, note);
}

void run_local(int ranks, const std::function<void(LocalRank&)>& work, double timeout_seconds) {
  LocalWorld world(ranks, timeout_seconds);
  std::mutex mutex;
  std::exception_ptr first, secondary;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        LocalRank context(world, rank);
        work(context);
      } catch (const OtherRankFailed&) {
        const std::lock_guard lock(mutex);
        if (!secondary) secondary = std::current_exception();
      } catch (...) {
        {
          const std::lock_guard lock(mutex);
          if (!first) first = std::current_exception();
        }
        world.fail(rank);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
  if (secondary) std::rethrow_exception(secondary);
}

}  // namespace dtrain::comm
