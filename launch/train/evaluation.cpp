#include "launch/train/evaluation.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <exception>
#include <limits>
#include <numbers>

#include <fmt/format.h>

#include "launch/base/alone.hpp"

namespace dtrain::launch {

namespace {

/// All ranks are asked for a stop request once in so many batches.
constexpr std::int64_t batches_between_questions = 16;

}  // namespace

Evaluator::Evaluator(Engine& engine, io::Loader& loader, Group& group, comm::Watchdog& watchdog,
                     const EvaluatorOptions& options)
    : engine_(engine),
      loader_(loader),
      group_(group),
      watchdog_(watchdog),
      options_(options),
      memory_(engine.device()),
      graph_cache_(engine.device(), options.graphs && engine.device().asynchronous()),
      judge_(engine, static_cast<std::size_t>(memory_.lag()) + 1, options.scope, options.names, options.ports) {
  memory_.reset({}, engine.compute());
  for (int i = 0; i <= memory_.lag(); ++i)
    sums_.push_back({HostMirror(engine.device(), engine.store().loss_sums().data, floats() * sizeof(float)),
                     engine.device().make_event()});
}

std::optional<EvalMetrics> Evaluator::run(std::int64_t step, StopSignals* stop, ParameterAverage* average) {
  if (average == nullptr) return run_packed(step, stop);
  const auto exchange = [&] {
    alone([&] {
      average->exchange(engine_.store(), engine_.compute());
      engine_.pack();
    });
  };
  exchange();
  std::optional<EvalMetrics> result;
  try {
    result = run_packed(step, stop);
  } catch (const DataError&) {
    exchange();  // the parameters are saved before this error ends the run; after others nothing is
    throw;
  }
  exchange();
  if (result) result->averaged = true;
  return result;
}

std::optional<EvalMetrics> Evaluator::run_packed(std::int64_t step, StopSignals* stop) {
  own_sums_.assign(static_cast<std::size_t>(loader_.batches()) * floats(), 0);
  judge_.begin(loader_.batches(), options_.samples);
  NoHooks hooks;
  const auto behind = static_cast<std::int64_t>(sums_.size()) - 1;
  const auto batch_sums = [&](std::int64_t batch) -> BatchSums& {
    return sums_[static_cast<std::size_t>(batch) % sums_.size()];
  };
  const auto keep = [&](std::int64_t batch) {
    const BatchSums& b = batch_sums(batch);
    b.there->synchronize();
    std::copy_n(b.image.as<float>(), floats(), &own_sums_[static_cast<std::size_t>(batch) * floats()]);
    judge_.count(batch);
  };
  std::exception_ptr unread;  // data of this rank alone, of which the others hear before it is thrown
  bool ended = false;
  for (std::int64_t i = 0; i < loader_.batches() && !ended; ++i) {
    if (i % batches_between_questions == 1)
      ended = group_.any(unread != nullptr || (stop != nullptr && stop->pending()));
    if (ended || unread) continue;
    watchdog_.beat("evaluation", static_cast<std::uint64_t>(step),
                   first_ ? comm::Deadline::first_step : comm::Deadline::step);
    first_ = false;
    alone([&] {
      Stream& compute = engine_.compute();
      const int slot = engine_.feed().next_slot(0);
      try {
        engine_.feed().next(loader_, engine_.program(), slot, options_.data);
      } catch (const DataError&) {
        unread = std::current_exception();
        return;
      }
      engine_.feed().give_back(loader_);
      graph_cache_.run(static_cast<std::uint64_t>(slot), compute, [&] {
        engine_.program().run({Mode::evaluate, true, true}, slot, engine_.store(), memory_.state(), hooks, compute);
      });
      judge_.pull(i, slot, compute);  // before the slot may be filled again
      engine_.feed().read(slot);
      batch_sums(i).image.pull(compute);
      compute.record(*batch_sums(i).there);
      if (i >= behind) keep(i - behind);
    });
  }
  group_.agree([&] {
    if (unread) std::rethrow_exception(unread);
  });
  if (ended) return std::nullopt;
  alone([&] {
    for (std::int64_t i = std::max<std::int64_t>(0, loader_.batches() - behind); i < loader_.batches(); ++i) keep(i);
    engine_.feed().settle();
  });
  // One by one, in the order of the set: the same sum on any number of ranks.
  std::vector<double> total(floats());
  std::vector<float> theirs(own_sums_.size());
  for (const std::vector<std::byte>& bytes : group_.all_gather(std::as_bytes(std::span(own_sums_)))) {
    if (bytes.size() != theirs.size() * sizeof(float)) throw BugError("ranks evaluate another number of batches");
    std::memcpy(theirs.data(), bytes.data(), bytes.size());
    for (std::size_t i = 0; i < theirs.size(); ++i) total[i % floats()] += static_cast<double>(theirs[i]);
  }
  EvalMetrics result = metrics(total);
  result.judged = judge_.judgement(group_);
  return result;
}

namespace {
/// A smoothed loss, or one with a z-loss, is not that of the tokens.
bool is_plain(const OpSpec& op) {
  const auto* linear = std::get_if<LinearCrossEntropy>(&op);
  const auto* entropy = linear != nullptr ? &linear->loss : std::get_if<SoftmaxCrossEntropy>(&op);
  return entropy != nullptr && entropy->label_smoothing == 0 && entropy->z_loss == 0;
}
}  // namespace

EvalMetrics Evaluator::metrics(std::span<const double> sums) const {
  const Graph& graph = engine_.plan().graph;
  const std::int64_t tokens = tokens_per_sample(graph);
  EvalMetrics result;
  bool weighed = false;
  for (const GraphLoss& loss : graph.losses()) {
    const std::span<const double> of = sums.subspan(result.losses.size() * loss_sum_count, loss_sum_count);
    const GraphNode& node = graph.nodes()[static_cast<std::size_t>(loss.node)];
    LossMetrics m{.name = loss.name, .loss = of[loss_sum] / of[weight_sum]};
    if (node.shape.loss_classes > 0) {
      m.accuracy = of[correct_sum] / of[position_sum];
      // Of five classes or fewer every label would be among the five.
      if (node.shape.loss_classes > 5) m.top5_accuracy = of[top5_sum] / of[position_sum];
      if (tokens > 0 && graph.positions_of(loss) > 1 && is_plain(node.op)) {
        m.perplexity = std::exp(m.loss);
        if (options_.token_bytes > 0) m.bits_per_byte = m.loss * std::numbers::log2e / options_.token_bytes;
      }
    }
    if (of[weight_sum] > 0) result.loss += loss.factor * m.loss, weighed = true;
    result.losses.push_back(std::move(m));
  }
  if (!weighed) result.loss = std::numeric_limits<double>::quiet_NaN();  // nothing was compared: no best of all
  if (result.losses.size() == 1) {
    result.accuracy = result.losses[0].accuracy;
    result.top5_accuracy = result.losses[0].top5_accuracy;
    result.perplexity = result.losses[0].perplexity;
    result.bits_per_byte = result.losses[0].bits_per_byte;
    result.losses.clear();
  }
  return result;
}

std::int64_t tokens_per_sample(const Graph& graph) {
  std::int64_t most = 1;
  for (const GraphInput& input : graph.inputs()) {
    const TensorDesc& desc = graph.desc(input.value);
    if (input.use == PortUse::input && desc.is_index()) most = std::max(most, desc.elements() / desc.shape[0]);
  }
  return most > 1 ? most : 0;
}

namespace {

template <class Metrics>
std::string of_tokens(const Metrics& m) {
  std::string text;
  if (m.perplexity >= 0) text += fmt::format(", perplexity {:.4g}", m.perplexity);
  if (m.bits_per_byte >= 0) text += fmt::format(", {:.4f} bits a byte", m.bits_per_byte);
  return text;
}

}  // namespace

std::string describe(const char* what, const EvalMetrics& e) {
  std::string text = fmt::format("{} loss {:.4f}", what, e.loss);
  if (e.accuracy >= 0) text += fmt::format(", {} accuracy {:.4f}", what, e.accuracy);
  if (e.top5_accuracy >= 0) text += fmt::format(", top-5 {:.4f}", e.top5_accuracy);
  text += of_tokens(e);
  for (const LossMetrics& m : e.losses) {
    text += fmt::format(", {} loss {:.4f}", m.name, m.loss);
    if (m.accuracy >= 0) text += fmt::format(", {} accuracy {:.4f}", m.name, m.accuracy);
    if (m.top5_accuracy >= 0) text += fmt::format(", {} top-5 {:.4f}", m.name, m.top5_accuracy);
    text += of_tokens(m);
  }
  if (e.averaged) text += " (averaged parameters)";
  return text;
}

}  // namespace dtrain::launch
