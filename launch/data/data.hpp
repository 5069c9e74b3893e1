// The data sets of a configuration, opened and checked against the model in one way by every command.
// Free functions that own nothing; for any thread.
#pragma once

#include <string>
#include <vector>

#include "io/checkpoint/checkpoint.hpp"
#include "io/dataset/dataset.hpp"
#include "io/dataset/loader.hpp"
#include "launch/config/config.hpp"
#include "models/model/ports.hpp"
#include "runtime/graph/graph.hpp"

namespace dtrain::launch {

/// What a set is read for: each has data sets of its own in the configuration.
enum class DataUse : std::uint8_t { training, evaluation };

/// What training's files, or a checkpoint, say of the data: others are read in the same numbers.
using Reference = std::vector<io::Description>;

/// Opens the files with what the model's inputs, targets and weights are to be read from. `cache_mib` in place of the
/// configuration's; the part: what of a small set is kept in memory. Throws DataError.
io::Dataset open_data(const RunConfig&, const std::vector<std::string>& patterns, DataUse, double cache_mib,
                      const Reference& = {}, io::DatasetOptions::Part = {});
/// The same of the model's inputs alone, which no pass reads twice: nothing is kept in memory.
io::Dataset open_inputs(const RunConfig&, const std::vector<std::string>& patterns, const Reference&);

/// What a checkpoint says of the data that its run trained on. Throws CheckpointError where that cannot be read.
Reference reference_of(const io::FoundCheckpoint&);
/// For the checkpoint: key and text among its `versions`.
inline constexpr const char* data_names_key = "data_names";
/// Throws CheckpointError where a run that goes on would train on other classes or columns, or on them in another
/// order.
void check_same_names(const io::FoundCheckpoint&, const Reference& now);

/// What the graph has to know of them. `other`: a set that it reads, too, or null.
models::StoredPorts stored_ports(const io::Dataset&, const io::Dataset* other = nullptr);

/// How a loader reads the set for a graph that was built with those stored ports, with every value as the graph reads
/// it.
io::LoaderOptions loader_options(const RunConfig&, const Graph&, const models::StoredPorts&, const io::Dataset&,
                                 DataUse, int rank = 0, int ranks = 1, Device* device = nullptr);

/// Throws what such a loader would: shapes, types, labels or augmentations that do not fit the model.
void check_data(const RunConfig&, const Graph&, const models::StoredPorts&, const io::Dataset&, DataUse);

/// What may not be meant, a line each: an evaluation on training samples, inputs whose values are far from 0 and 1,
/// labels that are stored as floats or one-hot rows, or are of far fewer classes than the model has. `eval` may be
/// null.
std::vector<std::string> data_warnings(const RunConfig&, const Graph&, const models::StoredPorts&,
                                       const io::Dataset& train, const io::Dataset* eval);

/// How files of tokens became samples, a line each; empty where samples are no text.
std::vector<std::string> text_notes(const io::Dataset& train, const io::Dataset* eval);

}  // namespace dtrain::launch
