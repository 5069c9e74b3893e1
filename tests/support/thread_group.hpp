// Ranks as threads of one process, for tests of what runs over a Group: run_ranks(n, work) calls work on n threads.
// A rank that throws ends the exchange of the others with CommError, and a rank that never comes does so after 60 s.
#pragma once

#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime/ranks/group.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::test {

struct ThreadRoom {
  explicit ThreadRoom(int n) : size(n), boxes(static_cast<std::size_t>(n)) {}
  const int size;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::vector<std::byte>> boxes, result;
  int arrived = 0;
  std::uint64_t round = 0;
  bool broken = false;
};

class ThreadGroup final : public Group {
 public:
  ThreadGroup(ThreadRoom& room, int rank) : room_(room), rank_(rank) {}
  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return room_.size; }
  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> mine) override {
    std::unique_lock lock(room_.mutex);
    if (room_.broken) throw CommError("another rank is gone");
    const auto round = room_.round;
    room_.boxes[static_cast<std::size_t>(rank_)].assign(mine.begin(), mine.end());
    if (++room_.arrived == room_.size) {
      room_.result = room_.boxes;
      room_.arrived = 0;
      ++room_.round;
      room_.changed.notify_all();
    } else if (!room_.changed.wait_for(lock, std::chrono::seconds(60),
                                       [&] { return room_.broken || room_.round != round; })) {
      room_.broken = true;
      room_.changed.notify_all();
      throw CommError("a rank did not come to the exchange");
    }
    if (room_.round == round) throw CommError("another rank is gone");
    // The next round cannot end before this rank has joined it, so the result is still that of this round.
    return room_.result;
  }
  void broadcast(std::vector<std::byte>& bytes, int root) override {
    bytes = all_gather(rank_ == root ? std::span<const std::byte>(bytes)
                                     : std::span<const std::byte>())[static_cast<std::size_t>(root)];
  }
  void barrier() override { all_gather(std::span<const std::byte>()); }

 private:
  ThreadRoom& room_;
  const int rank_;
};

/// Rethrows what the lowest failing rank threw (other than the CommError that its failure caused elsewhere).
inline void run_ranks(int ranks, const std::function<void(Group&)>& work) {
  ThreadRoom room(ranks);
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(ranks));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      ThreadGroup group(room, rank);
      try {
        work(group);
      } catch (...) {
        errors[static_cast<std::size_t>(rank)] = std::current_exception();
        const std::lock_guard lock(room.mutex);
        room.broken = true;
        room.changed.notify_all();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  std::exception_ptr first;
  for (const auto& error : errors) {
    if (!error) continue;
    if (!first) first = error;
    try {
      std::rethrow_exception(error);
    } catch (const CommError&) {
    } catch (...) {
      std::rethrow_exception(error);
    }
  }
  if (first) std::rethrow_exception(first);
}

}  // namespace dtrain::test
