// The CPU's streams and events: an inline stream runs work on the caller's thread at once; a threaded one owns a thread
// and a ring of tasks. Both and their events are made by CpuDevice; nothing here allocates after creation, and an event
// must outlive the work that records it or waits for it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime/device/device.hpp"

namespace dtrain::cpu {

/// Counts its recordings; reached when the latest of them is. A recording of a failed stream carries the failure, so
/// that whoever waits for the stream's results hears of it instead of reading garbage.
class CpuEvent final : public Event {
 public:
  bool done() const override;
  void synchronize() override;
  double seconds_since(const Event& earlier) const override;

  /// The ticket of a new recording; `reach` must follow for each.
  std::uint64_t issue();
  void reach(std::uint64_t ticket, std::exception_ptr failure);
  std::uint64_t issued() const;
  /// Blocks until the recording `ticket` is reached; rethrows its failure.
  void wait_for(std::uint64_t ticket);

 private:
  mutable std::mutex mutex_;
  std::condition_variable reached_changed_;
  std::uint64_t issued_ = 0, reached_ = 0;
  std::chrono::steady_clock::time_point when_;
  std::exception_ptr failure_;
};

class InlineStream final : public Stream {
 public:
  void record(Event&) override;
  void wait(Event&) override;
  void host(const HostTask&) override;
  void synchronize() override;

 private:
  std::exception_ptr failure_;
};

class ThreadStream final : public Stream {
 public:
  /// Tasks that may wait in the ring; who submits more blocks until there is room.
  static constexpr std::size_t capacity = 512;

  explicit ThreadStream(const char* thread_name);
  /// Runs what was submitted, then ends the thread.
  ~ThreadStream() override;
  ThreadStream(const ThreadStream&) = delete;
  ThreadStream& operator=(const ThreadStream&) = delete;

  void record(Event&) override;
  void wait(Event&) override;
  void host(const HostTask&) override;
  void synchronize() override;

 private:
  enum class Kind : std::uint8_t { host, record, wait };
  struct Item {
    Kind kind = Kind::host;
    CpuEvent* event = nullptr;
    std::uint64_t ticket = 0;
    HostTask task;
  };
  /// Throws what failed before, without enqueueing, unless the item is a recording: somebody may wait for it.
  void submit(const Item&);
  void work();
  void run(Item&);

  std::mutex mutex_;
  std::condition_variable submitted_changed_, finished_changed_;
  std::vector<Item> ring_;
  std::uint64_t submitted_ = 0, finished_ = 0;
  bool stopping_ = false;
  std::exception_ptr failure_;
  std::thread thread_;
};

}  // namespace dtrain::cpu
