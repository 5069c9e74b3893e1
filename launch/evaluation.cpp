#include "launch/evaluation.hpp"

#include <cstddef>
#include <cstring>
#include <span>

#include <fmt/format.h>

#include "launch/alone.hpp"
#include "launch/data.hpp"

namespace dtrain::launch {

namespace {

/// All ranks are asked for a wish to stop once in so many batches.
constexpr std::int64_t batches_between_questions = 16;

}  // namespace

Evaluator::Evaluator(Engine& engine, io::Loader& loader, Group& group, comm::Watchdog& watchdog, models::Loss loss)
    : engine_(engine),
      loader_(loader),
      group_(group),
      watchdog_(watchdog),
      loss_(loss),
      sums_(engine.device(), engine.store().loss_sums().data, loss_sum_count * sizeof(float)) {}

std::optional<EvalMetrics> Evaluator::run(std::int64_t step, StopSignals* stop, ParameterAverage* average) {
  if (average == nullptr) return run_packed(step, stop);
  // No way back is needed where this throws: every such error ends the run, and nothing is saved after it.
  const auto exchange = [&] {
    alone([&] {
      average->exchange(engine_.store(), engine_.compute());
      engine_.pack();
    });
  };
  exchange();
  auto result = run_packed(step, stop);
  exchange();
  if (result) result->averaged = true;
  return result;
}

std::optional<EvalMetrics> Evaluator::run_packed(std::int64_t step, StopSignals* stop) {
  double sums[loss_sum_count] = {};
  NoHooks hooks;
  const StepState state;
  for (std::int64_t i = 0; i < loader_.batches(); ++i) {
    if (i % batches_between_questions == 1 && stop != nullptr && group_.any(stop->pending())) return std::nullopt;
    watchdog_.beat("evaluation", static_cast<std::uint64_t>(step),
                   first_ ? comm::Deadline::first_step : comm::Deadline::step);
    first_ = false;
    alone([&] {
      engine_.feed().next(loader_, engine_.program().slot(0));
      engine_.feed().give_back(loader_);
      engine_.program().run({Mode::evaluate, true, true}, 0, engine_.store(), state, hooks, engine_.compute());
      sums_.pull(engine_.compute());
      engine_.compute().synchronize();
      for (std::size_t k = 0; k < loss_sum_count; ++k) sums[k] += static_cast<double>(sums_.as<float>()[k]);
    });
  }
  const auto all = group_.all_gather(std::span(reinterpret_cast<const std::byte*>(sums), sizeof sums));
  double total[loss_sum_count] = {};
  for (const auto& one : all) {
    double theirs[loss_sum_count];
    std::memcpy(theirs, one.data(), sizeof theirs);
    for (std::size_t k = 0; k < loss_sum_count; ++k) total[k] += theirs[k];
  }
  EvalMetrics result;
  result.loss = total[loss_sum] / total[weight_sum];
  if (loss_ == models::Loss::cross_entropy) {
    result.accuracy = total[correct_sum] / total[weight_sum];
    // Of five classes or fewer every label would be among the five.
    if (output_width(engine_.plan().graph) > 5) result.top5_accuracy = total[top5_sum] / total[weight_sum];
  }
  return result;
}

std::string describe(const char* what, const EvalMetrics& e) {
  std::string text = fmt::format("{} loss {:.4f}", what, e.loss);
  if (e.accuracy >= 0) text += fmt::format(", {} accuracy {:.4f}", what, e.accuracy);
  if (e.top5_accuracy >= 0) text += fmt::format(", top-5 {:.4f}", e.top5_accuracy);
  if (e.averaged) text += " (averaged parameters)";
  return text;
}

}  // namespace dtrain::launch
