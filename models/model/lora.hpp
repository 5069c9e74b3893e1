// LoRA (Hu et al. 2021): low-rank adapters beside the dense layers of a model whose own parameters stay as they are.
// Plain values and pure functions; build.hpp makes the layers, and what is exported has the adapters merged.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/config/fields.hpp"

namespace dtrain::models {

struct Linked;

/// A dense layer that a target matches gives act(x W^T + b + alpha / rank * (x A^T) B^T). A is filled as a dense
/// layer's weight, which is how PEFT fills it, and B with zeros, so that training begins at the model itself.
struct Lora {
  std::int64_t rank = 0;  // 0: no adapters
  double alpha = 16;
  std::vector<std::string> targets;          // patterns of names of dense layers
  double dropout = 0;                        // of what A reads
  std::vector<std::string> modules_to_save;  // patterns of names of layers that are trained whole, and saved

  bool on() const noexcept { return rank > 0; }
  double factor() const noexcept { return alpha / static_cast<double>(rank); }
};

/// Behind the layer's name: "dense_2.lora_a.weight" [rank, features] and "dense_2.lora_b.weight" [units, rank].
inline constexpr std::string_view lora_a = ".lora_a", lora_b = ".lora_b";
bool is_adapter(std::string_view parameter) noexcept;

/// By layer: does it get an adapter? Throws ConfigError, with "model.lora.targets.N" in front, where a pattern matches
/// no dense layer that has a weight of its own.
std::vector<bool> adapted_layers(const Lora&, std::span<const Linked>);

/// By parameter, of their names: is it trained? Throws ConfigError, with "model.lora.modules_to_save.N" in front, where
/// a pattern matches no layer with parameters.
std::vector<bool> trained_parameters(const Lora&, std::span<const std::string> parameters);

/// weight [units, features] += factor * b [units, rank] a [rank, features].
void merge_adapter(std::span<float> weight, std::span<const float> a, std::span<const float> b, std::int64_t rank,
                   double factor);

TypePtr<Lora> lora_table();

}  // namespace dtrain::models
