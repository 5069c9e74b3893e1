#include "runtime/ops/activate.hpp"

#include <utility>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

OpShape Activate::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 1);
  expect_float(in[0]);
  if (kind == Activation::none) throw BugError("an activation of none");
  const bool of_output = derivative_of_output(kind);
  OpShape shape;
  shape.out = {in[0]};
  shape.backward_reads = {of_output ? 0u : 1u, of_output ? 1u : 0u};
  shape.may_share = in_place();
  shape.cheap = true;
  shape.flops = static_cast<double>(in[0].elements());
  return shape;
}

std::vector<OpKind<Activate>> Activate::kinds() {
  std::vector<OpKind<Activate>> kinds;
  for (const auto& [kind, help] :
       {std::pair(Activation::relu, "max(x, 0)."),
        std::pair(Activation::gelu, "x * Phi(x), of the normal distribution."),
        std::pair(Activation::gelu_tanh, "gelu's approximation by tanh, of GPT-2."),
        std::pair(Activation::silu, "x * sigmoid(x)."), std::pair(Activation::tanh, "tanh(x)."),
        std::pair(Activation::sigmoid, "1 / (1 + exp(-x))."),
        std::pair(Activation::hard_swish, "x * min(max(x + 3, 0), 6) / 6.")}) {
    const Activation wanted = kind;
    kinds.push_back({std::string(name_of(kind)), Table<Activate>(help, Activate{kind}),
                     [wanted](const Activate& op) { return op.kind == wanted; }});
  }
  return kinds;
}

}  // namespace dtrain
