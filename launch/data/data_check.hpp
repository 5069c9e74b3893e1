// DataCheck: whether the training samples are, byte for byte, those that the run began with. Of a set that is in memory
// that is known at the start; of any other each epoch that is read gives the sums of all rows, kept in checkpoints.
// Owns the sums of what this rank has read; used on the training thread. Collective calls say so.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "io/dataset/dataset.hpp"
#include "io/dataset/loader.hpp"
#include "launch/data/row_sums.hpp"
#include "runtime/optim/batch_schedule.hpp"
#include "runtime/ranks/group.hpp"

namespace dtrain::launch {

class DataCheck {
 public:
  /// For the checkpoint: key and text among its `versions`.
  static constexpr const char* key = "data_sums";

  /// `all`: the sums of the set, where they are known already: nothing is asked of loaders then. `force`: other samples
  /// are told of and accepted.
  DataCheck(const io::Dataset&, BatchSchedule, std::optional<RowSums> all, bool force);

  /// The run goes on from `checkpoint` after so many steps; `text` is what that has under the key, empty if nothing.
  /// Every rank calls it. Returns what is to be said; throws CheckpointError where the samples are other ones.
  std::vector<std::string> resume(const Group&, const std::string& text, const std::string& checkpoint,
                                  std::uint64_t steps);
  /// Are loaders to hash rows?
  bool reads() const noexcept { return !known_at_start_; }
  /// What was read of a training step. Allocates where an epoch begins.
  void add(const io::Batch&);
  /// Collective, after each step: compares epochs that have ended. Returns what is to be said, mostly nothing; throws
  /// DataError, on all ranks alike, where the samples are other ones.
  std::vector<std::string> step_done(Group&, std::uint64_t steps);
  /// Collective: for the checkpoint of that step.
  std::string text(Group&, std::uint64_t steps) const;

 private:
  std::uint64_t position(std::uint64_t steps) const noexcept;
  RowSums total(Group&, const RowSums& mine) const;
  std::string compare(const RowSums& read, bool by_this_process);

  const io::Dataset& data_;
  const std::uint64_t count_;
  const BatchSchedule batch_;
  const bool force_;
  bool known_at_start_ = false;
  std::optional<RowSums> all_;             // what the samples are to be
  std::string since_;                      // the checkpoint which that is from; empty: this process has read it
  std::string checkpoint_;                 // that the run goes on from
  bool told_ = true;                       // that all is as it was, or nobody is to be told
  std::uint64_t resumed_ = 0;              // position in the stream from which on this process reads
  std::uint64_t begin_ = 0;                // from which on the sums have all
  std::uint64_t epoch_ = 0;                // the oldest that has not ended
  std::map<std::uint64_t, RowSums> read_;  // by epoch
};

}  // namespace dtrain::launch
