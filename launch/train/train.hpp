// The training run: from a configuration to a trained model, on all ranks.
// Called by every rank on its main thread; owns everything of the run, and borrows the World.
#pragma once

#include <memory>

#include "comm/world/world.hpp"
#include "launch/base/signals.hpp"
#include "launch/config/config_file.hpp"
#include "runtime/device/device.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

/// Trains. Returns ok, stopped after a signal, or the code of an error that all ranks met alike, which rank 0 has
/// printed: the caller ends MPI. An error of one rank inside a step is printed there and ends in World::abort.
/// `device`: in place of the configured one.
ExitCode train(const LoadedConfig&, comm::World&, StopSignals&, std::unique_ptr<Device> device = nullptr);

}  // namespace dtrain::launch
