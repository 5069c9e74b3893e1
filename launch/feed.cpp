#include "launch/feed.hpp"

#include <utility>

namespace dtrain::launch {

const io::Batch& Feed::next(io::Loader& loader, const InputSlot& slot) {
  if (owed_) {
    copied_->synchronize();
    std::exchange(owed_, nullptr)->release();
  }
  const io::Batch& batch = loader.next();
  const auto copy = [&](const Tensor& to, const Tensor& from) {
    if (to && from) device_.copy(to.data, from.data, to.bytes(), compute_);
  };
  copy(slot.sample, batch.sample);
  copy(slot.target, batch.target);
  copy(slot.weight, batch.weight);
  copy(slot.positions, batch.positions);
  compute_.record(*copied_);
  return batch;
}

void Feed::give_back(io::Loader& loader) {
  if (copied_->done()) {
    loader.release();
  } else {
    owed_ = &loader;
  }
}

}  // namespace dtrain::launch
