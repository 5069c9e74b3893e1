#include "runtime/optim/update_ledger.hpp"

#include <algorithm>
#include <atomic>
#include <utility>

namespace dtrain {

void UpdateLedger::add(std::size_t param, const LedgerSums& read, const LedgerSums& written) noexcept {
  for (std::size_t v = 0; v < LedgerSums::values; ++v) {
    std::atomic_ref(read_[param].sums[v]).fetch_add(read.sums[v], std::memory_order_relaxed);
    std::atomic_ref(written_[param].sums[v]).fetch_add(written.sums[v], std::memory_order_relaxed);
  }
  std::atomic_ref(added_).store(true, std::memory_order_relaxed);
}

std::optional<UpdateLedger::Change> UpdateLedger::difference(std::span<const LedgerSums> read) const noexcept {
  for (std::size_t p = 0; p < read.size() && known_; ++p)
    for (std::size_t v = 0; v < LedgerSums::values; ++v)
      if (read[p].sums[v] != before_[p].sums[v]) return Change{p, v, steps_};
  return std::nullopt;
}

std::optional<UpdateLedger::Change> UpdateLedger::change(std::span<const LedgerSums> now) const noexcept {
  return change_ ? change_ : difference(now);
}

void UpdateLedger::close(std::uint64_t step) noexcept {
  if (!std::exchange(added_, false)) return;
  if (!change_) change_ = difference(read_);
  before_ = written_;
  std::fill(read_.begin(), read_.end(), LedgerSums{});
  std::fill(written_.begin(), written_.end(), LedgerSums{});
  known_ = true;
  steps_ = step + 1;
}

}  // namespace dtrain
