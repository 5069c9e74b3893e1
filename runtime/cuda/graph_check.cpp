#include "runtime/cuda/graph_check.hpp"

#include <set>
#include <variant>

#include "runtime/cuda/cudnn_graphs.hpp"

namespace dtrain::cuda {

namespace {

/// The graphs of an op on `in`, whole.
struct GraphsOf {
  const TensorDesc& in;
  bool tf32;

  std::vector<CudnnGraph> operator()(const Conv2d& op) const {
    std::vector<CudnnGraph> out;
    if (is_product(op)) return out;
    for (const auto pass :
         {ConvolutionPass::forward, ConvolutionPass::data_gradient, ConvolutionPass::weight_gradient}) {
      ConvolutionGraph graph = convolution_graph(op, in, pass);
      graph.tf32 = tf32;
      out.emplace_back(graph);
    }
    return out;
  }
  std::vector<CudnnGraph> operator()(const BatchNorm& op) const {
    std::vector<CudnnGraph> out;
    for (const bool backward : {false, true})
      if (const auto graph = norm_graph(op, in, backward)) out.emplace_back(*graph);
    return out;
  }
  std::vector<CudnnGraph> operator()(const LayerNorm& op) const {
    return {norm_graph(op, in, false), norm_graph(op, in, true)};
  }
  std::vector<CudnnGraph> operator()(const MaxPool2d& op) const {
    if (const auto graph = pool_graph(op, in)) return {*graph};
    return {};
  }
  std::vector<CudnnGraph> operator()(const AveragePool2d& op) const { return {pool_graph(op, in)}; }
  std::vector<CudnnGraph> operator()(const GlobalAveragePool& op) const { return {pool_graph(op, in)}; }
  template <class Other>
  std::vector<CudnnGraph> operator()(const Other&) const {
    return {};
  }
};

}  // namespace

std::vector<GraphSupport> check_graphs(const Graph& graph, const GpuDescription& gpu, bool tf32) {
  std::vector<GraphSupport> out;
  std::set<std::string> seen;
  const auto cudnn = describe_cudnn_graphs(gpu);
  for (const GraphNode& node : graph.nodes()) {
    for (const CudnnGraph& whole : std::visit(GraphsOf{graph.desc(node.in[0]), tf32}, node.op)) {
      GraphSupport support;
      support.key = key_of(whole);
      if (!seen.insert(support.key).second) continue;
      const auto* convolution = std::get_if<ConvolutionGraph>(&whole);
      support.own = convolution == nullptr;
      const std::vector<std::string> engines = cudnn->engines(convolution ? CudnnGraph(bare(*convolution)) : whole);
      support.engines = engines.size();
      if (!engines.empty()) support.favourite = engines[0];
      if (convolution && (convolution->bias || convolution->activation != Activation::none))
        support.fused = cudnn->engines(whole).size();
      out.push_back(support);
    }
  }
  return out;
}

}  // namespace dtrain::cuda
