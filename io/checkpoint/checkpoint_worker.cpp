#include "io/checkpoint/checkpoint_worker.hpp"

#include <exception>
#include <utility>

namespace dtrain::io {

Worker::~Worker() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Worker::start(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    task_ = std::move(task);
    busy_ = true;
    error_.clear();
  }
  changed_.notify_all();
  if (thread_.joinable()) return;
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::exception& e) {  // no thread to be had: a failed task like any other
    const std::lock_guard lock(mutex_);
    task_ = nullptr;
    busy_ = false;
    error_ = e.what();
  }
}

bool Worker::busy() const {
  const std::lock_guard lock(mutex_);
  return busy_;
}

void Worker::wait() const {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !busy_; });
}

std::string Worker::error() const {
  const std::lock_guard lock(mutex_);
  return error_;
}

void Worker::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stop_ || busy_; });
    if (!busy_) return;
    const auto task = std::exchange(task_, nullptr);
    lock.unlock();
    std::string error;
    try {
      task();
    } catch (const std::exception& e) {
      error = e.what();
      if (error.empty()) error = "unknown failure";
    }
    lock.lock();
    error_ = std::move(error);
    busy_ = false;
    changed_.notify_all();
  }
}

}  // namespace dtrain::io
