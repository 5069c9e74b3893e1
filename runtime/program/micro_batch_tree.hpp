// MicroBatchTree: adds up the gradients of a rank's micro batches in a balanced pairwise tree, whose bits together with
// a tree over ranks depend on the micro batches alone and not on how many ranks share them.
// Owns one flat buffer a level of the tree; used on the training thread, between Program::run and the hooks behind it.
#pragma once

#include <vector>

#include "runtime/device/device.hpp"
#include "runtime/plan/flat.hpp"
#include "runtime/program/program.hpp"

namespace dtrain {

/// Every micro batch writes its gradients afresh (Pass::first). keep() takes those of all but the last; bucket_ready of
/// the last one adds what was kept, bucket by bucket, so that buckets still travel during backward. Sums of the loss
/// and of statistics, which lie behind the parameters, go the same way.
class MicroBatchTree final : public StepHooks {
 public:
  /// `micro_batches` a step, a power of two. Store and hooks outlive the tree.
  MicroBatchTree(Device&, const ParameterStore&, int micro_batches, StepHooks& next);

  /// Before each micro batch of a step: the number of those before it.
  void begin(std::int64_t micro_batch) noexcept { kept_ = static_cast<unsigned>(micro_batch); }
  /// After each micro batch but the last of a step.
  void keep(Stream&);
  void bucket_ready(int bucket, Stream&) override;
  void params_needed(int bucket, Stream& stream) override { next_.params_needed(bucket, stream); }

 private:
  Kernels& kernels_;
  const ParameterStore& store_;
  StepHooks& next_;
  const unsigned micro_batches_;
  unsigned kept_ = 0;  // micro batches of this step; bit l: level l holds the sum of 2^l of them
  std::vector<Buffer> levels_;
  /// [levels from the highest down to 0, the gradients]: a tail of it is what is added.
  std::vector<const float*> parts_;
};

}  // namespace dtrain
