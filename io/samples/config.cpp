#include "io/samples/config.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace dtrain::io {

TypePtr<TextConfig> text_table() {
  static const TypePtr<TextConfig> type = [] {
    using Packing = TextConfig::Packing;
    using Objective = TextConfig::Objective;
    Table<TextConfig> text("Samples of files of tokens, which `dtrain data import text` makes.");
    text.add("length", &TextConfig::length, integer({1, 1 << 24}),
             "positions of a sample: the tokens of the model's input")
        .required();
    text.add("packing", &TextConfig::packing,
             choice<Packing>({{"stream", Packing::stream}, {"documents", Packing::documents}}),
             "stream: windows of all tokens, one behind another; documents: whole documents side by side, which do not "
             "see one another; those that are longer than a sample are cut");
    text.add(
        "objective", &TextConfig::objective,
        choice<Objective>({{"next_token", Objective::next_token}, {"masked", Objective::masked}}),
        "what is predicted at each position: the next token; or tokens that are hidden, as BERT does: 15 % of them, "
        "of which 80 % become the mask token, 10 % another token, and 10 % stay");
    text.add("whole_words", &TextConfig::whole_words, boolean(), "masked: hide words, not single tokens of them");
    return shared(std::move(text));
  }();
  return type;
}

std::vector<std::pair<std::string, std::string>> text_problems(const TextConfig& text, const TextModel& model) {
  std::vector<std::pair<std::string, std::string>> problems;
  const auto problem = [&problems](const std::string& field, std::string what) {
    problems.emplace_back(field, fmt::format("{}: {}", field, what));
  };
  const TextModel::Input *tokens = nullptr, *documents = nullptr;
  std::size_t others = 0;
  for (const TextModel::Input& input : model.inputs) {
    if (input.name == documents_input && input.vocabulary > 0)
      documents = &input;
    else if (input.vocabulary > 0 && tokens == nullptr)
      tokens = &input;
    else
      ++others;
  }
  if (tokens == nullptr || others > 0)
    problem("data.text",
            fmt::format("it gives a model one input of tokens, and documents; expected model.inputs: {{text: "
                        "{{tokens: {}, vocabulary: ...}}}}",
                        text.length));
  if (model.targets.size() != 1 || !model.targets[0].labels || model.weights)
    problem("data.text",
            "it gives a model one target of labels and no weights; expected one loss, a cross_entropy "
            "without `weight`");
  for (const TextModel::Input* input : {tokens, documents}) {
    if (input == nullptr || input->shape == std::vector{text.length}) continue;
    problem("data.text.length", fmt::format("{}, but model.inputs.{} has {} tokens; expected the same", text.length,
                                            input->name, input->shape.empty() ? 1 : input->shape[0]));
  }
  const std::string wanted =
      fmt::format("{}: {{tokens: {}, vocabulary: {}}}", documents_input, text.length, text.length);
  if (documents != nullptr && documents->vocabulary < text.length)
    problem("data.text", fmt::format("the input {} holds positions, but its vocabulary is {}; expected {}",
                                     documents_input, documents->vocabulary, wanted));
  if (text.packing == TextConfig::Packing::documents && documents == nullptr)
    problem("data.text.packing", fmt::format("documents side by side must not see one another; expected one more input "
                                             "in model.inputs, which every attention reads: {}",
                                             wanted));
  const bool masked = text.objective == TextConfig::Objective::masked;
  if ((masked || documents != nullptr) && !model.targets.empty() && !model.targets[0].ignores)
    problem("data.text",
            fmt::format("{} have no label; expected a loss with `ignore`, such as cross_entropy: {{target: "
                        "{}, ignore: -1}}",
                        masked ? "tokens that are not hidden" : "the ends of documents", model.targets[0].name));
  if (text.whole_words && !masked) problem("data.text.whole_words", "true without objective: masked; expected both");
  return problems;
}

}  // namespace dtrain::io
