// The activations, by name.
// Plain values, without any other header of the runtime: device code includes them.
#pragma once

#include <cstdint>
#include <string_view>

namespace dtrain {

enum class Activation : std::uint8_t { none, relu, gelu, silu, tanh, sigmoid, hard_swish, gelu_tanh };
/// "relu", ...; "none".
std::string_view name_of(Activation) noexcept;
/// True where the derivative follows from the output alone (relu, tanh, sigmoid): such an activation can be applied
/// inside another op's kernel. The others need their input in backward and are ops of their own (Activate).
bool derivative_of_output(Activation) noexcept;

}  // namespace dtrain
