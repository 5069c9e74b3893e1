// What a configuration says of the model's inputs and targets, against the model: settings that would do nothing.
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "launch/config/config_file.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {
namespace {

/// The message of all problems, or "" where there is none, of a model of tokens and numbers, labels and prices.
std::string complaint(const std::string& data) {
  const std::string text = R"(name: ports
model:
  inputs: {words: {tokens: 5, vocabulary: 20}, table: [5, 3]}
  layers:
    - embedding: {vocabulary: 20, channels: 4, from: words, name: read}
    - concat: {from: [read, table]}
    - dense: {units: 7, name: classes}
    - dense: {units: 2, name: prices, from: classes}
  outputs: {class: classes, price: prices}
  losses:
    class: {cross_entropy: {of: class, target: label}}
    again: {cross_entropy: {of: class, target: label}}
    price: {mean_squared_error: {of: price, target: price}}
data: {train: a.h5, )" + data +
                           "}\n";
  try {
    parse_config(text, "c.yaml", {});
    return "";
  } catch (const ConfigError& e) {
    return e.what();
  }
}

TEST(PortsConfig, SettingsOfNumbersForIntegersAreReported) {
  EXPECT_EQ(complaint("inputs: {words: /words, table: {normalize: {scale: 2}}}, targets: {label: /label, price: "
                      "{normalize: {scale: 2}}}"),
            "");
  const std::string input = complaint("inputs: {words: {key: /words, normalize: {scale: 2}}}");
  EXPECT_NE(input.find("data.inputs.words.normalize: words has index values, which are read as they are"),
            std::string::npos)
      << input;
  const std::string label = complaint("targets: {label: {key: /label, layout: channels_last}}");
  const auto at = label.find("data.targets.label.layout: label has labels");
  EXPECT_NE(at, std::string::npos) << label;
  EXPECT_EQ(label.find("data.targets.label.layout", at + 1), std::string::npos) << "twice: " << label;
}

TEST(PortsConfig, AnInputThatAFamilyDoesNotReadIsNamed) {
  const auto refused = [](const std::string& inputs, const std::string& family) -> std::string {
    const std::string text = "model:\n  inputs: {" + inputs + "}\n  " + family +
                             "\n  losses: {next: {cross_entropy: {target: next}}}\ndata: {train: a.h5}\n";
    try {
      parse_config(text, "c.yaml", {});
      return "";
    } catch (const ConfigError& e) {
      return e.problems().at(0).text;
    }
  };
  const std::string text = "text: {tokens: 8, vocabulary: 9}", more = ", document: {tokens: 8, vocabulary: 8}";
  const std::string gpt = "gpt: {layers: 1, heads: 1, width: 4, context: 8, vocabulary: 9}";
  EXPECT_EQ(refused(text, gpt), "");
  EXPECT_EQ(refused(text + ", documents: {tokens: 8, vocabulary: 8}", gpt), "");
  EXPECT_EQ(
      refused(text + more, gpt),
      "model: input document: the family gpt does not read it; expected the first input alone, or beside it an input "
      "named documents");
  EXPECT_EQ(refused(text + more, "bert: {layers: 1, heads: 1, width: 4, hidden: 4, context: 8, vocabulary: 9}"),
            "model: input document: the family bert does not read it; expected the first input alone, or beside it an "
            "input named documents or segments");
  EXPECT_EQ(refused("table: [4], more: [4]", "mlp: {widths: [3]}"),
            "model: input more: the family mlp does not read it; expected the first input alone");
}

}  // namespace
}  // namespace dtrain::launch
