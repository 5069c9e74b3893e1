// UpdateLedger: sums over the bits of what each update reads and writes. What an update reads is what the one before it
// wrote, or else memory has changed in between: of values that one rank alone has, nothing else can tell.
// Owns a few numbers a parameter in host memory. A cpu's update kernels add to it, from several threads; the training
// thread closes each step and asks, between steps.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace dtrain {

/// Of a part of a parameter, or of all of it: the sum of the bits of its values, and of those of its optimizer state,
/// as 32-bit numbers, modulo 2^32. Any one bit that flips changes it, and the order of the values does not.
struct LedgerSums {
  static constexpr std::size_t values = 3;  // the parameter and up to two states
  std::array<std::uint32_t, values> sums{};
};
std::uint32_t sum_of_bits(const float* values, std::size_t count) noexcept;

class UpdateLedger {
 public:
  explicit UpdateLedger(std::size_t params) : read_(params), written_(params), before_(params) {}

  /// An update has read and written this part of a parameter (its place in FlatLayout::params). From any thread.
  void add(std::size_t param, const LedgerSums& read, const LedgerSums& written) noexcept;
  /// All updates of the step with this index are done; where there were none, as it was skipped, nothing happens.
  void close(std::uint64_t step) noexcept;
  /// The values were loaded: the next update may read anything.
  void forget() noexcept { known_ = false; }

  struct Change {
    std::size_t param = 0, value = 0;  // 0: the parameter; i + 1: its optimizer state i
    std::uint64_t step = 0;            // steps that were done when it was right for the last time
  };
  /// The first that an update has seen; or else what `now`, the sums of what there is, by parameter, show.
  std::optional<Change> change(std::span<const LedgerSums> now) const noexcept;

 private:
  std::optional<Change> difference(std::span<const LedgerSums> read) const noexcept;
  std::vector<LedgerSums> read_, written_, before_;
  bool added_ = false, known_ = false;
  std::uint64_t steps_ = 0;  // done when `before_` was written
  std::optional<Change> change_;
};

}  // namespace dtrain
