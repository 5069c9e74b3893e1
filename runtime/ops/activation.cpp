#include "runtime/ops/activation.hpp"

#include <cstddef>

namespace dtrain {

std::string_view name_of(Activation activation) noexcept {
  constexpr std::string_view names[] = {"none", "relu", "gelu", "silu", "tanh", "sigmoid", "hard_swish", "gelu_tanh"};
  return names[static_cast<std::size_t>(activation)];
}

bool derivative_of_output(Activation a) noexcept {
  return a == Activation::relu || a == Activation::tanh || a == Activation::sigmoid;
}

}  // namespace dtrain
