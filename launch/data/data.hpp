// The data sets of a configuration, opened and checked against the model in one way by every command.
// Free functions that own nothing; for any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "comm/world/world.hpp"
#include "io/dataset/dataset.hpp"
#include "io/dataset/loader.hpp"
#include "launch/config/config.hpp"
#include "runtime/graph/graph.hpp"

namespace dtrain::launch {

/// The width of what the loss compares with the targets: a classifier's classes, else values a sample.
std::int64_t output_width(const Graph&);

/// Opens the files and checks that inputs and targets fit a model of that output width. `cache_mib` in place of the
/// configuration's; `part` of `parts`: what of a small set is kept in memory. Throws DataError, ShapeError.
io::Dataset open_data(const RunConfig&, const std::vector<std::string>& patterns, std::int64_t width, double cache_mib,
                      int part = 0, int parts = 1);

/// The same of samples alone, which no pass reads twice: nothing is kept in memory.
io::Dataset open_inputs(const RunConfig&, const std::vector<std::string>& patterns);

/// How this rank's loaders read for that model.
io::LoaderOptions loader_options(const RunConfig&, std::int64_t micro_batch, std::int64_t width, int rank, int ranks);
io::LoaderOptions loader_options(const RunConfig&, std::int64_t micro_batch, std::int64_t width, const comm::World&,
                                 Device* device = nullptr);

}  // namespace dtrain::launch
