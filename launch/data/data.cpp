#include "launch/data/data.hpp"

#include <span>

#include <fmt/format.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

std::int64_t output_width(const Graph& graph) {
  return graph.desc(graph.nodes().back().in.at(0)).shape[1];
}

io::Dataset open_data(const RunConfig& config, const std::vector<std::string>& patterns, std::int64_t width,
                      double cache_mib, int part, int parts) {
  const bool labels = config.model.loss == models::Loss::cross_entropy;
  const io::TargetUse use = labels ? io::TargetUse::labels : io::TargetUse::values;
  io::Dataset data(patterns, {config.data.sample_key, config.data.target_key, use, cache_mib, part, parts,
                              static_cast<std::size_t>(config.data.open_files)});
  const Shape input(std::span<const std::int64_t>(config.model.input));
  io::fit_input(data, input);
  io::check_augment(data, input, config.data.normalize, config.data.augment);
  if (labels) {
    data.check_labels(width);
  } else if (data.target_width() != width) {
    throw ShapeError(fmt::format("{}: {} has {} values a sample, but the model gives {}", data.files().front(),
                                 data.target_key(), data.target_width(), width));
  }
  return data;
}

io::Dataset open_inputs(const RunConfig& config, const std::vector<std::string>& patterns) {
  io::Dataset data(patterns, {config.data.sample_key, {}, io::TargetUse::none, 0});
  io::fit_input(data, Shape(std::span<const std::int64_t>(config.model.input)));
  return data;
}

io::LoaderOptions loader_options(const RunConfig& config, std::int64_t micro_batch, std::int64_t width, int rank,
                                 int ranks) {
  io::LoaderOptions loading;
  loading.input = Shape(std::span<const std::int64_t>(config.model.input));
  loading.normalize = config.data.normalize;
  loading.augment = config.data.augment;
  loading.micro_batch = micro_batch;
  loading.global_batch = config.batch.global;
  loading.rank = rank;
  loading.ranks = ranks;
  loading.seed = config.seed;
  loading.shuffle = config.data.shuffle;
  loading.classes = config.model.loss == models::Loss::cross_entropy ? width : 0;
  loading.threads = config.data.prefetch_threads;
  loading.ring = config.data.prefetch_batches;
  return loading;
}

io::LoaderOptions loader_options(const RunConfig& config, std::int64_t micro_batch, std::int64_t width,
                                 const comm::World& world, Device* device) {
  io::LoaderOptions loading = loader_options(config, micro_batch, width, world.rank(), world.size());
  loading.device = device;
  return loading;
}

}  // namespace dtrain::launch
