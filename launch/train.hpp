// The training run: from a configuration to a trained model, on all ranks.
// Called by every rank on its main thread; owns everything of the run, and borrows the World.
#pragma once

#include <memory>

#include "comm/world.hpp"
#include "launch/config_file.hpp"
#include "launch/signals.hpp"
#include "runtime/device.hpp"
#include "runtime/error.hpp"

namespace dtrain::launch {

/// Trains. Returns ok, or stopped after a signal. Throws only what all ranks throw alike (agreed errors: the caller
/// prints them on rank 0 and ends MPI); an error of one rank inside a step is printed and ends in World::abort.
ExitCode train(const LoadedConfig&, comm::World&, StopSignals&);

/// The device that `choice` means here, for this rank. `threads`: compute threads of the cpu; 0: its share of the
/// cores. Throws DeviceError.
std::unique_ptr<Device> make_run_device(DeviceChoice choice, int threads, const comm::World&);

}  // namespace dtrain::launch
