#include "runtime/program/step_memory.hpp"

#include <cstring>

#include "runtime/tensor/error.hpp"

namespace dtrain {

StepMemory::StepMemory(Device& device) : device_(device) {
  const auto steps = static_cast<std::size_t>(lag()) + 1;
  for (std::size_t i = 0; i < steps; ++i) done_.push_back(device.make_event());
  if (!device.asynchronous()) return;
  memory_ = Buffer(device, sizeof(StepState));
  state_ = static_cast<StepState*>(memory_.data());
  pinned_ = HostBuffer(device, steps * sizeof(Image));
  images_ = static_cast<Image*>(pinned_.data());
  std::uninitialized_default_construct_n(images_, steps);
}

void StepMemory::reset(const StepState& state, Stream& stream) {
  if (under_way() > 0) throw BugError("a run begins while steps are under way");
  if (images_ != nullptr) {
    image(ended_).begin = state;
    device_.copy(state_, &image(ended_).begin, sizeof state, stream);
    stream.synchronize();
  } else {
    shared_ = state;
  }
}

void StepMemory::begin(const StepState& step, Stream& stream) {
  if (under_way() > lag()) throw BugError("a step begins before the state of an older one was read");
  if (images_ != nullptr) {
    image(ended_).begin = step;
    device_.copy(state_, &image(ended_).begin, StepState::host_bytes, stream);
  } else {
    std::memcpy(static_cast<void*>(&shared_), &step, StepState::host_bytes);
  }
}

void StepMemory::write_tail(const StepTail& mine, std::size_t counted, float* to, Stream& stream) {
  const std::size_t bytes = StepTail::floats(counted) * sizeof(float);
  if (images_ != nullptr) {
    image(ended_).tail = mine;
    device_.copy(to, &image(ended_).tail, bytes, stream);
  } else {
    std::memcpy(to, &mine, bytes);
  }
}

void StepMemory::end(Stream& stream) {
  if (images_ != nullptr) device_.copy(&image(ended_).end, state_, sizeof(StepState), stream);
  stream.record(*done_[ended_ % done_.size()]);
  ++ended_;
}

const StepState& StepMemory::read() {
  if (under_way() == 0) throw BugError("there is no step whose state could be read");
  const std::uint64_t step = read_++;
  done_[step % done_.size()]->synchronize();
  return images_ != nullptr ? image(step).end : shared_;
}

}  // namespace dtrain
