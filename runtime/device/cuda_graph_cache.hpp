// CudaGraphCache: pieces of a step's work, each run as it is the first time (libraries load and choose then), captured
// the second time, and replayed from then on. Owns the captured graphs; used on the thread that gives the stream its
// work.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/device/device.hpp"

namespace dtrain {

class CudaGraphCache {
 public:
  /// `wanted`: false runs everything as it is, always.
  CudaGraphCache(Device& device, bool wanted) : device_(device), wanted_(wanted) {}

  /// `work` gives the stream its work, with the same arguments and effects for the same key, and leaves nothing on the
  /// host that a replay would have to leave, too.
  template <class Work>
  void run(std::uint64_t key, Stream& stream, const Work& work) {
    if (!wanted_) return work();
    Entry& entry = of(key);
    if (!entry.replay && entry.ran) {
      entry.replay = device_.record(stream, work, refusal_);
      wanted_ = entry.replay != nullptr;
    }
    if (!entry.replay) return work();
    entry.replay->launch(stream);
  }
  /// Work is recorded, as far as the device has not refused.
  bool wanted() const noexcept { return wanted_; }
  /// Before anything that they hold changes: addresses, shapes.
  void clear() noexcept { entries_.clear(); }
  /// Why the device recorded nothing although it was wanted; empty where all is well.
  const std::string& refusal() const noexcept { return refusal_; }

 private:
  struct Entry {
    std::uint64_t key = 0;
    bool ran = false;
    std::unique_ptr<Replay> replay;
  };
  Entry& of(std::uint64_t key);

  Device& device_;
  bool wanted_;
  std::string refusal_;
  std::vector<Entry> entries_;
};

}  // namespace dtrain
