#include "launch/data/feed.hpp"

namespace dtrain::launch {

Feed::Feed(Device& device, Stream& compute) : device_(device), compute_(compute) {
  if (!device.asynchronous()) return;
  copies_ = device.make_stream(StreamUse::copy);
  for (auto& event : read_) event = device.make_event();
  for (Owed& o : owed_) o.copied = device.make_event();
}

const io::Batch& Feed::next(io::Loader& loader, const Program& program, int slot, const DeviceData* data) {
  const InputSlot& to = program.slot(slot);
  if (!copies_) {
    const io::Batch& batch = loader.next();
    device_.copy(to.carried, batch.memory.data(), batch.memory.size(), compute_);
    return batch;
  }
  release_copied(loader);
  const io::Batch& batch = loader.next();
  Owed& owed = owed_[filled_ % most_owed];
  copies_->wait(*read_[static_cast<std::size_t>(slot)]);
  device_.copy(to.carried, batch.memory.data(), batch.memory.size(), *copies_);
  copies_->record(*owed.copied);
  compute_.wait(*owed.copied);
  if (data != nullptr) data->convert(to, compute_);
  owed.loader = &loader;
  return batch;
}

void Feed::give_back(io::Loader& loader) {
  ++filled_;
  if (!copies_) loader.release();
}

void Feed::read(int slot) {
  if (copies_) compute_.record(*read_[static_cast<std::size_t>(slot)]);
}

/// The host waits here only where the loader's ring is too short for what the device is given ahead.
void Feed::release_copied(io::Loader& loader) {
  while (released_ < filled_ && owed_[released_ % most_owed].copied->done()) release_oldest();
  std::uint64_t held = 0;
  for (std::uint64_t b = released_; b < filled_; ++b) held += owed_[b % most_owed].loader == &loader ? 1 : 0;
  while (filled_ - released_ == most_owed || held >= static_cast<std::uint64_t>(loader.most_held())) {
    held -= owed_[released_ % most_owed].loader == &loader ? 1 : 0;
    release_oldest();
  }
}

void Feed::release_oldest() {
  const Owed& owed = owed_[released_++ % most_owed];
  owed.copied->synchronize();
  owed.loader->release();
}

void Feed::quiet() noexcept {
  try {
    if (copies_) copies_->synchronize();
  } catch (...) {  // whoever needed those copies has heard of it
  }
}

void Feed::settle() {
  while (copies_ && released_ < filled_) release_oldest();
}

}  // namespace dtrain::launch
