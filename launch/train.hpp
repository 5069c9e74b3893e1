// The training run: from a configuration to a trained model, on all ranks.
// Called by every rank on its main thread; owns everything of the run, and borrows the World.
#pragma once

#include "comm/world.hpp"
#include "launch/config_file.hpp"
#include "runtime/error.hpp"

namespace dtrain::launch {

/// Trains. Returns ok, or stopped after a signal. Throws only what all ranks throw alike (agreed errors: the caller
/// prints them on rank 0 and ends MPI); an error of one rank inside a step is printed and ends in World::abort.
ExitCode train(const LoadedConfig&, comm::World&);

}  // namespace dtrain::launch
