// One task at a time in the background, for the file calls of a save.
// Owned and driven by one thread; what a task writes may be read after busy() was false or wait() returned.
#pragma once

#include <chrono>
#include <exception>
#include <functional>
#include <future>
#include <string>
#include <utility>

namespace dtrain::io {

/// Its end waits for the task at hand.
class Worker {
 public:
  /// Only while not busy. Where no thread is to be had the task has failed.
  void start(std::function<void()> task) {
    try {
      task_ = std::async(std::launch::async, std::move(task));
    } catch (const std::exception&) {
      std::promise<void> failed;
      failed.set_exception(std::current_exception());
      task_ = failed.get_future();
    }
  }
  bool busy() const { return task_.valid() && task_.wait_for(std::chrono::seconds(0)) != std::future_status::ready; }
  void wait() const {
    if (task_.valid()) task_.wait();
  }
  /// What the latest task threw, as text; empty: it ended well.
  std::string error() const {
    try {
      if (task_.valid()) task_.get();
      return {};
    } catch (const std::exception& e) {
      return e.what()[0] != '\0' ? e.what() : "unknown failure";
    }
  }

 private:
  std::shared_future<void> task_;
};

}  // namespace dtrain::io
