#include "runtime/cuda/graph_check.hpp"

#include <set>
#include <variant>

#include "runtime/cuda/cudnn_graphs.hpp"

namespace dtrain::cuda {

std::vector<GraphSupport> check_graphs(const Graph& graph, const GpuDescription& gpu, bool tf32) {
  std::vector<GraphSupport> out;
  std::set<std::string> seen;
  const auto cudnn = describe_cudnn_graphs(gpu);
  for (const GraphNode& node : graph.nodes()) {
    const auto* convolution = std::get_if<Conv2d>(&node.op);
    if (!convolution || is_product(*convolution)) continue;
    for (const auto pass :
         {ConvolutionPass::forward, ConvolutionPass::data_gradient, ConvolutionPass::weight_gradient}) {
      ConvolutionGraph whole = convolution_graph(*convolution, graph.desc(node.in[0]), pass);
      whole.tf32 = tf32;
      if (!seen.insert(whole.key()).second) continue;
      GraphSupport support;
      support.key = whole.key();
      const std::vector<std::string> engines = cudnn->engines(bare(whole));
      support.engines = engines.size();
      if (!engines.empty()) support.favourite = engines[0];
      if (whole.bias || whole.activation != Activation::none) support.fused = cudnn->engines(whole).size();
      out.push_back(support);
    }
  }
  return out;
}

}  // namespace dtrain::cuda
