// One background thread with room for one task at a time, for the file calls of a save.
// Owned and driven by one thread; what a task writes may be read after busy() was false or wait() returned.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace dtrain::io {

class Worker {
 public:
  Worker() = default;
  /// Waits for the task at hand.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  /// Only while not busy. The thread is started by the first task.
  void start(std::function<void()> task);
  bool busy() const;
  void wait() const;
  /// What the latest task threw, as text; empty: it ended well.
  std::string error() const;

 private:
  void run();
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::function<void()> task_;
  bool busy_ = false, stop_ = false;
  std::string error_;
  std::thread thread_;
};

}  // namespace dtrain::io
