// Which way an op goes that own kernels and cuDNN both have: whichever measures quicker.
// A function on the thread that prepares; the plan it gives belongs to the kernel that asked.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "runtime/cuda/context.hpp"
#include "runtime/cuda/library/cudnn_graphs.hpp"

namespace dtrain::cuda {

/// Place and size of one of GraphOperands. `result`: both ways write it, and have to agree.
struct GraphOperand {
  std::size_t bytes = 0;
  std::optional<DType> result{};
};
GraphOperand read_operand(std::int64_t elements, DType);
GraphOperand written_operand(std::int64_t elements, DType);

/// What own kernels do instead of the graph, with operands of which the graph may know only the first ones, and what
/// they do behind it (empty: nothing).
struct OwnKernels {
  using Run = std::function<void(const GraphOperands&, std::byte* workspace, void* stream)>;
  std::size_t workspace = 0;
  Run instead, behind{};
  bool sums = false;         // also compared on numbers that lose much where squares are summed
  const char* variant = "";  // of the graph's key, where more belongs to a measurement
  Run before{};  // when either way is measured: makes operands that are not any numbers, with as much workspace
  std::size_t most_workspace = 0;  // of an engine; 0: inference::library_workspace of the first operand
};

/// The engine to run the graph with; null where own kernels are as quick, give something else, or no engine supports
/// it. The choice is kept in the context.
std::shared_ptr<GraphPlan> quicker_graph(CudaContext&, const CudnnGraph&, std::span<const GraphOperand>,
                                         const OwnKernels&);

/// The quickest engine of a bare convolution, or of a gradient; throws where there is none. The choice is kept in the
/// context, as is the library's handle.
std::shared_ptr<GraphPlan> quickest_graph(CudaContext&, const ConvolutionGraph&);

}  // namespace dtrain::cuda
