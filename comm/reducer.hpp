// GradientReducer: sums each bucket of gradients over all ranks as soon as backward has finished it, on a communication
// stream, while backward goes on.
// Owns that stream and a pair of events a bucket; called on the training thread. The collective's calls run on the
// stream's own thread. The gradients belong to the ParameterStore. With one rank it does nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "comm/config.hpp"
#include "runtime/device.hpp"
#include "runtime/flat.hpp"
#include "runtime/group.hpp"
#include "runtime/program.hpp"

namespace dtrain::comm {

/// Seconds of the steady clock (seconds_now) at which a bucket's gradients were ready, its sum began, and ended.
struct BucketTiming {
  double ready = 0, begin = 0, end = 0;
};

/// Seconds of std::chrono::steady_clock.
double seconds_now() noexcept;

class GradientReducer final : public StepHooks {
 public:
  /// The collective, store and device outlive the reducer. Throws ConfigError for a gradient_dtype that has no path
  /// yet.
  GradientReducer(Device&, Collective&, const ParameterStore&, const CommConfig&);
  ~GradientReducer() override;
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  /// Before the first micro batch of a step: clears exposed_seconds() and timings().
  void begin_step() noexcept;
  /// From Program::run, once a bucket and step: starts the sum. Never blocks.
  void bucket_ready(int bucket, Stream& compute) override;
  void params_needed(int, Stream&) override {}
  /// Later work of `compute` sees the summed bucket. On a cpu this blocks; the time counts as exposed. Rethrows what
  /// failed on the communication stream.
  void wait(int bucket, Stream& compute);
  /// All buckets, in order.
  void wait_all(Stream& compute);

  /// Host seconds of this step spent blocked in wait().
  double exposed_seconds() const noexcept { return exposed_; }
  /// By bucket; of a step whose buckets were all waited for.
  std::span<const BucketTiming> timings() const noexcept { return timings_; }
  /// Bytes that this rank's gradients put into all-reduce each step; 0 with one rank.
  std::size_t bytes_per_step() const noexcept;

 private:
  struct Pending {
    std::unique_ptr<Event> ready, done;
    Tensor gradients;
    bool started = false;
  };
  Collective& collective_;
  const bool on_host_;
  std::vector<Pending> pending_;
  std::vector<BucketTiming> timings_;
  double exposed_ = 0;
  // Null with one rank. Last: its destructor finishes work that touches the events and timings.
  std::unique_ptr<Stream> stream_;
};

}  // namespace dtrain::comm
