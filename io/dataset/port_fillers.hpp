// PortFillers are the fillers of all ports of a layout, and what they know of each other; internal to io/.
// They own the fillers and the augmenters, borrow the Dataset, and may be used from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "io/dataset/port_filler.hpp"

namespace dtrain::io {

/// The fillers of all ports of a layout, and the augmenters that they share.
class PortFillers {
 public:
  /// `training`: with augmentation.
  PortFillers(const Dataset&, const BatchLayout&, std::span<const PortOptions>, std::uint64_t seed, bool training);

  std::size_t size() const noexcept { return fillers_.size(); }
  const PortFiller& operator[](std::size_t port) const { return *fillers_[port]; }
  const Augmenter* augmenter(std::size_t port) const { return augmenters_[port].get(); }
  /// Null where the port has no weights.
  const WeightFiller* weights(std::size_t port) const { return weights_[port]; }
  const IndexFiller* labels(std::size_t port) const { return indices_[port]; }
  void reserve(FillScratch&) const;

 private:
  std::optional<Masking> masking_;
  std::vector<std::unique_ptr<Augmenter>> augmenters_;
  std::vector<std::unique_ptr<PortFiller>> fillers_;
  std::vector<const WeightFiller*> weights_;
  std::vector<const IndexFiller*> indices_;
};

}  // namespace dtrain::io
