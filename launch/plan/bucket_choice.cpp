#include "launch/plan/bucket_choice.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "launch/plan/layers.hpp"
#include "runtime/plan/graph_analysis.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

namespace {

constexpr double mib = 1 << 20;
constexpr int smallest_bucket = -6, smallest_last = -8;  // powers of two of MiB
constexpr double most_buckets = 256;
constexpr double alike = 1.005;  // of predictions

/// Takes `name` and a number above 0 off the front.
template <class T>
bool take(std::string_view& text, std::string_view name, T& value) {
  if (!text.starts_with(name)) return false;
  text.remove_prefix(name.size());
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return error == std::errc{} && value > 0 && std::isfinite(static_cast<double>(value));
}

}  // namespace

RankWork work_of(const Plan& plan, const DeviceRates& rates, std::int64_t accumulation, int optimizer_floats,
                 int shards) {
  RankWork work;
  double forward = 0;
  std::vector<double> done(plan.graph.params().size(), 0);
  for (const Step& step : plan.train.steps) {
    const NodeId n = node_of(step);
    if (n < 0) continue;
    const StepCost cost = cost_of(step, plan.graph);
    const double seconds =
        std::max(rates.flops > 0 ? cost.flops / rates.flops : 0, cost.bytes / rates.bytes) + rates.step;
    (std::holds_alternative<Forward>(step) ? forward : work.backward) += seconds;
    if (params_gradient_node(step) < 0) continue;
    for (const ParamId p : plan.graph.nodes()[static_cast<std::size_t>(n)].params)
      done[static_cast<std::size_t>(p)] = work.backward;
  }
  const auto batches = static_cast<double>(accumulation);
  work.per_bucket = rates.step;
  work.before = batches * forward + (batches - 1) * work.backward;
  const FlatLayout& layout = plan.layout;
  const std::span<const FlatParam> trained = layout.trained();
  double latest = 0;
  for (std::size_t i = 0; i < trained.size(); ++i) {
    latest = std::max(latest, done[static_cast<std::size_t>(trained[i].id)]);
    const bool last = i + 1 == trained.size();
    work.complete.push_back({last ? layout.total_floats() : trained[i + 1].offset, latest});
  }
  // Read: gradient, parameter, state; written: parameter, state.
  const double touched = sizeof(float) * (3.0 + 2.0 * optimizer_floats);
  work.update = touched * static_cast<double>(layout.param_floats) / shards / rates.bytes;
  return work;
}

SumCosts sum_costs(CommProfile measured, int ranks) {
  return [measured = std::move(measured), ranks](double bytes) {
    return SumCost{all_reduce_seconds(measured, bytes, ranks), all_reduce_processor(measured, bytes)};
  };
}

GradientSize gradient_size(const Plan& plan, DType wire, int shards) {
  return {plan.layout.total_floats(), plan.layout.state_floats + plan.layout.extras,
          plan.layout.whole_shards.empty() ? shards : 1, static_cast<double>(size_of(wire)) / sizeof(float)};
}

StepModel step_model(const RankWork& work, const std::vector<Bucket>& buckets, const SumCosts& sums, double wire) {
  StepModel model;
  model.before = work.before;
  model.backward = work.backward;
  model.shares_processor = work.shares_processor;
  const double total = buckets.empty() ? 1 : static_cast<double>(buckets.back().end);
  for (const Bucket& bucket : buckets) {
    const auto complete =
        std::find_if(work.complete.begin(), work.complete.end(), [&](const auto& c) { return c.floats >= bucket.end; });
    const SumCost sum = sums(static_cast<double>(bucket.bytes()) * wire);
    model.ready.push_back(complete == work.complete.end() ? work.backward : complete->seconds);
    model.sum.push_back(sum.seconds);
    model.processor.push_back(sum.processor);
    model.update.push_back(work.per_bucket + work.update * static_cast<double>(bucket.end - bucket.begin) / total);
  }
  return model;
}

std::vector<BucketOptions> bucket_candidates(const GradientSize& gradients, double last_mib) {
  const double total = static_cast<double>(gradients.floats) * sizeof(float) / mib;
  std::vector<BucketOptions> out;
  for (int power = smallest_bucket;; ++power) {
    const double bucket = std::ldexp(1.0, power);
    if (total / bucket > most_buckets) continue;
    BucketOptions options{.bucket_mib = bucket, .at_least = 1, .shards = gradients.shards};
    for (int last = last_mib > 0 ? power : smallest_last; last <= power; ++last) {
      options.last_bucket_mib = last_mib > 0 ? last_mib : std::ldexp(1.0, last);
      out.push_back(options);
    }
    if (bucket >= total) return out;
  }
}

BucketChoice predicted(const BucketOptions& options, const RankWork& work, const GradientSize& gradients,
                       const SumCosts& sums) {
  const auto buckets = cut_buckets(gradients.floats, options, gradients.tail);
  const SimulatedStep step = simulate(step_model(work, buckets, sums, gradients.wire));
  return {options, buckets.size(), step.seconds, step.exposed};
}

BucketChoice choose_buckets(const RankWork& work, const GradientSize& gradients, const SumCosts& sums,
                            double last_mib) {
  std::vector<BucketChoice> all;
  for (const BucketOptions& options : bucket_candidates(gradients, last_mib))
    all.push_back(predicted(options, work, gradients, sums));
  const auto by_step = [](const BucketChoice& a, const BucketChoice& b) { return a.step < b.step; };
  const double shortest = std::min_element(all.begin(), all.end(), by_step)->step;
  std::erase_if(all, [&](const BucketChoice& c) { return c.step > alike * shortest; });
  return *std::min_element(all.begin(), all.end(), [&](const BucketChoice& a, const BucketChoice& b) {
    return a.buckets != b.buckets ? a.buckets < b.buckets : by_step(a, b);
  });
}

std::string text_of(const BucketOptions& o) {
  return fmt::format("bucket_mib {}, last_bucket_mib {}, least_buckets {}", o.bucket_mib, o.last_bucket_mib,
                     o.at_least);
}

BucketOptions parse_buckets(const std::string& text) {
  BucketOptions o;
  std::string_view rest = text;
  const bool usable = take(rest, "bucket_mib ", o.bucket_mib) && take(rest, ", last_bucket_mib ", o.last_bucket_mib) &&
                      take(rest, ", least_buckets ", o.at_least) && rest.empty();
  if (!usable) {
    throw CheckpointError(fmt::format(
        "\"{}\", as kept with the run, is no choice of bucket sizes; give numbers for communication.bucket_mib", text));
  }
  return o;
}

void set_buckets(comm::CommConfig& config, const BucketOptions& chosen) {
  config.bucket_mib = chosen.bucket_mib;
  config.last_bucket_mib = chosen.last_bucket_mib;
  config.least_buckets = chosen.at_least;
}

}  // namespace dtrain::launch
