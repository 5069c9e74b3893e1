// When a run ends before its last step: an evaluation that reached the target, several that were no better, or numbers
// that are none. Free functions on plain values, the same on all ranks.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "launch/config/config.hpp"
#include "launch/report/run_status.hpp"
#include "launch/train/train_step.hpp"
#include "runtime/device/step_state.hpp"

namespace dtrain::launch {

/// Counts the evaluation of `status`: is it the best so far by more than train.stop_after.better_by? Measured is what
/// checkpoint.best says, or the loss. One that is not a number is no better than any.
void count_evaluation(const RunConfig&, RunStatus&);
/// Why the run ends with its latest evaluation, for the user; empty where it goes on.
std::string why_enough(const RunConfig&, const RunStatus&);

/// Sums over all ranks are the same on each, so all throw NumericError alike. A dynamic loss scale is halved where a
/// gradient is not finite, which may go on for as many steps as it has halves: no gradient that is finite at its
/// minimum ends a run. It does not help a loss that is not finite, which is not scaled. `durable`: the step of a
/// checkpoint.
void require_finite(const RunStatus& then, const StepState& done, const LossScaling&, TrainStep&,
                    std::optional<std::uint64_t> durable);

/// What a checkpoint keeps of the evaluations, among its metrics.
void keep_patience(const RunConfig&, const RunStatus&, std::map<std::string, double>& metrics);
/// Nothing where they are of another measure.
void recall_patience(const RunConfig&, const std::map<std::string, double>& metrics, RunStatus&);

}  // namespace dtrain::launch
