#include "launch/report/step_timers.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "launch/base/clock.hpp"

namespace dtrain::launch {

StepTimers::StepTimers(Device& device, const Sizes& sizes) : enabled_(device.asynchronous()) {
  if (!enabled_) return;
  sets_.push_back(make_set(device, sizes));
  if (!sizes.timeline) return;
  // One for each step that is under way, and one for the step before, from whose begin the next is measured.
  for (int i = 0; i < sizes.lag + 2; ++i) sets_.push_back(make_set(device, sizes));
  anchor_ = device.make_timer();
  other_anchor_ = device.make_timer();
}

StepTimers::Set StepTimers::make_set(Device& device, const Sizes& sizes) const {
  Set set;
  set.begin = device.make_timer();
  set.end = device.make_timer();
  for (std::int64_t j = 0; j < sizes.micro_batches; ++j)
    set.passes.push_back({device.make_timer(), device.make_timer(), device.make_timer(), device.make_timer()});
  if (sizes.buckets > 0) set.buckets.emplace(device, sizes.buckets, sizes.gathers);
  return set;
}

void StepTimers::choose(std::int64_t step, std::int64_t micro_batches, Trace* trace, bool fresh, Stream& compute) {
  set_ = nullptr;
  if (!enabled_) return;
  if (trace != nullptr && sets_.size() > 1) {
    if (anchored_ == 0) set_clock(compute);
    const auto turns = static_cast<std::int64_t>(sets_.size()) - 1;
    set_ = &sets_[static_cast<std::size_t>(1 + step % turns)];
  } else if (step % every == 0) {
    set_ = &sets_[0];
    trace = nullptr;
  }
  if (set_ == nullptr) return;
  set_->step = step;
  set_->unused = set_->passes.size() - static_cast<std::size_t>(micro_batches);
  set_->trace = trace;
  if (set_->buckets && (trace != nullptr || fresh)) set_->buckets->clear();
}

/// The quickest of some round trips tells best: the event was between the host's question and its answer.
void StepTimers::set_clock(Stream& compute) {
  compute.synchronize();
  clock_error_ = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 8; ++i) {
    const double asked = seconds_of(Clock::now());
    compute.record(*other_anchor_);
    other_anchor_->synchronize();
    const double answered = seconds_of(Clock::now());
    if ((answered - asked) / 2 >= clock_error_) continue;
    clock_error_ = (answered - asked) / 2;
    anchored_ = asked + clock_error_;
    std::swap(anchor_, other_anchor_);
  }
}

void StepTimers::read(std::int64_t step) {
  const auto found = std::find_if(sets_.begin(), sets_.end(), [&](const Set& s) { return s.step == step; });
  if (found == sets_.end()) return;
  Set& set = *found;
  set.step = -1;
  latest_ = phases_of(set);
  if (set.buckets) latest_buckets_ = set.buckets->timings();
  if (set.trace == nullptr) return;
  // From one step's begin to the next, as the device's clock has fewer digits over long times.
  set.begin_at = read_last_ != nullptr && step_read_last_ + 1 == step
                     ? read_last_->begin_at + set.begin->seconds_since(*read_last_->begin)
                     : anchored_ + set.begin->seconds_since(*anchor_);
  read_last_ = &set;
  step_read_last_ = step;
  note(set, step);
}

PhaseSeconds StepTimers::phases_of(Set& set) {
  PhaseSeconds s;
  const Pass& last = set.passes.back();
  s.step = set.end->seconds_since(*set.begin);
  s.optimizer = set.end->seconds_since(*last.done);
  // Each pass lasts until the next one's data are wanted; only the last one is cut in two, and the others like it.
  double passes = 0;
  for (std::size_t j = set.unused; j < set.passes.size(); ++j) {
    const Pass& pass = set.passes[j];
    s.data += pass.there->seconds_since(*pass.wanted);
    const Event& done = j + 1 < set.passes.size() ? *set.passes[j + 1].wanted : *last.done;
    passes += done.seconds_since(*pass.there);
  }
  const double forward = last.backward->seconds_since(*last.there);
  const double whole = last.done->seconds_since(*last.there);
  s.forward = whole > 0 ? passes * forward / whole : 0;
  s.backward = passes - s.forward;
  if (!set.buckets) return s;
  set.buckets->read(*set.begin);
  const comm::BucketTimers& b = *set.buckets;
  s.communication_exposed = b.exposed_sums() + b.exposed_norms() + b.exposed_parameters();
  // Sums and norms are waited for in the update; parameters where the forward passes want them.
  s.optimizer = std::max(0.0, s.optimizer - b.exposed_sums() - b.exposed_norms());
  s.forward = std::max(0.0, s.forward - b.exposed_parameters());
  return s;
}

void StepTimers::note(const Set& set, std::int64_t step) const {
  const auto when = [&](const auto& event) { return set.begin_at + event->seconds_since(*set.begin); };
  const auto add = [&](Activity activity, double begin, double end, int bucket = -1) {
    set.trace->add({.begin = begin, .end = end, .step = step + 1, .bucket = bucket, .activity = activity});
  };
  for (const Pass& pass : std::span(set.passes).subspan(set.unused)) {
    add(Activity::data, when(pass.wanted), when(pass.there));
    add(Activity::forward, when(pass.there), when(pass.backward));
    add(Activity::backward, when(pass.backward), when(pass.done));
  }
  add(Activity::update, when(set.passes.back().done), when(set.end));
  add(Activity::step, set.begin_at, when(set.end));
  if (!set.buckets) return;
  int bucket = 0;
  for (const comm::BucketTiming& t : set.buckets->timings()) {
    add(Activity::exposed, set.begin_at + t.wanted, set.begin_at + t.there, bucket);
    add(Activity::queued, set.begin_at + t.ready, set.begin_at + t.begin, bucket);
    add(Activity::sum, set.begin_at + t.begin, set.begin_at + t.end, bucket);
    ++bucket;
  }
}

}  // namespace dtrain::launch
