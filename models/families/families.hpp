// The families: well-known networks as lists of layers with readable names. A new family is a line here and its files.
// Plain values and pure functions.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "models/families/bert.hpp"
#include "models/families/efficientnet.hpp"
#include "models/families/gpt.hpp"
#include "models/families/llama.hpp"
#include "models/families/mlp.hpp"
#include "models/families/resnet.hpp"
#include "models/families/vit.hpp"

namespace dtrain::models {

using Family = std::variant<std::monostate, Mlp, ResNet, EfficientNetB0, Gpt, Llama, Bert, Vit>;

/// As in a configuration, "resnet"; empty where there is none.
inline std::string_view family_name(const Family& family) {
  return std::visit(
      []<class Net>(const Net&) -> std::string_view {
        if constexpr (std::is_same_v<Net, std::monostate>)
          return "";
        else
          return Net::family;
      },
      family);
}

/// The names of inputs that it reads beside the first one, in words; empty: of none.
inline std::string_view family_also_reads(const Family& family) {
  return std::visit(
      []<class Net>(const Net&) -> std::string_view {
        if constexpr (requires { Net::also_reads; })
          return Net::also_reads;
        else
          return "";
      },
      family);
}

/// The layers of the family, for samples of these inputs; {} where there is none.
inline std::vector<Layer> family_layers(const Family& family, std::span<const ModelInput> inputs) {
  return std::visit(
      [&]<class Net>(const Net& net) -> std::vector<Layer> {
        if constexpr (std::is_same_v<Net, std::monostate>)
          return {};
        else
          return net.layers(inputs);
      },
      family);
}

/// The file config.json of Hugging Face's transformers; nothing for what is no model of theirs.
inline std::optional<Document> huggingface_config(const Family& family, std::span<const ModelInput> inputs) {
  return std::visit(
      [&]<class Net>(const Net& net) -> std::optional<Document> {
        if constexpr (requires { net.huggingface_config(inputs); })
          return net.huggingface_config(inputs);
        else
          return std::nullopt;
      },
      family);
}

}  // namespace dtrain::models
