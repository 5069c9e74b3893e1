// How files of tokens become samples: their length, what each of them holds, and what is to be predicted.
// Plain values and pure functions; launch/ fills them from YAML.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/config/fields.hpp"

namespace dtrain::io {

struct TextConfig {
  /// stream: windows of the tokens, which lie one document behind another. documents: whole documents side by side, as
  /// many as fit.
  enum class Packing : std::uint8_t { stream, documents };
  /// next_token: the label of a position is the token behind it. masked: some tokens are hidden, and are the labels.
  enum class Objective : std::uint8_t { next_token, masked };
  std::int64_t length = 0;  // positions of a sample; 0: samples are rows of a data set, not text
  Packing packing = Packing::stream;
  Objective objective = Objective::next_token;
  bool whole_words = false;
  explicit operator bool() const noexcept { return length > 0; }
};

/// What a port of the model is given of a sample of text: tokens, their labels, or for each position the first one of
/// its document.
enum class TextPart : std::uint8_t { none, tokens, labels, documents };

/// The name of the model's input of documents.
inline constexpr const char* documents_input = "documents";

/// The fields of `data.text`; made at the first use.
TypePtr<TextConfig> text_table();

/// What of a model matters to its text.
struct TextModel {
  struct Input {
    std::string name;
    std::vector<std::int64_t> shape;
    std::int64_t vocabulary;  // 0: no index values
  };
  struct Target {
    std::string name;
    bool labels, ignores;
  };
  std::vector<Input> inputs;
  std::vector<Target> targets;
  bool weights = false;  // that data are to give
};
/// What is wrong with `data.text` for such a model: fields and messages.
std::vector<std::pair<std::string, std::string>> text_problems(const TextConfig&, const TextModel&);

}  // namespace dtrain::io
