#include "runtime/cpu/stream.hpp"

#include <type_traits>

#include <pthread.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::cpu {

namespace {
template <class E>
auto& cpu_event(E& event) {
  using Own = std::conditional_t<std::is_const_v<E>, const CpuEvent, CpuEvent>;
  auto* own = dynamic_cast<Own*>(&event);
  if (!own) throw BugError("a cpu stream was given the event of another device");
  return *own;
}
}  // namespace

// ---- events ---------------------------------------------------------------------------------------------------------

bool CpuEvent::done() const {
  const std::lock_guard lock(mutex_);
  return reached_ >= issued_;
}

void CpuEvent::synchronize() {
  wait_for(issued());
}

double CpuEvent::seconds_since(const Event& earlier) const {
  const CpuEvent& before = cpu_event(earlier);
  const auto reached_at = [](const CpuEvent& e) {
    const std::lock_guard lock(e.mutex_);
    if (e.issued_ == 0 || e.reached_ < e.issued_) throw BugError("the time of an event that was not reached");
    return e.when_;
  };
  return std::chrono::duration<double>(reached_at(*this) - reached_at(before)).count();
}

std::uint64_t CpuEvent::issue() {
  const std::lock_guard lock(mutex_);
  return ++issued_;
}

void CpuEvent::reach(std::uint64_t ticket, std::exception_ptr failure) {
  // Notified under the lock: the waiter may destroy the event as soon as it has the lock.
  const std::lock_guard lock(mutex_);
  if (ticket > reached_) {
    reached_ = ticket;
    when_ = std::chrono::steady_clock::now();
    failure_ = std::move(failure);
  }
  reached_changed_.notify_all();
}

std::uint64_t CpuEvent::issued() const {
  const std::lock_guard lock(mutex_);
  return issued_;
}

void CpuEvent::wait_for(std::uint64_t ticket) {
  std::unique_lock lock(mutex_);
  reached_changed_.wait(lock, [&] { return reached_ >= ticket; });
  if (failure_) std::rethrow_exception(failure_);
}

// ---- the inline stream ----------------------------------------------------------------------------------------------

void InlineStream::record(Event& event) {
  CpuEvent& own = cpu_event(event);
  own.reach(own.issue(), failure_);
  if (failure_) std::rethrow_exception(failure_);
}

void InlineStream::wait(Event& event) {
  if (failure_) std::rethrow_exception(failure_);
  try {
    cpu_event(event).synchronize();
  } catch (...) {
    failure_ = std::current_exception();
    throw;
  }
}

void InlineStream::host(const HostTask& task) {
  if (failure_) std::rethrow_exception(failure_);
  HostTask copy = task;
  try {
    copy.run(copy.arguments);
  } catch (...) {
    failure_ = std::current_exception();
    throw;
  }
}

void InlineStream::synchronize() {
  if (failure_) std::rethrow_exception(failure_);
}

// ---- the threaded stream --------------------------------------------------------------------------------------------

ThreadStream::ThreadStream(const char* thread_name) : ring_(capacity), thread_([this] { work(); }) {
  pthread_setname_np(thread_.native_handle(), thread_name);  // only for debuggers: a failure does not matter
}

ThreadStream::~ThreadStream() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    submitted_changed_.notify_all();
  }
  thread_.join();
}

void ThreadStream::submit(const Item& item) {
  std::unique_lock lock(mutex_);
  if (failure_ && item.kind != Kind::record) std::rethrow_exception(failure_);
  if (submitted_ - finished_ == capacity) {
    if (std::this_thread::get_id() == thread_.get_id())
      throw BugError("a stream's own task submitted work to the full stream");
    finished_changed_.wait(lock, [&] { return submitted_ - finished_ < capacity; });
  }
  ring_[submitted_ % capacity] = item;
  ++submitted_;
  submitted_changed_.notify_one();
  if (failure_) std::rethrow_exception(failure_);
}

void ThreadStream::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    submitted_changed_.wait(lock, [&] { return stopping_ || submitted_ > finished_; });
    if (submitted_ == finished_) return;
    Item& item = ring_[finished_ % capacity];  // stays ours until finished_ moves on
    lock.unlock();
    std::exception_ptr failure;
    try {
      run(item);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    if (failure && !failure_) failure_ = std::move(failure);
    ++finished_;
    finished_changed_.notify_all();
  }
}

void ThreadStream::run(Item& item) {
  std::exception_ptr failed_before;
  {
    const std::lock_guard lock(mutex_);
    failed_before = failure_;
  }
  if (item.kind == Kind::record) {
    item.event->reach(item.ticket, std::move(failed_before));
  } else if (failed_before) {
    return;  // nothing may run on the results of what failed
  } else if (item.kind == Kind::wait) {
    item.event->wait_for(item.ticket);
  } else {
    item.task.run(item.task.arguments);
  }
}

void ThreadStream::record(Event& event) {
  CpuEvent& own = cpu_event(event);
  submit({Kind::record, &own, own.issue(), {}});
}

void ThreadStream::wait(Event& event) {
  CpuEvent& own = cpu_event(event);
  submit({Kind::wait, &own, own.issued(), {}});
}

void ThreadStream::host(const HostTask& task) {
  submit({Kind::host, nullptr, 0, task});
}

void ThreadStream::synchronize() {
  std::unique_lock lock(mutex_);
  if (std::this_thread::get_id() == thread_.get_id()) throw BugError("a stream's own task waits for the stream");
  finished_changed_.wait(lock, [&, until = submitted_] { return finished_ >= until; });
  if (failure_) std::rethrow_exception(failure_);
}

}  // namespace dtrain::cpu
