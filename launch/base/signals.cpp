#include "launch/base/signals.hpp"

#include <cerrno>
#include <csignal>
#include <cstring>

#include <pthread.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

StopSignals::StopSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (int s : {SIGTERM, SIGUSR1, SIGINT}) sigaddset(&set, s);
  if (const int e = pthread_sigmask(SIG_BLOCK, &set, nullptr))
    throw BugError(std::string("cannot block signals: ") + std::strerror(e));
  descriptor_ = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  if (descriptor_ < 0) throw BugError(std::string("cannot receive signals: ") + std::strerror(errno));
}

StopSignals::~StopSignals() {
  close(descriptor_);
}

bool StopSignals::pending() noexcept {
  signalfd_siginfo info{};
  while (name_.empty() && read(descriptor_, &info, sizeof info) == static_cast<ssize_t>(sizeof info))
    name_ = info.ssi_signo == SIGTERM ? "SIGTERM" : info.ssi_signo == SIGUSR1 ? "SIGUSR1" : "SIGINT";
  return !name_.empty();
}

}  // namespace dtrain::launch
