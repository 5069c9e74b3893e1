#include "launch/plan/scale_model.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "launch/base/text.hpp"
#include "launch/plan/predict.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

namespace {

using Json = nlohmann::ordered_json;

constexpr double assumed_jitter = 0.005;

struct Published {
  int ranks;
  const char* what;
};
constexpr Published published[] = {
    {8, "97.8 %: ResNet-50, MXNet, 8 GPUs of a DGX A100 against 1 (NVIDIA DeepLearningExamples)"},
    {256, "about 90 %: ResNet-50, 256 GPUs against 8, 50 Gbit/s Ethernet (Goyal et al. 2017)"},
};

std::string published_of(int ranks) {
  for (const Published& p : published)
    if (p.ranks == ranks) return p.what;
  return {};
}

double parse_rate(const std::string& text) {
  const auto rate = in_units(text, {{"t", 1e12}, {"g", 1e9}, {"", 1}});
  if (!rate || *rate > 1e18)
    throw ConfigError(fmt::format("--flops: \"{}\" is no rate; expected FLOP/s as in 989t, 500g", text));
  return *rate;
}

Cluster cluster_of(const ClusterOptions& o, int ranks, int ranks_per_host) {
  Cluster c;
  c.ranks_per_host = ranks_per_host > 0 ? ranks_per_host : 8;
  if (!o.link.empty()) c.inside = parse_link(o.link, "--link");
  if (!o.network.empty()) c.network = parse_link(o.network, "--network");
  const int inside = std::min(ranks, c.ranks_per_host);
  if (inside > 1 && o.link.empty())
    throw ConfigError(
        fmt::format("--link: what joins the {} ranks of a host is not given; expected nvlink, nvlink3, "
                    "pcie or a rate (or --ranks-per-host 1)",
                    inside));
  if (ranks > inside && o.network.empty())
    throw ConfigError(fmt::format("--network: what joins {} hosts is not given; expected a rate as in 400gbit",
                                  (ranks + inside - 1) / inside));
  c.cards = o.cards;
  if (o.processor >= 0) c.processor = o.processor;
  return c;
}

/// The slowest of the ranks decides when a step is over.
RankWork slowed(RankWork work, double factor) {
  work.before *= factor;
  work.backward *= factor;
  work.update *= factor;
  for (auto& c : work.complete) c.seconds *= factor;
  return work;
}

std::vector<int> rows_of(int ranks, int ranks_per_host) {
  std::vector<int> rows;
  for (int r = std::min(ranks, ranks_per_host); r < ranks; r *= 2) rows.push_back(r);
  rows.push_back(ranks);
  return rows;
}

void say_cluster(const Cluster& c, const ClusterOptions& o, int ranks, std::vector<std::string>& to) {
  const int inside = std::min(ranks, c.ranks_per_host);
  if (inside > 1)
    to.push_back(fmt::format("inside a host of {} ranks {}: {} ({}GB/s of each rank each way)", inside, c.inside.name,
                             c.inside.source, fmt::format("{:.1f} ", c.inside.bytes_per_second / 1e9)));
  if (ranks > inside) {
    to.push_back(fmt::format("between hosts {} a card, {} cards a host: {}", c.network.name,
                             c.cards > 0 ? c.cards : inside, c.network.source));
    to.push_back(
        "a sum over hosts: reduce-scatter inside, a ring (2(n-1)/n of each part, 2(n-1) steps) or trees (2 log2 n "
        "steps) "
        "between hosts, whichever is quicker, all-gather inside; one after another");
  }
  to.push_back(
      fmt::format("a sum begins {:.0f} us after its bucket is ready, and takes {:.0f} % of the rank's processor "
                  "while it is under way ({})",
                  1e6 * c.call, 100 * c.processor, o.processor >= 0 ? "stated" : "assumed"));
}

}  // namespace

ScaleModel model_scaling(const LoadedConfig& loaded, const ClusterOptions& options, const Profile* profile, int ranks,
                         int ranks_per_host) {
  const RunConfig& config = loaded.config;
  const Cluster cluster = cluster_of(options, ranks, ranks_per_host);
  const int inside = std::min(ranks, cluster.ranks_per_host);
  const BatchSplit split = check_batch(loaded, ranks);
  ScaleModel out;
  const auto plan_for = [&](int n) { return make_plan(training_graph(config, split.micro), plan_options(config, n)); };
  RankWork work;
  if (profile != nullptr) {
    work = measured_work(*profile, loaded, split, inside, out.assumptions);
    out.assumptions.insert(out.assumptions.begin(), "computation: measured (--profile)");
  } else if (!options.flops.empty()) {
    const double rate = parse_rate(options.flops) * options.efficiency;
    const Plan plan = plan_for(1);
    work = work_of(plan, {rate, std::numeric_limits<double>::infinity(), 0}, split.accumulation, 0, 1);
    out.assumptions.push_back(fmt::format(
        "computation: {}FLOP a sample (forward and backward) at {}FLOP/s x {:.3g} = {}FLOP/s, stated: {:.0f} samples/s "
        "a rank; the update is in it",
        quantity(plan.train_flops_per_sample), quantity(rate / options.efficiency), options.efficiency, quantity(rate),
        rate / plan.train_flops_per_sample));
  } else {
    throw ConfigError(
        "--link, --network: what computation takes is not given; expected --profile FILE of `dtrain bench step`, or "
        "--flops RATE --efficiency FRACTION");
  }
  if (!work.shares_processor) work.shares_processor = cluster.processor > 0;
  say_cluster(cluster, options, ranks, out.assumptions);
  const bool chosen = config.communication.bucket_mib <= 0;
  out.assumptions.push_back(chosen ? "buckets: chosen for each number of ranks as a run does at start"
                                   : "buckets: as the configuration has them");
  const double jitter = options.jitter >= 0 ? options.jitter : assumed_jitter;
  out.assumptions.push_back(
      fmt::format("a rank's computation varies by {:.2g} % from step to step ({}), and a step takes as long as the "
                  "slowest rank's",
                  100 * jitter, options.jitter >= 0 ? "stated" : "assumed"));
  out.assumptions.push_back("not in it: ranks that are always slower, waiting for data, other traffic on the network");
  out.compute = work.before + work.backward + work.update;
  const auto samples = static_cast<double>(split.micro * split.accumulation);
  for (const int n : rows_of(ranks, cluster.ranks_per_host)) {
    ScaleRow row;
    row.ranks = n;
    row.hosts = (n + inside - 1) / inside;
    const int shards = config.optimizer.shard ? n : 1;
    const Plan plan = plan_for(n);
    const GradientSize gradients = gradient_size(plan, config.communication.gradient_dtype, shards);
    const SumCosts sums = sum_costs(cluster, n);
    if (n > 1) {
      const RankWork slowest = slowed(work, 1 + jitter * expected_largest(n));
      row.buckets = chosen
                        ? choose_buckets(slowest, gradients, sums, std::max(config.communication.last_bucket_mib, 0.0))
                        : predicted(plan_options(config, n).buckets, slowest, gradients, sums);
      for (const Bucket& b : cut_buckets(gradients.floats, row.buckets.options, gradients.tail))
        row.communication += sums(static_cast<double>(b.bytes()) * gradients.wire).seconds;
      row.step = row.buckets.step;
      row.exposed = row.buckets.exposed;
    } else {
      row.step = out.compute;
    }
    row.samples_per_second = samples * n / row.step;
    row.efficiency = out.compute / row.step;
    row.against_host = row.efficiency / (out.rows.empty() ? row.efficiency : out.rows.front().efficiency);
    row.published = published_of(n);
    out.rows.push_back(std::move(row));
  }
  return out;
}

double expected_largest(int n) {
  if (n < 2) return 0;
  const double below = (n - 0.375) / (n + 0.25);
  double low = 0, high = 10;  // the distribution function grows: bisection
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < below ? low : high) = middle;
  }
  return low;
}

std::string text_of(const ScaleModel& m) {
  std::string out = fmt::format("Modelled, not measured: weak scaling, {} of computation a step on each rank\n",
                                seconds_text(m.compute));
  TextTable table({"ranks", "hosts", "buckets", "MiB", "last MiB", "sums", "step", "waited for", "samples/s",
                   "efficiency", "of one host's"});
  for (const ScaleRow& r : m.rows)
    table.row({std::to_string(r.ranks), std::to_string(r.hosts), std::to_string(r.buckets.buckets),
               fmt::format("{}", r.buckets.options.bucket_mib), fmt::format("{}", r.buckets.options.last_bucket_mib),
               seconds_text(r.communication), seconds_text(r.step), seconds_text(r.exposed),
               grouped(static_cast<std::int64_t>(r.samples_per_second)), fmt::format("{:.1f} %", 100 * r.efficiency),
               fmt::format("{:.1f} %", 100 * r.against_host)});
  out += table.str("  ");
  for (const ScaleRow& r : m.rows)
    if (!r.published.empty())
      out += fmt::format("  Published, {} ranks: {}; modelled here {:.1f} % against 1, {:.1f} % against one host\n",
                         r.ranks, r.published, 100 * r.efficiency, 100 * r.against_host);
  for (const std::string& a : m.assumptions) out += "  Assumed: " + a + "\n";
  return out;
}

Json to_json(const ScaleModel& m) {
  Json rows = Json::array();
  for (const ScaleRow& r : m.rows)
    rows.push_back({{"ranks", r.ranks},
                    {"hosts", r.hosts},
                    {"buckets", r.buckets.buckets},
                    {"bucket_mib", r.buckets.options.bucket_mib},
                    {"last_bucket_mib", r.buckets.options.last_bucket_mib},
                    {"communication_seconds", r.communication},
                    {"step_seconds", r.step},
                    {"communication_exposed_seconds", r.exposed},
                    {"samples_per_second", r.samples_per_second},
                    {"efficiency", r.efficiency},
                    {"efficiency_against_one_host", r.against_host},
                    {"published", r.published.empty() ? Json() : Json(r.published)}});
  return {{"modelled", true}, {"compute_seconds", m.compute}, {"rows", rows}, {"assumptions", m.assumptions}};
}

}  // namespace dtrain::launch
