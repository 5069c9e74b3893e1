#include "launch/base/signals.hpp"

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <system_error>
#include <utility>

#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

namespace {

constexpr std::pair<int, const char*> stop_signals[] = {
    {SIGTERM, "SIGTERM"}, {SIGUSR1, "SIGUSR1"}, {SIGINT, "SIGINT"}, {SIGHUP, "SIGHUP"}, {SIGQUIT, "SIGQUIT"}};

const char* name_of(int number) noexcept {
  for (const auto& [signal, name] : stop_signals)
    if (signal == number) return name;
  return "a signal";
}

/// What a shell ignores for a command in the background, and nohup, is not meant for it.
bool stays_ignored(int number) noexcept {
  struct sigaction old {};
  return (number == SIGHUP || number == SIGQUIT) && sigaction(number, nullptr, &old) == 0 && old.sa_handler == SIG_IGN;
}

void block(const sigset_t& set) {
  if (const int e = pthread_sigmask(SIG_BLOCK, &set, nullptr))
    throw BugError(std::string("cannot block signals: ") + std::strerror(e));
}

}  // namespace

void block_signals(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (const int s : signals) sigaddset(&set, s);
  block(set);
}

StopSignals::StopSignals(std::chrono::milliseconds again) : again_(again) {
  sigset_t set;
  sigemptyset(&set);
  for (const auto& [number, name] : stop_signals)
    if (!stays_ignored(number)) sigaddset(&set, number);
  block(set);
  block_signals({SIGPIPE, SIGXFSZ});
  descriptor_ = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  wake_ = eventfd(0, EFD_CLOEXEC);
  if (descriptor_ < 0 || wake_ < 0) throw BugError(std::string("cannot receive signals: ") + std::strerror(errno));
}

StopSignals::~StopSignals() {
  if (thread_.joinable()) {
    const std::uint64_t one = 1;
    if (write(wake_, &one, sizeof one) > 0) thread_.join();
  }
  close(descriptor_);
  close(wake_);
}

void StopSignals::watch(End end) {
  const std::lock_guard lock(mutex_);
  end_ = std::move(end);
  if (!thread_.joinable()) thread_ = std::thread([this] { wait(); });
}

void StopSignals::answer_at_steps() {
  const std::lock_guard lock(mutex_);
  at_steps_ = true;
}

void StopSignals::wait() {
  pollfd events[] = {{descriptor_, POLLIN, 0}, {wake_, POLLIN, 0}};
  while (poll(events, std::size(events), -1) > 0 || errno == EINTR) {
    if (events[1].revents != 0) return;
    const std::lock_guard lock(mutex_);
    receive();
  }
}

void StopSignals::receive() {
  signalfd_siginfo info{};
  while (read(descriptor_, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    const int number = static_cast<int>(info.ssi_signo);
    if (first_ == 0) {
      first_ = number;
      if (end_ && !at_steps_)
        end(fmt::format("stopped by {} with nothing to save: run the same command again", name_of(number)));
    }
    if (number == SIGUSR1) continue;
    const auto now = Clock::now();
    if (!counted_) {
      counted_ = now;
    } else if (end_ && now - *counted_ >= again_) {
      end(fmt::format(
          "ended at once by a second signal ({}): what is not in a checkpoint is lost; run the same command "
          "again to go on from the last one",
          name_of(number)));
    }
  }
}

/// Saying so may itself wait, for a terminal that stands still or for the others.
void StopSignals::end(const std::string& why) {
  try {
    std::thread([] {
      std::this_thread::sleep_for(std::chrono::seconds(2));
      std::_Exit(static_cast<int>(ExitCode::stopped));
    }).detach();
  } catch (const std::system_error&) {
    std::_Exit(static_cast<int>(ExitCode::stopped));
  }
  end_(why);
}

void StopSignals::ask(std::string why) {
  const std::lock_guard lock(mutex_);
  asked_ = std::move(why);
}

bool StopSignals::asked() const {
  const std::lock_guard lock(mutex_);
  return first_ == 0 && !asked_.empty();
}

bool StopSignals::pending() noexcept {
  const std::lock_guard lock(mutex_);
  receive();
  return first_ != 0 || !asked_.empty();
}

std::string StopSignals::name() const {
  const std::lock_guard lock(mutex_);
  return first_ != 0 ? name_of(first_) : asked_;
}

}  // namespace dtrain::launch
