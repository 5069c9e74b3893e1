#include "launch/train/stopping.hpp"

#include <cmath>

#include <fmt/format.h>

namespace dtrain::launch {

namespace {

bool by_accuracy(const RunConfig& config) {
  return config.checkpoint.best == io::Best::accuracy;
}

std::string key(const RunConfig& config, const char* what) {
  return fmt::format("stop_{}_{}", by_accuracy(config) ? "accuracy" : "loss", what);
}

}  // namespace

void count_evaluation(const RunConfig& config, RunStatus& status) {
  if (!status.eval) return;
  const double value = by_accuracy(config) ? status.eval->first_accuracy() : status.eval->loss;
  const double gain = by_accuracy(config) ? value - status.patience.best : status.patience.best - value;
  const bool first = status.patience.step < 0 && !std::isnan(value);
  if (first || gain > config.train.stop_after.better_by) {
    status.patience = {status.step, value, 0};
  } else {
    ++status.patience.waited;
  }
}

std::string why_enough(const RunConfig& config, const RunStatus& status) {
  const auto& [evaluations, better_by] = config.train.stop_after;
  if (!status.eval) return {};
  const double loss = status.eval->loss, accuracy = status.eval->first_accuracy();
  if (config.train.target.loss >= 0 && loss <= config.train.target.loss)
    return fmt::format("the evaluation loss is {:.6g}, and train.target.loss {:.6g}", loss, config.train.target.loss);
  if (config.train.target.accuracy >= 0 && accuracy >= config.train.target.accuracy)
    return fmt::format("the evaluation accuracy is {:.6g}, and train.target.accuracy {:.6g}", accuracy,
                       config.train.target.accuracy);
  if (evaluations == 0 || status.patience.waited < evaluations) return {};
  const char* const measure = by_accuracy(config) ? "accuracy" : "loss";
  if (status.patience.step < 0) return fmt::format("no {} of {} evaluations is a number", measure, evaluations);
  return fmt::format("the evaluation {} of step {}, {:.6g}, was the best; {} evaluations since were not better{}",
                     measure, status.patience.step, status.patience.best, status.patience.waited,
                     better_by > 0 ? fmt::format(" by more than {:.6g}", better_by) : std::string());
}

void require_finite(const RunStatus& then, const StepState& done, const LossScaling& scaling, TrainStep& step,
                    std::optional<std::uint64_t> durable) {
  const bool finite = std::isfinite(then.loss);
  if (finite && done.nonfinite == 0) return;
  if (finite && scaling.dynamic && then.loss_scale > scaling.minimum) return;  // the device skipped the update
  const std::string at_scale = scaling.dynamic ? fmt::format(" at a loss scale of {}, its minimum", then.loss_scale)
                               : then.loss_scale != 1 ? fmt::format(" at a loss scale of {}", then.loss_scale)
                                                      : std::string();
  const std::string parameter = step.first_nonfinite_gradient(done);
  throw NumericError(fmt::format(
      "step {}: {}{}; lower the learning rate, clip gradients (train.clip_norm) or look at the data; {}", then.step,
      finite ? fmt::format("a gradient is not finite{}", at_scale) : fmt::format("the loss is {}", then.loss),
      parameter.empty() ? "" : fmt::format(", first gradient that is not finite: {}", parameter),
      durable ? fmt::format("the checkpoint of step {} is intact", *durable)
              : std::string("no checkpoint was written yet")));
}

void keep_patience(const RunConfig& config, const RunStatus& status, std::map<std::string, double>& metrics) {
  if (config.train.stop_after.evaluations == 0) return;
  metrics[key(config, "waited")] = static_cast<double>(status.patience.waited);
  if (status.patience.step < 0) return;
  metrics[key(config, "step")] = static_cast<double>(status.patience.step);
  metrics[key(config, "best")] = status.patience.best;
}

void recall_patience(const RunConfig& config, const std::map<std::string, double>& metrics, RunStatus& status) {
  const auto value = [&](const char* what, double otherwise) {
    const auto at = metrics.find(key(config, what));
    return at == metrics.end() ? otherwise : at->second;
  };
  status.patience = {static_cast<std::int64_t>(value("step", -1)), value("best", 0),
                     static_cast<std::int64_t>(value("waited", 0))};
}

}  // namespace dtrain::launch
