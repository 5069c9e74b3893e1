#include "runtime/device/cuda_graph_cache.hpp"

#include <algorithm>

namespace dtrain {

/// The entry of this key; a new one has not run, and will have by the next time.
CudaGraphCache::Entry& CudaGraphCache::of(std::uint64_t key) {
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.key == key; });
  if (found != entries_.end()) {
    found->ran = true;
    return *found;
  }
  return entries_.emplace_back(Entry{key, false, nullptr});
}

}  // namespace dtrain
