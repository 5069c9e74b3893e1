// Feed: moves micro batches from a loader's ring of host memory into the input slots of a program.
// Owns one event; called on the training thread, copies on its compute stream. A batch is valid until give_back().
#pragma once

#include <memory>

#include "io/loader.hpp"
#include "runtime/device.hpp"
#include "runtime/program.hpp"

namespace dtrain::launch {

class Feed {
 public:
  Feed(Device& device, Stream& compute) : device_(device), compute_(compute), copied_(device.make_event()) {}

  /// The loader's next batch, on its way into `slot`; of a set without targets the slot keeps the ones that it has.
  /// Throws what the loader's threads met.
  const io::Batch& next(io::Loader&, const InputSlot& slot);
  /// The loader may fill the batch's memory again once the device has it: at once on a cpu, before the batch after it
  /// elsewhere.
  void give_back(io::Loader&);

 private:
  Device& device_;
  Stream& compute_;
  std::unique_ptr<Event> copied_;
  io::Loader* owed_ = nullptr;  // whose batch was given back while it was still being copied
};

}  // namespace dtrain::launch
