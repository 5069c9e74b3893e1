// What data.text asks of a model.
#include <gtest/gtest.h>

#include "io/samples/config.hpp"

namespace dtrain::io {
namespace {

using Problems = std::vector<std::pair<std::string, std::string>>;
using Packing = TextConfig::Packing;
using Objective = TextConfig::Objective;

TextModel model_of(std::int64_t tokens = 64, bool documents = true, bool ignores = true) {
  TextModel model{{{"text", {tokens}, 257}}, {{"next", true, ignores}}, false};
  if (documents) model.inputs.push_back({documents_input, {64}, 64});
  return model;
}

void expect(const TextConfig& text, const TextModel& model, const std::string& field, const std::string& part) {
  const Problems problems = text_problems(text, model);
  ASSERT_EQ(problems.size(), 1u) << part;
  EXPECT_EQ(problems[0].first, field);
  EXPECT_NE(problems[0].second.find(part), std::string::npos) << problems[0].second;
}

TEST(TextConfig, FitsItsModel) {
  EXPECT_EQ(text_problems({.length = 64}, model_of(64, false, false)), Problems{});
  EXPECT_EQ(text_problems({.length = 64}, model_of()), Problems{});
  EXPECT_EQ(text_problems({64, Packing::documents, Objective::masked, true}, model_of()), Problems{});
  EXPECT_EQ(text_problems({64, Packing::stream, Objective::masked, false}, model_of(64, false)), Problems{});
}

TEST(TextConfig, SaysWhatTheModelLacks) {
  expect({.length = 64}, model_of(32, false), "data.text.length", "64, but model.inputs.text has 32 tokens");
  expect({.length = 64, .packing = Packing::documents}, model_of(64, false), "data.text.packing",
         "documents: {tokens: 64, vocabulary: 64}");
  expect({.length = 64}, model_of(64, true, false), "data.text", "the ends of documents have no label");
  expect({64, Packing::stream, Objective::masked, false}, model_of(64, false, false), "data.text",
         "tokens that are not hidden have no label; expected a loss with `ignore`");
  expect({64, Packing::stream, Objective::next_token, true}, model_of(), "data.text.whole_words", "objective: masked");
  TextModel two = model_of();
  two.targets.push_back({"other", true, true});
  expect({.length = 64}, two, "data.text", "one target of labels");
  TextModel image = model_of();
  image.inputs.push_back({"image", {3, 8, 8}, 0});
  expect({.length = 64}, image, "data.text", "one input of tokens");
  TextModel narrow = model_of();
  narrow.inputs[1].vocabulary = 63;
  expect({.length = 64}, narrow, "data.text", "its vocabulary is 63");
}

}  // namespace
}  // namespace dtrain::io
