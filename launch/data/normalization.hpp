// `normalize: auto`: mean and standard deviation of the training set, and where a run keeps them.
// Free functions that own nothing; the collective one is called by all ranks, on the thread that owns Group and
// choices.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "io/dataset/dataset.hpp"
#include "launch/config/config.hpp"
#include "launch/report/run_choices.hpp"
#include "models/model/ports.hpp"
#include "runtime/graph/graph.hpp"
#include "runtime/ranks/group.hpp"

namespace dtrain::launch {

/// Collective: puts numbers in the place of each `auto`: those among the choices where the run goes on (`resumes`),
/// else those of the set, which each rank reads a part of: the same bits on any number of ranks. They are among the
/// choices then. Returns what to say, a line each. Throws DataError where a value is not finite.
std::vector<std::string> settle_normalization(RunConfig&, const Graph&, const models::StoredPorts&,
                                              const io::Dataset& train, Group&, RunChoices&, bool resumes);
/// The same from the choices of a checkpoint. Throws CheckpointError where they are not there. `path`: of it.
void recall_normalization(RunConfig&, const std::map<std::string, std::string>& choices, const std::string& path);

/// Of the target that a loss over this output compares with values; without such a loss nothing is changed.
io::Normalize normalization_of_output(const RunConfig&, const std::string& output);

}  // namespace dtrain::launch
