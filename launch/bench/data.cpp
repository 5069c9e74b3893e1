#include "launch/bench/data.hpp"

#include <algorithm>
#include <memory>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "io/dataset/dataset.hpp"
#include "io/dataset/loader.hpp"
#include "launch/base/clock.hpp"
#include "launch/base/text.hpp"
#include "launch/data/data.hpp"
#include "launch/place/machine.hpp"
#include "launch/plan/statistics.hpp"
#include "models/model/build.hpp"

namespace dtrain::launch {

namespace {

using Json = nlohmann::ordered_json;

constexpr double least_slice_seconds = 0.02;  // a rate is measured over many batches
constexpr int least_slices = 6;

/// Samples/s of each slice of time.
std::vector<double> measure(io::Loader& loader, std::int64_t batch, double seconds) {
  for (int i = 0; i < 2 * 4; ++i) {  // warm-up: the ring was full
    loader.next();
    loader.release();
  }
  std::vector<double> rates;
  const auto begin = Clock::now();
  const double slice = std::max(least_slice_seconds, seconds / 20);
  while (since(begin) < seconds || static_cast<int>(rates.size()) < least_slices) {
    const auto start = Clock::now();
    std::int64_t samples = 0;
    do {
      loader.next();
      loader.release();
      samples += batch;
    } while (since(start) < slice);
    rates.push_back(static_cast<double>(samples) / since(start));
  }
  return rates;
}

}  // namespace

BenchReport bench_data(const LoadedConfig& input, const DataBenchOptions& options) {
  const RunConfig& config = input.config;
  const BatchSplit split = check_batch(input, 1);
  std::vector<int> threads = options.threads;
  const int cpus = read_machine().allowed_cpus;
  if (threads.empty())
    for (int n = 1; n <= std::max(1, cpus); n *= 2) threads.push_back(n);

  TextTable table({"threads", "samples/s (95 %)", "MB/s", "batch, ms"});
  Json rows = Json::array();
  double bytes_a_sample = 0;
  std::uint64_t samples = 0;
  for (const int n : threads) {
    // A set of its own each time: the first pass over the file is part of what is measured.
    const io::Dataset data = open_data(config, config.data.train, DataUse::training, config.data.cache_mib);
    const models::StoredPorts stored = stored_ports(data);
    const Graph graph = models::build(config.model, split.micro, config.precision, mixed_ports(config, stored));
    io::LoaderOptions loading = loader_options(config, graph, stored, data, DataUse::training);
    loading.threads = n;
    loading.hash_rows = !data.in_memory();  // as in training
    loading.ring = std::max(loading.ring, n + 1);
    const auto loader = io::Loader::training(data, loading);
    bytes_a_sample = 0;
    for (const GraphInput& port : graph.inputs())
      if (port.use == PortUse::input)
        bytes_a_sample += static_cast<double>(graph.desc(port.value).bytes()) / static_cast<double>(split.micro);
    const Estimate rate = median_of(measure(*loader, split.micro, options.seconds));
    samples = data.count();
    table.row({std::to_string(n), text_of(rate, 1, 0), fmt::format("{:.1f}", rate.value * bytes_a_sample / 1e6),
               fmt::format("{:.3f}", 1e3 * static_cast<double>(split.micro) / rate.value)});
    rows.push_back(
        {{"threads", n}, {"samples_per_second", to_json(rate)}, {"bytes_per_second", rate.value * bytes_a_sample}});
  }
  const std::string text =
      fmt::format("{}: {} samples of {} each as the model takes them, batches of {}, {}\n\n{}", config.name,
                  grouped(static_cast<std::int64_t>(samples)), bytes_text(bytes_a_sample), split.micro,
                  config.data.shuffle ? "shuffled" : "in order", table.str());
  const Json report{{"name", config.name},
                    {"samples", samples},
                    {"bytes_per_sample", bytes_a_sample},
                    {"batch", split.micro},
                    {"shuffle", config.data.shuffle},
                    {"threads", rows}};
  return {text, report.dump(2) + "\n"};
}

}  // namespace dtrain::launch
