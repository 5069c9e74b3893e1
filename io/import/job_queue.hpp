// Jobs on their way from the one thread that reads to those that work on them; internal to io/import.
// A JobQueue owns the jobs that wait; any thread may use it. The first failure of any thread ends all.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <utility>

namespace dtrain::io {

template <class Job>
class JobQueue {
 public:
  explicit JobQueue(std::size_t most) : most_(most) {}
  /// False where it is of no use to go on.
  bool push(Job job) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return failure_ || jobs_.size() < most_; });
    if (failure_) return false;
    jobs_.push_back(std::move(job));
    changed_.notify_all();
    return true;
  }
  std::optional<Job> pop() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return failure_ || closed_ || !jobs_.empty(); });
    if (failure_ || jobs_.empty()) return std::nullopt;
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    changed_.notify_all();
    return job;
  }
  /// Calls work() when those of all jobs before it were called: `index` counts jobs from 0. False where it is of no use
  /// to go on. A job that fails before its turn must take it as well, so that the first failure is the one that is
  /// told.
  template <class Work>
  bool in_turn(std::size_t index, Work&& work) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return failure_ || turn_ == index; });
      if (failure_) return false;
    }
    work();
    const std::lock_guard lock(mutex_);
    ++turn_;
    changed_.notify_all();
    return true;
  }
  void close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }
  void fail(std::exception_ptr failure) {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::move(failure);
    changed_.notify_all();
  }
  void rethrow() {
    const std::lock_guard lock(mutex_);
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  std::size_t most_, turn_ = 0;
  bool closed_ = false;
  std::exception_ptr failure_;
};

}  // namespace dtrain::io
