#include "runtime/cuda/ops/graph_ops.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <vector>

#include "runtime/cuda/library/tuner.hpp"
#include "runtime/cuda/op_support.hpp"
#include "runtime/ops/inference.hpp"

namespace dtrain::cuda {

namespace {

constexpr const char* own_name = "own";
/// A graph of these is bound by memory: its engines differ less than those of a convolution, and each costs time at the
/// start to build.
constexpr std::size_t most_engines = 3;
// What an engine may differ by from own kernels: as much as either may from double precision; and numbers of 8 or 11
// bits, rounded once. Far from zero own kernels keep the mean to a float's last bit, which is 57 times as much of a
// deviation; sums of squares in float would lose another 57 times.
constexpr double float_tolerance = 1e-5, far_tolerance = 1e-4, half_tolerance = 1e-2;

DType dtype_of(const CudnnGraph& graph) {
  return std::visit([](const auto& g) { return g.dtype; }, graph);
}

}  // namespace

std::shared_ptr<GraphPlan> quickest_graph(CudaContext& context, const ConvolutionGraph& graph) {
  if (!context.cudnn) context.cudnn = make_cudnn_graphs();
  std::map<std::string, std::shared_ptr<GraphPlan>> plans;
  const auto make = [&](const std::string& engine) -> std::optional<Candidate> {
    const std::shared_ptr<GraphPlan> plan = context.cudnn->plan(graph, engine);
    if (!plan) return std::nullopt;
    plans[engine] = plan;
    const std::size_t x = bytes_of(Shape(graph.in).elements(), graph.dtype);
    const std::size_t y = bytes_of(Shape(graph.out).elements(), graph.dtype);
    const std::size_t w = bytes_of(graph.out[1] * (graph.in[1] / graph.groups) * graph.kernel.product(), graph.dtype);
    const std::array<std::size_t, 3> sizes = graph.pass == ConvolutionPass::forward         ? std::array{x, w, y}
                                             : graph.pass == ConvolutionPass::data_gradient ? std::array{y, w, x}
                                                                                            : std::array{y, x, w};
    Offsets at;
    const std::size_t a = at.place(sizes[0]), b = at.place(sizes[1]), to = at.place(sizes[2]);
    const std::size_t workspace = at.place(plan->workspace());
    return Candidate{at.end(), [=](std::byte* s, void* stream) {
                       plan->run({s + a, s + b, s + to}, s + workspace, stream);
                     }};
  };
  const std::vector<std::string> engines = context.cudnn->engines(graph);
  return plans.at(choose(context, "cudnn " + cudnn_version(), graph.key(), engines, make));
}

GraphOperand read_operand(std::int64_t elements, DType dtype) {
  return {bytes_of(elements, dtype)};
}
GraphOperand written_operand(std::int64_t elements, DType dtype) {
  return {bytes_of(elements, dtype), dtype};
}

std::shared_ptr<GraphPlan> quicker_graph(CudaContext& context, const CudnnGraph& graph,
                                         std::span<const GraphOperand> operands, const OwnKernels& own) {
  const std::string library = "cudnn " + cudnn_version(), key = key_of(graph) + own.variant;
  const std::string* const kept = kept_choice(context, library, key);
  if (kept && *kept == own_name) return nullptr;
  if (!context.cudnn) context.cudnn = make_cudnn_graphs();
  std::vector<std::string> names = context.cudnn->engines(graph);
  if (names.empty()) return nullptr;
  if (names.size() > most_engines) names.resize(most_engines);
  const std::size_t most_workspace =
      own.most_workspace > 0 ? own.most_workspace : inference::library_workspace(operands[0].bytes);
  names.insert(names.begin(), own_name);  // the first: an engine has to be clearly quicker
  std::map<std::string, std::shared_ptr<GraphPlan>> plans;
  const auto make = [&](const std::string& name) -> std::optional<Candidate> {
    std::shared_ptr<GraphPlan> plan;
    if (name != own_name) {
      plan = context.cudnn->plan(graph, name);
      if (!plan || plan->workspace() > most_workspace) return std::nullopt;
    }
    plans[name] = plan;
    Candidate candidate;
    const bool halves = dtype_of(graph) != DType::f32;
    candidate.comparisons.push_back({false, halves ? half_tolerance : float_tolerance});
    if (own.sums) candidate.comparisons.push_back({true, halves ? half_tolerance : far_tolerance});
    Offsets at;
    std::vector<std::size_t> places;
    for (const GraphOperand& operand : operands) {
      places.push_back(at.place(operand.bytes));
      if (operand.result)
        candidate.results.push_back(
            {places.back(), static_cast<std::int64_t>(operand.bytes / size_of(*operand.result)), *operand.result});
    }
    const std::size_t of_plan = plan ? plan->workspace() : own.workspace;
    const std::size_t workspace = at.place(own.before ? std::max(of_plan, own.workspace) : of_plan);
    candidate.scratch = at.end();
    candidate.run = [=](std::byte* scratch, void* stream) {
      GraphOperands addresses{};
      for (std::size_t i = 0; i < places.size(); ++i) addresses.at(i) = scratch + places[i];
      if (own.before) own.before(addresses, scratch + workspace, stream);
      if (!plan) return own.instead(addresses, scratch + workspace, stream);
      plan->run(addresses, scratch + workspace, stream);
      if (own.behind) own.behind(addresses, scratch + workspace, stream);
    };
    return candidate;
  };
  return plans.at(choose(context, library, key, names, make));
}

}  // namespace dtrain::cuda
