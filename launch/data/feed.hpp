// Feed: moves micro batches from a loader's ring of host memory into the input slots of a program. On an asynchronous
// device they go over a copy stream of their own, while the batch before is computed with.
// Owns that stream and the events both ways: a slot is not overwritten before the pass that reads it is done, and no
// pass reads it before it is filled. Called on the training thread. A batch is valid until give_back().
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "io/dataset/loader.hpp"
#include "launch/data/device_data.hpp"
#include "runtime/device/device.hpp"
#include "runtime/program/program.hpp"

namespace dtrain::launch {

class Feed {
 public:
  Feed(Device&, Stream& compute);

  /// The slot to fill for the next pass: they take turns where copies overlap with passes. `micro_batch`: of the step.
  int next_slot(std::int64_t micro_batch) noexcept {
    return copies_ ? static_cast<int>(filled_ % Program::slots) : static_cast<int>(micro_batch % Program::slots);
  }
  /// The loader's next batch, on its way into the slot. Later work of the compute stream sees it. The program was given
  /// the loader's layout. Throws what the loader's threads met. `data`: of a loader of stored bytes; else null.
  const io::Batch& next(io::Loader&, const Program&, int slot, const DeviceData* data = nullptr);
  /// The loader may fill the batch's memory again once the device has it.
  void give_back(io::Loader&);
  /// The pass that reads the slot was given to the compute stream.
  void read(int slot);
  /// No copy is under way any more, whatever came of it.
  void quiet() noexcept;
  /// Before a loader goes: gives back all that it is still owed.
  void settle();

 private:
  /// Batches that were given back while they might still be copied.
  static constexpr std::size_t most_owed = 8;
  struct Owed {
    io::Loader* loader = nullptr;
    std::unique_ptr<Event> copied;
  };
  void release_oldest();
  void release_copied(io::Loader&);

  Device& device_;
  Stream& compute_;
  std::unique_ptr<Stream> copies_;  // null where copies are the caller's own work
  std::array<std::unique_ptr<Event>, Program::slots> read_;
  std::array<Owed, most_owed> owed_;
  std::uint64_t filled_ = 0, released_ = 0;  // batches
};

}  // namespace dtrain::launch
