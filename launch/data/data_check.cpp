#include "launch/data/data_check.hpp"

#include <utility>

#include <fmt/format.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

DataCheck::DataCheck(const io::Dataset& data, BatchSchedule batch, std::optional<RowSums> all, bool force)
    : data_(data),
      count_(data.count()),
      batch_(std::move(batch)),
      force_(force),
      known_at_start_(all.has_value()),
      all_(std::move(all)) {}

std::vector<std::string> DataCheck::resume(const Group& group, const std::string& text, const std::string& checkpoint,
                                           std::uint64_t steps) {
  checkpoint_ = checkpoint;
  resumed_ = begin_ = position(steps);
  epoch_ = begin_ / count_;
  if (text.empty()) return {};
  SavedSums saved = saved_sums_from(text, "checkpoint " + checkpoint);
  if (saved.count != count_) return {};  // another set, which was accepted
  if (saved.part && saved.part->end != begin_)
    throw CheckpointError(fmt::format("checkpoint {} is corrupt: data_sums has samples up to {}, and it was written "
                                      "at sample {}; resume from another one",
                                      checkpoint, saved.part->end, begin_),
                          CheckpointError::Kind::corrupt);
  if (known_at_start_) {
    if (!saved.all) return {};
    if (*saved.all == *all_) return {"every byte of the training samples is as it was"};
    const std::string what = fmt::format("the training samples are not those of checkpoint {}: {} differ", checkpoint,
                                         differing_rows(data_, *saved.all, *all_));
    if (force_) return {"forced: " + what};
    throw CheckpointError(what +
                              "; bring the files back as they were, begin anew with --fresh, or "
                              "accept them with checkpoint.force=true",
                          CheckpointError::Kind::incompatible);
  }
  all_ = saved.all;
  if (saved.part) {
    begin_ = saved.part->begin;
    if (group.rank() == 0) read_[epoch_] = saved.part->sums;
  }
  if (!all_ && begin_ > epoch_ * count_) return {};  // nothing that is whole
  since_ = checkpoint;
  told_ = false;
  return {fmt::format("the training samples are compared with the checkpoint in every byte when epoch {} was read",
                      (resumed_ + count_ - 1) / count_ + 1)};
}

void DataCheck::add(const io::Batch& batch) {
  if (batch.hashes.empty()) return;
  const auto* const positions = batch.positions.as<std::uint64_t>();
  std::uint64_t epoch = 0;
  RowSums* sums = nullptr;
  for (std::size_t i = 0; i < static_cast<std::size_t>(batch.valid); ++i) {
    if (sums == nullptr || positions[i] / count_ != epoch) {
      epoch = positions[i] / count_;
      sums = &read_[epoch];
    }
    sums->add(batch.indices[i], count_, batch.hashes[i]);
  }
}

std::uint64_t DataCheck::position(std::uint64_t steps) const noexcept {
  return static_cast<std::uint64_t>(batch_.samples_before(static_cast<std::int64_t>(steps)));
}

RowSums DataCheck::total(Group& group, const RowSums& mine) const {
  RowSums total;
  for (const RowSums& theirs : group.all_values(mine)) total.add(theirs);
  return total;
}

std::vector<std::string> DataCheck::step_done(Group& group, std::uint64_t steps) {
  std::vector<std::string> said;
  for (; reads() && (epoch_ + 1) * count_ <= position(steps); ++epoch_) {
    const RowSums read = total(group, read_[epoch_]);
    read_.erase(epoch_);
    if (begin_ > epoch_ * count_) continue;  // not all of it
    if (std::string text = compare(read, resumed_ <= epoch_ * count_); !text.empty()) said.push_back(std::move(text));
  }
  return said;
}

/// With what the samples of an epoch came to. What was read of it before the run was resumed is of those of then.
std::string DataCheck::compare(const RowSums& read, bool by_this_process) {
  if (!all_) {
    all_ = read;
    return {};
  }
  if (read == *all_) {
    if (!by_this_process || std::exchange(told_, true)) return {};
    return fmt::format("every byte of the training samples is as it was in checkpoint {}", since_);
  }
  const std::string rows = differing_rows(data_, read, *all_);
  const std::string what =
      since_.empty() ? fmt::format(
                           "the training samples have changed while the run was reading them: {} are not what "
                           "they were in the epoch before",
                           rows)
                     : fmt::format(
                           "the training samples are not those of checkpoint {}: {} differ, as all of them "
                           "were read by the end of epoch {}",
                           since_, rows, epoch_ + 1);
  if (force_) {
    all_ = by_this_process ? std::optional(read) : std::nullopt;
    since_.clear();
    told_ = true;
    return "forced: " + what;
  }
  throw DataError(fmt::format(
      "{}; bring the files back as they were and go on from {}, or accept them with checkpoint.force=true", what,
      checkpoint_.empty() ? std::string("an older checkpoint, or anew")
                          : fmt::format("{} (--fresh checkpoint.resume={}): newer ones have learnt from other samples",
                                        checkpoint_, checkpoint_)));
}

std::string DataCheck::text(Group& group, std::uint64_t steps) const {
  SavedSums saved;
  saved.count = count_;
  saved.all = all_;
  const std::uint64_t end = position(steps), epoch = end / count_, first = std::max(begin_, epoch * count_);
  if (reads() && end > first) {
    const auto at = read_.find(epoch);
    saved.part = SavedSums::Part{first, end, total(group, at == read_.end() ? RowSums{} : at->second)};
  }
  return to_text(saved);
}

}  // namespace dtrain::launch
