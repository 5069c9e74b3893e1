// The endless stream of samples: position p lies in epoch p / N, and the epoch's permutation, keyed by (seed, epoch),
// gives the sample. Which sample a position takes depends on nothing else, never on ranks, threads or history.
// A SampleStream owns small tables and may be used from any thread; looking up allocates nothing.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "io/dataset/dataset.hpp"
#include "runtime/optim/batch_schedule.hpp"

namespace dtrain::io {

/// How orders are drawn. A run goes on in the one that it began in: its checkpoints name it.
enum class OrderVersion : std::uint8_t {
  first = 1,   // a Feistel network for every n: far from uniform for n = 5, visibly so up to n = 128
  second = 2,  // up to IndexPermutation::most_stored a Fisher-Yates shuffle, above as the first
};
constexpr OrderVersion newest_order = OrderVersion::second;

/// A random permutation of [0, n). A large one is computed place by place: a Feistel network over the next power of
/// two, walked until it lands inside (less than two evaluations on average), with Philox as the round function. A small
/// one is shuffled when it is made, into a table within the object. Neither allocates.
class IndexPermutation {
 public:
  /// Twice the n up to which a chi-squared test of 200,000 orders tells the network from a uniform permutation.
  static constexpr std::uint64_t most_stored = 256;

  /// `lane` tells permutations of one epoch apart (blocks, rows of a window).
  IndexPermutation(std::uint64_t n, std::uint64_t seed, std::uint64_t epoch, std::uint32_t lane = 0,
                   OrderVersion version = newest_order);
  std::uint64_t size() const noexcept { return n_; }
  std::uint64_t operator()(std::uint64_t i) const noexcept { return stored_ ? table_[i] : network(i); }

 private:
  void shuffle() noexcept;
  std::uint64_t network(std::uint64_t i) const noexcept;

  std::uint64_t n_;
  std::uint64_t epoch_;
  std::uint32_t lane_;
  std::uint32_t k0_, k1_;
  int left_bits_, right_bits_;
  bool stored_;
  std::array<std::uint8_t, most_stored> table_;  // only where stored_
};

class SampleStream {
 public:
  /// Blocks of a window: large enough that neighbours in the file are strangers in the batch.
  static constexpr std::uint64_t window_blocks = 16;

  /// `count` >= 1. Without shuffle the order is that of the files. With `blocks`, whole blocks are permuted, and then
  /// rows within windows of `window_blocks` blocks, so that a compressed chunk is decompressed about once an epoch.
  SampleStream(std::uint64_t count, std::uint64_t seed, bool shuffle, BlockLayout blocks = {},
               OrderVersion order = newest_order);
  ~SampleStream();
  SampleStream(const SampleStream&) = delete;
  SampleStream& operator=(const SampleStream&) = delete;

  std::uint64_t count() const noexcept { return count_; }
  std::uint64_t epoch_of(std::uint64_t position) const noexcept { return position / count_; }
  /// Sample indices of the positions first, first + 1, ...
  void indices(std::uint64_t first, std::span<std::uint64_t> out) const;

 private:
  struct Windows;
  std::uint64_t count_;
  std::uint64_t seed_;
  bool shuffle_;
  OrderVersion order_;
  std::unique_ptr<Windows> windows_;
};

/// The micro batches of one rank in training, in order: where each one stands, and where in the stream it begins.
class RankBatches {
 public:
  RankBatches(const BatchSchedule& schedule, std::int64_t micro_batch, int rank, int ranks) noexcept
      : schedule_(schedule), micro_batch_(micro_batch), rank_(rank), ranks_(ranks) {}

  const BatchSchedule& schedule() const noexcept { return schedule_; }
  /// Of a step, and of all steps before it.
  std::uint64_t of(std::uint64_t step) const noexcept {
    return static_cast<std::uint64_t>(schedule_.batch(static_cast<std::int64_t>(step)) / (micro_batch_ * ranks_));
  }
  std::uint64_t before(std::uint64_t step) const noexcept {
    const std::int64_t samples = schedule_.samples_before(static_cast<std::int64_t>(step));
    return static_cast<std::uint64_t>(samples / (micro_batch_ * ranks_));
  }
  /// The step that has the micro batch of this number.
  std::uint64_t step_of(std::uint64_t number) const noexcept {
    return static_cast<std::uint64_t>(schedule_.step_at(static_cast<std::int64_t>(number) * micro_batch_ * ranks_));
  }
  /// `micro`: of the step.
  std::uint64_t first_position(std::uint64_t step, std::uint64_t micro) const noexcept {
    return static_cast<std::uint64_t>(schedule_.samples_before(static_cast<std::int64_t>(step))) +
           (static_cast<std::uint64_t>(rank_) * of(step) + micro) * static_cast<std::uint64_t>(micro_batch_);
  }
  /// The position before this one in the step; of the step's first one the last, on whatever rank that is.
  std::uint64_t before_in_step(std::uint64_t step, std::uint64_t position) const noexcept {
    const auto at = static_cast<std::int64_t>(step);
    const auto first = static_cast<std::uint64_t>(schedule_.samples_before(at));
    return position > first ? position - 1 : first + static_cast<std::uint64_t>(schedule_.batch(at)) - 1;
  }

 private:
  const BatchSchedule schedule_;
  const std::int64_t micro_batch_;
  const int rank_, ranks_;
};

}  // namespace dtrain::io
