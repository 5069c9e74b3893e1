// Convolutions through cuDNN. Bias and activation are part of its graph, or an own pass behind it, whichever measures
// quicker.
#include <map>
#include <vector>

#include "runtime/cuda/ops/convolution_kernel.hpp"

namespace dtrain::cuda {

namespace {

constexpr std::string_view fused = "fused ", plain = "plain ";

class ConvKernel final : public ConvolutionKernel {
 public:
  ConvKernel(CudaContext& context, const Conv& op, const TensorDesc& in, const OpUse& use)
      : ConvolutionKernel(context, "conv", op, in, {op.filters, in.channels() / op.groups, op.kernel.product()},
                          false) {
    prepare_forward(context, op, in);
    prepare_backward(context, op, in, use);
  }

 private:
  void prepare_forward(CudaContext& context, const Conv& op, const TensorDesc& in) {
    const ConvolutionGraph whole = graph(context, op, in, ConvolutionPass::forward), alone = bare(whole);
    const bool more = bias_ || activation_ != Activation::none;
    // Half of the candidates of either kind, so that both are measured.
    std::vector<std::string> names, rest;
    for (const std::string_view kind : {fused, plain}) {
      if (kind == fused && !more) continue;
      std::size_t taken = 0;
      for (const std::string& engine : cudnn_->engines(kind == fused ? whole : alone))
        (taken++ < most_candidates / 2 ? names : rest).push_back(std::string(kind) + engine);
    }
    names.insert(names.end(), rest.begin(), rest.end());
    std::map<std::string, std::shared_ptr<GraphPlan>> plans;
    const auto make = [&](const std::string& name) -> std::optional<Candidate> {
      const bool whole_graph = name.starts_with(fused);
      if (whole_graph ? !more : !name.starts_with(plain)) return std::nullopt;
      const std::shared_ptr<GraphPlan> plan =
          cudnn_->plan(whole_graph ? whole : alone, name.substr(whole_graph ? fused.size() : plain.size()));
      if (!plan) return std::nullopt;
      plans[name] = plan;
      Offsets at;
      const std::size_t x = at.place(bytes_of(elements_in_, dtype_)), w = at.place(bytes_of(weight_elements(), dtype_));
      const std::size_t y = at.place(bytes_of(rows_ * filters_, dtype_));
      const std::size_t bias = at.place(bytes_of(filters_, DType::f32)), workspace = at.place(plan->workspace());
      const bool finishes = more && !whole_graph;
      return Candidate{at.end(), [=, this](std::byte* s, void* stream) {
                         float* added = bias_ ? reinterpret_cast<float*>(s + bias) : nullptr;
                         run_forward(*plan, finishes, {s + x, s + w, s + y}, added, s + workspace, stream);
                       }};
    };
    const std::string name = choose(context, "cudnn " + cudnn_version(), whole.key(), names, make);
    forward_ = plans.at(name);
    finishes_ = more && name.starts_with(plain);
  }
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext& context, const Conv& op, Inputs in, const OpUse& use) {
  if (is_product(op)) return make_product_conv(context, op, in[0], use);
  return std::make_unique<ConvKernel>(context, op, in[0], use);
}

}  // namespace dtrain::cuda
