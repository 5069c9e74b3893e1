#include "runtime/cuda/library/graph_check.hpp"

#include <set>

#include "runtime/cuda/library/cudnn_graphs.hpp"

namespace dtrain::cuda {

std::vector<GraphSupport> check_graphs(const Graph& graph, const GpuDescription& gpu, bool tf32) {
  std::vector<GraphSupport> out;
  std::set<std::string> seen;
  const auto cudnn = describe_cudnn_graphs(gpu);
  for (const GraphNode& node : graph.nodes()) {
    std::vector<TensorDesc> in;
    for (const ValueId value : node.in) in.push_back(graph.desc(value));
    for (const CudnnGraph& whole : graphs_of(node.op, in, tf32)) {
      GraphSupport support;
      support.key = key_of(whole);
      if (!seen.insert(support.key).second) continue;
      const auto* convolution = std::get_if<ConvolutionGraph>(&whole);
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
