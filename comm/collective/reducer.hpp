// GradientReducer: sums each bucket of gradients over all ranks as soon as backward has finished it, on a communication
// stream, while backward goes on; sharded (ZeRO-1), each rank gets the sum of its shard of the bucket (or, where shards
// are whole parameters, of all of it), and the updated parameters are gathered while the next forward begins.
// Owns that stream, the events and, where gradients travel as bf16, one buffer of a bucket's size; called on the
// training thread. The collective's calls run on the stream's own thread. Gradients and parameters belong to the
// ParameterStore. With one rank it does nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "comm/collective/bucket_timers.hpp"
#include "comm/collective/config.hpp"
#include "runtime/device/device.hpp"
#include "runtime/device/host_buffer.hpp"
#include "runtime/plan/flat.hpp"
#include "runtime/program/program.hpp"
#include "runtime/ranks/group.hpp"

namespace dtrain::comm {

/// Seconds of std::chrono::steady_clock.
double seconds_now() noexcept;

/// The last sum that a communication stream has begun: of bucket `bucket` in the step with this index; -1: none yet.
struct SumPlace {
  std::uint64_t step = 0;
  int bucket = -1;
};

class GradientReducer final : public StepHooks {
 public:
  /// The collective, store and device outlive the reducer. `sharded`: the layout was planned for shards of all ranks.
  /// Throws ConfigError for a gradient_dtype that has no path.
  GradientReducer(Device&, Collective&, const ParameterStore&, const CommConfig&, bool sharded = false);
  ~GradientReducer() override;
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  /// Before the first micro batch of a step: clears exposed_seconds() and timings(). `timers`: what the step is marked
  /// in on an asynchronous device; null: nothing.
  void begin_step(BucketTimers* timers = nullptr) noexcept;
  /// From now on reached() can tell: `step` is the index of the step under way, in device memory.
  void follow(const std::uint64_t* step);
  /// From any thread; asks neither device nor library.
  SumPlace reached() const noexcept;
  /// From Program::run, once a bucket and step: starts the sum. Never blocks.
  void bucket_ready(int bucket, Stream& compute) override;
  /// Later work of `compute` sees the summed bucket (sharded: the own shard of its parameters, and all of what lies
  /// behind the last parameter). On a cpu this blocks; the time counts as exposed. Rethrows what failed on the
  /// communication stream.
  void wait(int bucket, Stream& compute);
  /// All buckets, in order.
  void wait_all(Stream& compute);

  // Sharded only; otherwise nothing happens. The last two do nothing where shards are whole: all ranks have all sums.
  /// Starts to gather all ranks' updated parameters, in the order in which forward reads them. Never blocks.
  void gather_parameters(Stream& compute);
  /// From Program::run: later work of `compute` sees the bucket's parameters. May be called again.
  void params_needed(int bucket, Stream& compute) override;
  /// The parameters of all buckets: before anything but a training pass reads them.
  void wait_parameters(Stream& compute);
  /// Completes Optimizer::block_squares, of which each rank has its own shards. As wait().
  void gather_squares(std::span<double> squares, Stream& compute);
  /// The sums of all gradients on every rank, in place, after wait_all: to look for one that is not finite.
  void gather_gradients(Stream& compute);

  /// Host seconds of this step spent blocked in the waits above.
  double exposed_seconds() const noexcept { return exposed_; }
  /// By bucket, on the clock of seconds_now(); of a step whose buckets were all waited for, on a cpu.
  std::span<const BucketTiming> timings() const noexcept { return timings_; }
  /// Bytes that this rank's gradients put into sums each step; 0 with one rank.
  std::size_t bytes_per_step() const noexcept;

 private:
  /// Views of a bucket: parameters' gradients and what lies behind them (at the end of the last bucket), which always
  /// travels as f32 and is summed on every rank.
  struct Pending {
    std::unique_ptr<Event> ready, done, gathered;
    Tensor gradients, tail, own_gradients, params, own_params, wire, own_wire;
    std::vector<Tensor> owned_params;  // by rank, where shards are whole
    bool started = false, gathering = false;
  };
  void sum(Pending&);
  void mark(BucketTimers::Mark m, std::size_t bucket, Stream& stream) {
    if (timers_ != nullptr) timers_->record(m, bucket, stream);
  }
  void note_begin(std::size_t bucket);
  void blocked_wait(Event&, Stream& compute);
  template <class Gather>
  void gather_now(Stream& compute, Gather gather);

  Device& device_;
  Collective& collective_;
  const bool on_host_, sharded_;
  const FlatLayout& layout_;
  const bool scatters_;  // sharded, in equal shares
  std::vector<Pending> pending_;
  std::vector<BucketTiming> timings_;
  Buffer wire_;
  double exposed_ = 0;
  BucketTimers* timers_ = nullptr;  // of this step
  const std::uint64_t* step_ = nullptr;
  HostBuffer begun_;  // by bucket: the index of the latest step in which its sum has begun
  std::unique_ptr<Event> before_, after_;
  // Null with one rank. Last: its destructor finishes work that touches the events and timings.
  std::unique_ptr<Stream> stream_;
};

}  // namespace dtrain::comm
