// StepMemory: a run's StepState where kernels read it, and what the host knows of the steps under way: it fills in a
// step before it is given to the device, and reads what became of it when the device is done with it.
// Owns the state, and on an asynchronous device a ring of pinned images with one event each; elsewhere there is one
// struct, which host and kernels share. Used on the training thread; nothing is allocated after creation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/device/device.hpp"
#include "runtime/device/host_buffer.hpp"
#include "runtime/device/step_state.hpp"

namespace dtrain {

class StepMemory {
 public:
  explicit StepMemory(Device&);

  /// Steps that the host is ahead: it reads a step's results after it has given the device so many more. A constant of
  /// the kind of device, so that all ranks learn of a request to stop after the same step. 0: there is no waiting.
  int lag() const noexcept { return device_.asynchronous() ? asynchronous_lag : 0; }

  /// What kernels and updates are given: the same address for ever, in device memory.
  StepState& state() noexcept { return *state_; }
  /// The start of a run: all of it. Blocks.
  void reset(const StepState&, Stream&);
  /// Gives the device the host's part of the next step.
  void begin(const StepState& step, Stream&);
  /// What this rank tells in the step that began last, once: into device memory, where ranks add it up. `counted`
  /// losses.
  void write_tail(const StepTail&, std::size_t counted, float* to, Stream&);
  /// After Kernels::finish_step: the step is under way until its state is read.
  void end(Stream&);
  int under_way() const noexcept { return static_cast<int>(ended_ - read_); }
  /// The oldest step under way as it ended; waits until the device was there, and throws what went wrong on it. Valid
  /// until the next begin().
  const StepState& read();

 private:
  static constexpr int asynchronous_lag = 2;
  /// In pinned memory.
  struct Image {
    StepState begin, end;
    StepTail tail;
  };
  Image& image(std::uint64_t step) const noexcept { return images_[step % done_.size()]; }

  Device& device_;
  StepState shared_;
  Buffer memory_;
  StepState* state_ = &shared_;
  HostBuffer pinned_;
  Image* images_ = nullptr;                   // one a step under way
  std::vector<std::unique_ptr<Event>> done_;  // a step each
  std::uint64_t ended_ = 0, read_ = 0;
};

}  // namespace dtrain
