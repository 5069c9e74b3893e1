#include "comm/collective/reducer.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>

#include <fmt/format.h>

#include "runtime/ops/kernels.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

namespace {

Tensor view(DType dtype, void* data, std::size_t begin, std::size_t end) {
  auto* const at = static_cast<std::byte*>(data) + begin * size_of(dtype);
  return {{dtype, Shape{static_cast<std::int64_t>(end - begin)}}, at};
}

using Mark = BucketTimers::Mark;
constexpr std::uint64_t never = std::numeric_limits<std::uint64_t>::max();

}  // namespace

double seconds_now() noexcept {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

GradientReducer::GradientReducer(Device& device, Collective& collective, const ParameterStore& store,
                                 const CommConfig& config, bool sharded)
    : device_(device),
      collective_(collective),
      on_host_(!device.asynchronous()),
      sharded_(sharded && collective.size() > 1),
      layout_(store.layout()),
      scatters_(sharded_ && layout_.whole_shards.empty()) {
  if (config.gradient_dtype != DType::f32 && config.gradient_dtype != DType::bf16) {
    throw ConfigError(
        fmt::format("communication.gradient_dtype: {} gradients cannot be sent; expected float32 or bfloat16",
                    name_of(config.gradient_dtype)));
  }
  if (collective.size() == 1) return;
  const bool narrow = config.gradient_dtype == DType::bf16;
  const Shard shard{collective.rank(), sharded_ ? collective.size() : 1};
  const std::size_t buckets = layout_.buckets.size();
  if (narrow) {
    std::size_t largest = 0;
    for (std::size_t b = 0; b < buckets; ++b) {
      const Bucket params = parameters_of(layout_, b);
      largest = std::max(largest, params.end - params.begin);
    }
    Memory* const memory = collective.memory();
    wire_ = Buffer(memory ? *memory : device, largest * size_of(DType::bf16));
  }
  stream_ = device.make_stream(StreamUse::communication);
  before_ = device.make_event();
  after_ = device.make_event();
  timings_.resize(buckets);
  for (std::size_t b = 0; b < buckets; ++b) {
    const Bucket all = layout_.buckets[b], params = parameters_of(layout_, b);
    Pending p;
    p.ready = device.make_event();
    p.done = device.make_event();
    // One sum where the whole bucket travels alike.
    const std::size_t end = narrow || scatters_ ? params.end : all.end;
    p.gradients = view(DType::f32, store.gradients(), params.begin, end);
    p.tail = view(DType::f32, store.gradients(), end, all.end);
    if (narrow) p.wire = view(DType::bf16, wire_.data(), 0, params.end - params.begin);
    if (sharded_) p.gathered = device.make_event();
    if (sharded_ && !scatters_) {
      for (int r = 0; r < shard.ranks; ++r) {
        const Bucket owned = shard_of(layout_, b, {r, shard.ranks});
        p.owned_params.push_back(view(DType::f32, store.params(), owned.begin, owned.end));
      }
    }
    if (scatters_) {
      const Bucket own = shard_of(layout_, b, shard);
      p.own_gradients = view(DType::f32, store.gradients(), own.begin, own.end);
      p.params = view(DType::f32, store.params(), params.begin, params.end);
      p.own_params = view(DType::f32, store.params(), own.begin, own.end);
      if (narrow) p.own_wire = view(DType::bf16, wire_.data(), own.begin - params.begin, own.end - params.begin);
    }
    pending_.push_back(std::move(p));
  }
}

// The stream's destructor finishes what was enqueued; gradients and collective are still there.
GradientReducer::~GradientReducer() = default;

void GradientReducer::begin_step(BucketTimers* timers) noexcept {
  exposed_ = 0;
  timers_ = timers;
}

void GradientReducer::follow(const std::uint64_t* step) {
  if (!stream_) return;
  step_ = step;
  begun_ = HostBuffer(device_, timings_.size() * sizeof *step);
  std::fill_n(static_cast<std::uint64_t*>(begun_.data()), timings_.size(), never);
}

/// A few bytes that the stream itself sends to the host, so that nobody has to ask the device where it is.
void GradientReducer::note_begin(std::size_t bucket) {
  if (step_ == nullptr) return;
  auto* const begun = static_cast<std::uint64_t*>(begun_.data()) + bucket;
  if (on_host_) {
    stream_->host(
        HostTask::of([begun, step = step_] { std::atomic_ref(*begun).store(*step, std::memory_order_relaxed); }));
  } else {
    device_.copy(begun, step_, sizeof *step_, *stream_);
  }
}

SumPlace GradientReducer::reached() const noexcept {
  SumPlace place;
  if (step_ == nullptr) return place;
  for (std::size_t b = 0; b < timings_.size(); ++b) {
    const std::uint64_t step = std::atomic_ref(static_cast<std::uint64_t*>(begun_.data())[b]).load();
    if (step != never && (place.bucket < 0 || step >= place.step)) place = {step, static_cast<int>(b)};
  }
  return place;
}

void GradientReducer::bucket_ready(int bucket, Stream& compute) {
  if (!stream_) return;
  Pending& p = pending_.at(static_cast<std::size_t>(bucket));
  BucketTiming& timing = timings_[static_cast<std::size_t>(bucket)];
  if (p.started) throw BugError("a bucket became ready again before its sum was waited for");
  const auto b = static_cast<std::size_t>(bucket);
  timing = {};
  timing.ready = seconds_now();
  mark(Mark::ready, b, compute);
  compute.record(*p.ready);
  stream_->wait(*p.ready);
  mark(Mark::begin, b, *stream_);
  note_begin(b);
  if (on_host_) stream_->host(HostTask::of([&timing] { timing.begin = seconds_now(); }));
  sum(p);
  if (on_host_) stream_->host(HostTask::of([&timing] { timing.end = seconds_now(); }));
  mark(Mark::end, b, *stream_);
  stream_->record(*p.done);
  p.started = true;
}

void GradientReducer::sum(Pending& p) {
  if (p.wire) device_.kernels().cast(p.gradients, p.wire, *stream_);
  if (scatters_) {
    collective_.reduce_scatter(p.wire ? p.wire : p.gradients, p.wire ? p.own_wire : p.own_gradients, Reduce::sum,
                               *stream_);
    if (p.wire) device_.kernels().cast(p.own_wire, p.own_gradients, *stream_);
  } else {
    collective_.all_reduce(p.wire ? p.wire : p.gradients, Reduce::sum, *stream_);
    if (p.wire) device_.kernels().cast(p.wire, p.gradients, *stream_);
  }
  if (p.tail.elements() > 0) collective_.all_reduce(p.tail, Reduce::sum, *stream_);
}

void GradientReducer::blocked_wait(Event& event, Stream& compute) {
  const double begin = seconds_now();
  compute.wait(event);
  exposed_ += seconds_now() - begin;
}

void GradientReducer::wait(int bucket, Stream& compute) {
  if (!stream_) return;
  Pending& p = pending_.at(static_cast<std::size_t>(bucket));
  if (!p.started) return;
  p.started = false;
  const auto b = static_cast<std::size_t>(bucket);
  mark(Mark::wanted, b, compute);
  timings_[b].wanted = seconds_now();
  blocked_wait(*p.done, compute);
  timings_[b].there = seconds_now();
  mark(Mark::there, b, compute);
}

void GradientReducer::wait_all(Stream& compute) {
  for (std::size_t b = 0; b < pending_.size(); ++b) wait(static_cast<int>(b), compute);
}

void GradientReducer::gather_parameters(Stream& compute) {
  if (!sharded_) return;
  wait_parameters(compute);  // of buckets that no forward asked for
  compute.record(*before_);
  stream_->wait(*before_);
  // Forward reads in the opposite order of backward.
  for (auto p = pending_.rbegin(); p != pending_.rend(); ++p) {
    if (scatters_) collective_.all_gather(p->own_params, p->params, *stream_);
    for (std::size_t r = 0; r < p->owned_params.size(); ++r)
      if (p->owned_params[r].elements() > 0) collective_.broadcast(p->owned_params[r], static_cast<int>(r), *stream_);
    stream_->record(*p->gathered);
    p->gathering = true;
  }
}

void GradientReducer::params_needed(int bucket, Stream& compute) {
  if (!sharded_) return;
  Pending& p = pending_.at(static_cast<std::size_t>(bucket));
  if (!p.gathering) return;
  p.gathering = false;
  mark(Mark::parameters_wanted, static_cast<std::size_t>(bucket), compute);
  blocked_wait(*p.gathered, compute);
  mark(Mark::parameters_there, static_cast<std::size_t>(bucket), compute);
}

void GradientReducer::wait_parameters(Stream& compute) {
  for (std::size_t b = 0; b < pending_.size(); ++b) params_needed(static_cast<int>(b), compute);
}

template <class Gather>
void GradientReducer::gather_now(Stream& compute, Gather gather) {
  if (!scatters_) return;
  compute.record(*before_);
  stream_->wait(*before_);
  for (std::size_t b = 0; b < pending_.size(); ++b) gather(b, pending_[b]);
  stream_->record(*after_);
  if (timers_ != nullptr) timers_->record(Mark::parameters_wanted, timers_->norms(), compute);
  blocked_wait(*after_, compute);
  if (timers_ != nullptr) timers_->record(Mark::parameters_there, timers_->norms(), compute);
}

void GradientReducer::gather_squares(std::span<double> squares, Stream& compute) {
  gather_now(compute, [&](std::size_t b, const Pending&) {
    const Bucket all = parameters_of(layout_, b);
    const Bucket own = shard_of(layout_, b, {collective_.rank(), collective_.size()});
    collective_.all_gather(view(DType::f64, squares.data(), own.begin / norm_block, own.end / norm_block),
                           view(DType::f64, squares.data(), all.begin / norm_block, all.end / norm_block), *stream_);
  });
}

void GradientReducer::gather_gradients(Stream& compute) {
  gather_now(compute,
             [&](std::size_t, const Pending& p) { collective_.all_gather(p.own_gradients, p.gradients, *stream_); });
}

std::size_t GradientReducer::bytes_per_step() const noexcept {
  std::size_t bytes = 0;
  for (const Pending& p : pending_) bytes += (p.wire ? p.wire : p.gradients).bytes() + p.tail.bytes();
  return bytes;
}

}  // namespace dtrain::comm
