#include "launch/plan/bucket_tuning.hpp"

#include <algorithm>
#include <cstring>
#include <ctime>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "comm/collective/reducer.hpp"
#include "launch/base/alone.hpp"
#include "launch/base/text.hpp"
#include "launch/place/device_placement.hpp"
#include "launch/place/machine.hpp"
#include "launch/plan/bucket_choice.hpp"
#include "launch/plan/statistics.hpp"
#include "runtime/program/rates.hpp"

namespace dtrain::launch {

namespace {

constexpr std::size_t smallest_sum = 16 << 10;
constexpr std::size_t largest_sum = 256 << 20;
constexpr double sum_seconds = 0.5, matrix_seconds = 0.15, memory_seconds = 0.1;
constexpr double least_sample_seconds = 300e-6;  // short calls are timed by the dozen
constexpr std::size_t least_points = 3, most_samples = 15;

double processor_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// Each rank's values, in rank order.
std::vector<std::vector<double>> gathered(Group& group, const std::vector<double>& mine) {
  std::vector<std::vector<double>> out;
  for (const auto& bytes : group.all_gather(std::as_bytes(std::span(mine)))) {
    auto& values = out.emplace_back(mine.size());
    std::memcpy(values.data(), bytes.data(), bytes.size());
  }
  return out;
}

/// The sums of one path, over a buffer of its own.
class SumTimer {
 public:
  SumTimer(const SumPath& path, std::size_t most_bytes)
      : path_(path),
        ranks_(static_cast<std::size_t>(path.collective.size())),
        buffer_(path.device, floats(most_bytes) * sizeof(float)),
        stream_(path.device.make_stream(StreamUse::communication)) {
    path.device.zero(buffer_.data(), buffer_.bytes(), *stream_);
    stream_->synchronize();
  }

  /// Bytes on the wire of the sum that is timed for `bytes`: shards are equal.
  std::size_t rounded(std::size_t bytes) const { return floats(bytes) * size_of(path_.wire); }

  /// Wall and processor seconds of a call.
  std::pair<double, double> run(std::size_t bytes, int calls) {
    const std::size_t n = floats(bytes);
    path_.group.barrier();
    return alone([&] {
      const double processor = processor_seconds(), begin = comm::seconds_now();
      for (int i = 0; i < calls; ++i) sum(n);
      stream_->synchronize();
      return std::pair((comm::seconds_now() - begin) / calls, (processor_seconds() - processor) / calls);
    });
  }

 private:
  std::size_t floats(std::size_t bytes) const {
    return std::max(bytes / size_of(path_.wire) / ranks_, std::size_t{1}) * ranks_;
  }
  Tensor view(DType dtype, std::size_t begin, std::size_t n) const {
    return {{dtype, Shape{static_cast<std::int64_t>(n)}},
            static_cast<std::byte*>(buffer_.data()) + begin * size_of(dtype)};
  }
  void sum(std::size_t n) {
    if (!path_.sharded) return path_.collective.all_reduce(view(path_.wire, 0, n), Reduce::sum, *stream_);
    const std::size_t shard = n / ranks_, own = shard * static_cast<std::size_t>(path_.collective.rank());
    path_.collective.reduce_scatter(view(path_.wire, 0, n), view(path_.wire, own, shard), Reduce::sum, *stream_);
    path_.collective.all_gather(view(DType::f32, own, shard), view(DType::f32, 0, n), *stream_);
  }

  const SumPath& path_;
  std::size_t ranks_;
  Buffer buffer_;
  std::unique_ptr<Stream> stream_;  // last: finishes what it was given before the buffer goes
};

int hosts_of(const comm::World& world) {
  return static_cast<int>(std::set<std::string>(world.hosts().begin(), world.hosts().end()).size());
}

/// Measured by all ranks at once: what the slowest has.
DeviceRates measure_rates(Group& group, Device& device, DType precision) {
  std::vector<double> mine(2);
  alone([&] {
    mine = {measure_matrix_rate(device, precision, matrix_seconds), measure_memory_rate(device, memory_seconds)};
  });
  DeviceRates least{mine[0], mine[1]};
  for (const auto& rates : gathered(group, mine)) {
    least.flops = std::min(least.flops, rates[0]);
    least.bytes = std::min(least.bytes, rates[1]);
  }
  return least;
}

}  // namespace

CommProfile measure_sums(const SumPath& path, int hosts, std::size_t most_bytes, double seconds) {
  CommProfile out{path.collective.size(), hosts, {}, {}};
  std::unique_ptr<SumTimer> timer;
  path.group.agree([&] { timer = std::make_unique<SumTimer>(path, most_bytes); });
  const double begin = comm::seconds_now();
  // Clocks differ: rank 0 decides.
  const auto go_on = [&](double until) {
    return path.group.any(path.group.rank() == 0 && comm::seconds_now() < until);
  };
  const auto slowest = [&](double mine) {
    double most = 0;
    for (const auto& of : gathered(path.group, {mine})) most = std::max(most, of[0]);
    return most;
  };
  for (std::size_t bytes = std::min(smallest_sum, most_bytes);; bytes = std::min(bytes * 4, most_bytes)) {
    timer->run(bytes, 1);  // connects, and touches memory
    const double once = slowest(timer->run(bytes, 1).first);
    const int calls = std::clamp(static_cast<int>(least_sample_seconds / once), 1, 50);
    std::vector<double> wall, processor;
    const double until = begin + seconds * static_cast<double>(out.points.size() + 1) / 8;
    do {
      const auto [w, p] = timer->run(bytes, calls);
      wall.push_back(w);
      processor.push_back(p / w);
    } while (wall.size() < least_points || (wall.size() < most_samples && go_on(until)));
    CommProfile::Point point{static_cast<double>(timer->rounded(bytes)), 0, 0};
    for (const auto& of : gathered(path.group, {median_of(wall).value, median_of(processor).value})) {
      point.seconds = std::max(point.seconds, of[0]);
      point.processor += of[1] / path.collective.size();
    }
    if (path.device.asynchronous()) point.processor = 0;  // the host's, which computes nothing
    out.points.push_back(point);
    const double next = 4 * (2 + least_points) * point.seconds;
    if (bytes == most_bytes || (out.points.size() >= least_points && !go_on(begin + seconds - next))) break;
  }
  // Buffers on the way and caches take in a small sum for nothing, but not one behind the other: no sum passes more
  // bytes a second than larger ones do.
  double quickest = out.points.back().seconds / out.points.back().bytes;
  for (auto p = out.points.rbegin(); p != out.points.rend(); ++p) {
    p->seconds = std::max(p->seconds, p->bytes * quickest);
    quickest = std::min(quickest, p->seconds / p->bytes);
  }
  return out;
}

bool chooses_buckets(const comm::CommConfig& c, DeviceKind device, int ranks) noexcept {
  if (ranks == 1) return false;
  return c.bucket_mib == comm::bucket_auto || (c.bucket_mib == comm::bucket_by_device && device == DeviceKind::cuda);
}

std::string bucket_key_of(int ranks) {
  return fmt::format("buckets: {} ranks ", ranks);
}

std::string bucket_key(const RunConfig& config, const comm::World& world, Group& group, const Device& device) {
  const comm::CommConfig& c = config.communication;
  const int hosts = hosts_of(world);
  // Rank 0's device stands for all: others may have other names, but all must look for the same choice.
  std::string key = fmt::format("{}on {} {}, {}, {}", bucket_key_of(world.size()), hosts, hosts == 1 ? "host" : "hosts",
                                group.all_gather(device.name()).front(), name_of(c.gradient_dtype));
  if (c.algorithm == comm::Algorithm::fixed_order) key += ", fixed_order";
  if (c.transport == comm::Transport::staged) key += ", staged";
  if (config.optimizer.shard) key += ", sharded";
  if (c.last_bucket_mib > 0) key += fmt::format(", last {} MiB", c.last_bucket_mib);
  return key;
}

std::string tune_buckets(RunConfig& config, const Graph& graph, std::int64_t accumulation, const comm::World& world,
                         const SumPath& path, RunChoices& choices) {
  comm::CommConfig& c = config.communication;
  if (!chooses_buckets(c, path.device.kind(), world.size())) return {};
  const std::string key = bucket_key(config, world, path.group, path.device);
  if (const std::string* earlier = choices.find(key)) {
    set_buckets(c, parse_buckets(*earlier));
    return fmt::format("buckets: {}, as this run chose before", *earlier);
  }
  const double begin = comm::seconds_now();
  const int shards = config.optimizer.shard ? world.size() : 1;
  const Plan plan = make_plan(graph, plan_options(config, world.size()));
  const GradientSize gradients = gradient_size(plan, c.gradient_dtype, shards);
  const double wire_bytes = static_cast<double>(gradients.floats * sizeof(float)) * gradients.wire;
  const CommProfile sums =
      measure_sums(path, hosts_of(world), std::min(static_cast<std::size_t>(wire_bytes), largest_sum), sum_seconds);
  const DeviceRates rates = measure_rates(path.group, path.device, config.precision);
  RankWork work = work_of(plan, rates, accumulation, state_count(config.optimizer), shards);
  const double cpus = std::min<double>(world.cpus(), static_cast<double>(read_machine().cpus) / world.local_size());
  work.shares_processor = path.device.kind() == DeviceKind::cpu && cpus < compute_threads(config.threads, world) + 1;
  const SumCosts costs = sum_costs(sums, world.size());
  const BucketChoice chosen = choose_buckets(work, gradients, costs, std::max(c.last_bucket_mib, 0.0));
  // Outside of choose(): a rank that fails while others wait in a sum ends the run.
  set_buckets(c, parse_buckets(choices.choose(key, [&] { return text_of(chosen.options); })));
  const CommProfile::Point &least = sums.points.front(), &most = sums.points.back();
  return fmt::format(
      "buckets: {}, chosen in {:.1f} s (sums: {} for {}, {} for {}; predicted step {}, of which {} waited for); pin "
      "them "
      "with communication.bucket_mib={} communication.last_bucket_mib={} communication.least_buckets={}",
      chosen.buckets, comm::seconds_now() - begin, seconds_text(least.seconds), bytes_text(least.bytes),
      seconds_text(most.seconds), bytes_text(most.bytes), seconds_text(chosen.step), seconds_text(chosen.exposed),
      c.bucket_mib, c.last_bucket_mib, c.least_buckets);
}

}  // namespace dtrain::launch
