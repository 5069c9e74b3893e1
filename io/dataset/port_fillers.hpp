// PortFillers are the fillers of all ports of a layout, and what they know of each other; internal to io/.
// They own the fillers and the augmenters, borrow the Dataset, and may be used from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "io/augment/mixer.hpp"
#include "io/dataset/port_filler.hpp"

namespace dtrain::io {

/// The fillers of all ports of a layout, and the augmenters that they share.
class PortFillers {
 public:
  /// `training`: with augmentation.
  /// `ports` outlive it.
  PortFillers(const Dataset&, const BatchLayout&, std::span<const PortOptions>, const Mix&, std::uint64_t seed,
              bool training);

  std::size_t size() const noexcept { return fillers_.size(); }
  const PortFiller& operator[](std::size_t port) const { return *fillers_[port]; }
  const Augmenter* augmenter(std::size_t port) const { return augmenters_[port].get(); }
  /// Null where the port has no weights.
  const WeightFiller* weights(std::size_t port) const { return weights_[port]; }
  const IndexFiller* labels(std::size_t port) const { return indices_[port]; }
  /// Null where samples are not mixed.
  const Mixer* mixer() const { return mixer_ ? &*mixer_ : nullptr; }
  void reserve(FillScratch&) const;

  /// What ports carry as floats, of a row of a batch; pairs get their first half.
  void fill(std::uint64_t index, std::uint64_t position, FillScratch&, std::span<const Tensor> batch,
            std::size_t row) const;
  void pad(std::span<const Tensor> batch, std::size_t row) const;
  /// Mixes each sample of a filled batch with the one before it. `index`, `partner`: of the one before the first.
  void mix(std::span<const std::uint64_t> positions, std::uint64_t index, std::uint64_t partner, FillScratch&,
           std::span<const Tensor> batch) const;
  /// Where nothing is mixed: the second half of a pair is the same label, of weight 0.
  void repeat_labels(std::uint64_t rows, std::span<const Tensor> batch) const;

 private:
  std::byte* value_of(std::span<const Tensor> batch, std::size_t port, std::size_t row) const {
    return batch[port].as<std::byte>() + row * (ports_[port].pairs ? 2 : 1) * fillers_[port]->bytes();
  }
  template <class F>
  void fill_sample(std::uint64_t index, std::uint64_t position, FillScratch&, const F& at) const;

  std::span<const PortOptions> ports_;
  std::optional<Masking> masking_;
  std::optional<Mixer> mixer_;
  std::vector<std::unique_ptr<Augmenter>> augmenters_;
  std::vector<std::unique_ptr<PortFiller>> fillers_;
  std::vector<const WeightFiller*> weights_;
  std::vector<const IndexFiller*> indices_;
};

}  // namespace dtrain::io
