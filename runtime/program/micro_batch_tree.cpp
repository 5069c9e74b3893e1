#include "runtime/program/micro_batch_tree.hpp"

#include <bit>
#include <span>

#include "runtime/ops/kernels.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain {

MicroBatchTree::MicroBatchTree(Device& device, const ParameterStore& store, int micro_batches, StepHooks& next)
    : kernels_(device.kernels()), store_(store), next_(next), micro_batches_(static_cast<unsigned>(micro_batches)) {
  if (micro_batches < 1 || !std::has_single_bit(micro_batches_))
    throw BugError("a tree over micro batches that are not a power of two");
  const int levels = std::bit_width(micro_batches_) - 1;
  for (int l = 0; l < levels; ++l) levels_.emplace_back(device, store.layout().total_floats() * sizeof(float));
  for (int l = levels; l-- > 0;)
    parts_.push_back(static_cast<const float*>(levels_[static_cast<std::size_t>(l)].data()));
  parts_.push_back(store.gradients());
}

void MicroBatchTree::keep(Stream& stream) {
  // A binary counter: the full levels below the first empty one are the earlier halves of what is complete now.
  const auto full = static_cast<std::size_t>(std::countr_one(kept_));
  if (full >= levels_.size()) throw BugError("more micro batches in a step than the tree was made for");
  const auto parts = std::span<const float* const>(parts_).last(full + 1);
  kernels_.add(parts, static_cast<float*>(levels_[full].data()), 0, store_.layout().total_floats(), stream);
  ++kept_;
}

void MicroBatchTree::bucket_ready(int bucket, Stream& stream) {
  if (kept_ + 1 != micro_batches_) throw BugError("a bucket became ready before the last micro batch of a step");
  const Bucket& b = store_.layout().buckets[static_cast<std::size_t>(bucket)];
  if (micro_batches_ > 1) kernels_.add(parts_, store_.gradients(), b.begin, b.end, stream);
  if (static_cast<std::size_t>(bucket) + 1 == store_.layout().buckets.size()) kept_ = 0;
  next_.bucket_ready(bucket, stream);
}

}  // namespace dtrain
