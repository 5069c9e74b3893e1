#include "launch/data/feed.hpp"

#include <cstddef>

namespace dtrain::launch {

namespace {

/// What both have, at once where it lies alike in both memories, or one tensor after another.
void copy_batch(Device& device, const InputSlot& to, const io::Batch& from, Stream& stream) {
  const std::array<std::array<const Tensor*, 2>, 4> pairs{{{&to.sample, &from.sample},
                                                           {&to.target, &from.target},
                                                           {&to.weight, &from.weight},
                                                           {&to.positions, &from.positions}}};
  const Tensor *first_to = nullptr, *first_from = nullptr;
  bool alike = true;
  for (const auto& [t, f] : pairs) {
    if (!*t || !*f) {
      alike = alike && first_to == nullptr;  // a gap in the middle must stay as it is
      continue;
    }
    if (first_to == nullptr) first_to = t, first_from = f;
    alike = alike && t->as<std::byte>() - first_to->as<std::byte>() == f->as<std::byte>() - first_from->as<std::byte>();
  }
  if (alike && to.positions && from.positions) {
    const std::ptrdiff_t before = to.positions.as<std::byte>() - first_to->as<std::byte>();
    return device.copy(first_to->data, first_from->data, static_cast<std::size_t>(before) + to.positions.bytes(),
                       stream);
  }
  for (const auto& [t, f] : pairs)
    if (*t && *f) device.copy(t->data, f->data, t->bytes(), stream);
}

}  // namespace

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
    copy_batch(device_, to, batch, compute_);
    return batch;
  }
  release_copied(loader);
  const io::Batch& batch = loader.next();
  Owed& owed = owed_[filled_ % most_owed];
  copies_->wait(*read_[static_cast<std::size_t>(slot)]);
  if (data != nullptr) data->copy(batch, slot, *copies_);
  copy_batch(device_, to, batch, *copies_);
  copies_->record(*owed.copied);
  compute_.wait(*owed.copied);
  if (data != nullptr) data->convert(slot, to.sample, compute_);
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
