#include "runtime/optim/update.hpp"

#include <algorithm>
#include <cmath>

#include "runtime/ops/kernels.hpp"
#include "runtime/optim/matrices.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain {

Optimizer::Optimizer(Device& device, const UpdateRule& rule, const FlatLayout& layout, Shard shard)
    : device_(device),
      rule_(rule),
      shard_(shard),
      whole_(!layout.whole_shards.empty()),
      state_floats_(optimizer_state_floats(layout, shard)),
      blocks_((layout.param_floats + norm_block - 1) / norm_block),
      squares_(device, blocks_ * sizeof(double)),
      params_(layout.trained().size()) {
  if (needs_whole_parameters(rule)) {
    if (sharded() && !whole_) throw BugError("a sharded rule that needs whole parameters, and shards that cut them");
    norms_ = Buffer(device, norm_scratch(layout) * sizeof(double));
    matrices_ = Buffer(device, matrix_scratch(layout));
  }
  auto stream = device.make_stream(StreamUse::compute);
  for (int i = 0; i < state_count(rule); ++i) {
    Buffer& b = state_[static_cast<std::size_t>(i)];
    b = Buffer(device, state_floats_ * sizeof(float));
    device.zero(b.data(), b.bytes(), *stream);
  }
  stream->synchronize();
}

void Optimizer::leave(std::span<const PackedCopy> copies) {
  if (sharded() && !copies.empty()) throw BugError("a sharded optimizer leaves no copies of all parameters");
  copies_ = copies;
}

void Optimizer::keep_ledger() {
  if (device_.asynchronous()) throw BugError("a ledger of updates that the host does not compute");
  ledger_ = std::make_unique<UpdateLedger>(params_);
}

std::optional<UpdateLedger::Change> Optimizer::changed(const ParameterStore& store) const {
  const FlatLayout& layout = store.layout();
  std::vector<LedgerSums> now(params_);
  const auto add = [&](const Bucket& own, std::size_t state_begin) {
    for (std::size_t p = 0; p < params_; ++p) {
      const FlatParam& param = layout.params[p];
      const std::size_t begin = std::max(own.begin, param.offset), end = std::min(own.end, param.offset + param.size);
      if (begin >= end) continue;
      now[p].sums[0] += sum_of_bits(store.params() + begin, end - begin);
      for (int i = 0; i < states(); ++i)
        now[p].sums[static_cast<std::size_t>(i) + 1] +=
            sum_of_bits(state(i) + (begin - own.begin + state_begin), end - begin);
    }
  };
  std::size_t before = 0;  // floats of the own shards of the buckets before this one
  for (std::size_t b = 0; b < layout.buckets.size(); ++b) {
    const Bucket own = shard_of(layout, b, shard_);
    add(own, before);
    before += own.end - own.begin;
  }
  return ledger_->change(now);
}

UpdateArgs Optimizer::arguments(const ParameterStore& store, const StepState& step) {
  UpdateArgs args;
  args.params = store.params();
  args.gradients = store.gradients();
  for (int i = 0; i < states(); ++i) args.state[i] = state(i);
  args.layout = &store.layout();
  args.step = &step;
  args.norms = static_cast<double*>(norms_.data());
  args.packed = copies_;
  args.ledger = ledger_.get();
  args.matrices = matrices_.data();
  return args;
}

void Optimizer::update(const ParameterStore& store, std::size_t begin, std::size_t end, const StepState& step,
                       Stream& stream) {
  if (sharded() && !whole_) throw BugError("a sharded optimizer updates its shard of a bucket, not any range");
  const FlatLayout& layout = store.layout();
  UpdateArgs args = arguments(store, step);
  args.begin = begin;
  args.end = std::min(end, layout.param_floats);
  if (sharded()) {
    const auto rank = static_cast<std::size_t>(shard_.rank);
    args.state_begin = layout.whole_shards[rank];
    args.begin = std::max(args.begin, args.state_begin);
    args.end = std::min(args.end, layout.whole_shards[rank + 1]);
  }
  if (args.begin < args.end) device_.kernels().update(rule_, args, stream);
}

void Optimizer::update_states(const ParameterStore& store, const StepState& step, Stream& stream) {
  if (!store.layout().states.empty())
    device_.kernels().update_states({store.params(), store.gradients(), &store.layout(), &step}, stream);
}

void Optimizer::update_bucket(const ParameterStore& store, std::size_t bucket, const StepState& step, Stream& stream) {
  if (sharded() && whole_) throw BugError("a bucket may cut through parameters that are updated as a whole");
  const Bucket range = shard_of(store.layout(), bucket, shard_);
  if (range.begin == range.end) return;
  UpdateArgs args = arguments(store, step);
  args.begin = range.begin;
  args.end = range.end;
  if (sharded()) {
    // Shards of the buckets before this one: a fixed part of everything up to it.
    const std::size_t before = parameters_of(store.layout(), bucket).begin / static_cast<std::size_t>(shard_.ranks);
    for (int i = 0; i < states(); ++i) args.state[i] += before;
    args.state_begin = range.begin;
  }
  device_.kernels().update(rule_, args, stream);
}

std::span<double> Optimizer::block_squares(const ParameterStore& store, Stream& stream) {
  const FlatLayout& layout = store.layout();
  auto* const squares = static_cast<double*>(squares_.data());
  if (sharded() && !whole_) {
    device_.zero(squares_.data(), squares_.bytes(), stream);
    for (std::size_t b = 0; b < layout.buckets.size(); ++b) {
      const Bucket own = shard_of(layout, b, shard_);
      device_.kernels().sum_squares(store.gradients() + own.begin, own.end - own.begin,
                                    squares + own.begin / norm_block, stream);
    }
  } else {
    device_.kernels().sum_squares(store.gradients(), layout.param_floats, squares, stream);
  }
  return {squares, blocks_};
}

std::string first_nonfinite(const float* flat, const FlatLayout& layout) {
  const FlatParam* first = nullptr;
  for (const FlatParam& p : layout.trained()) {
    if (first && p.id > first->id) continue;
    if (!std::all_of(flat + p.offset, flat + p.offset + p.size, [](float v) { return std::isfinite(v); })) first = &p;
  }
  return first ? first->name : std::string();
}

}  // namespace dtrain
