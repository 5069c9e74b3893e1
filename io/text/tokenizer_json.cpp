#include "io/text/tokenizer_json.hpp"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

using Json = nlohmann::json;

constexpr std::int64_t most_ids = std::int64_t{1} << 21;
constexpr int most_depth = 64;            // of lists in lists
constexpr std::size_t shown_bytes = 120;  // of a value in a message

struct Pattern {
  SplitRule rule;
  std::string_view text;
};
constexpr std::string_view gpt2_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view llama3_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view qwen2_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr Pattern patterns[] = {
    {SplitRule::gpt2, gpt2_pattern}, {SplitRule::llama3, llama3_pattern}, {SplitRule::qwen2, qwen2_pattern}};

class Reader {
 public:
  Reader(const Json& all, const std::string& source) : all_(all), source_(source) {}
  TokenizerSpec read();

 private:
  [[noreturn]] void fail(const std::string& why) const { throw DataError(fmt::format("{}: {}", source_, why)); }
  /// "pre_tokenizer is {...}, which dtrain does not support; expected ..."
  [[noreturn]] void unsupported(const std::string& what, const Json& value, const std::string& expected) const {
    std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (text.size() > shown_bytes) text = text.substr(0, shown_bytes) + " ...";
    fail(fmt::format("{} is {}, which dtrain does not support; expected {}", what, text, expected));
  }
  /// Null where it is not there.
  static const Json& member(const Json& of, const char* name) {
    static const Json nothing;
    const auto found = of.is_object() ? of.find(name) : of.end();
    return found == of.end() ? nothing : *found;
  }
  static std::string type_of(const Json& part) {
    const Json& type = member(part, "type");
    return type.is_string() ? type.get<std::string>() : "";
  }
  bool flag(const Json& of, const char* name, bool otherwise) const {
    const Json& value = member(of, name);
    if (value.is_null()) return otherwise;
    if (!value.is_boolean()) fail(fmt::format("{} is neither true nor false", name));
    return value.get<bool>();
  }
  std::string text(const Json& of, const char* name, const std::string& otherwise) const {
    const Json& value = member(of, name);
    if (value.is_null()) return otherwise;
    if (!value.is_string()) fail(fmt::format("{} is no text", name));
    return value.get<std::string>();
  }
  TokenId id(const Json& value, const std::string& of) const {
    if (!value.is_number_integer() || value.get<std::int64_t>() < 0 || value.get<std::int64_t>() >= most_ids)
      fail(fmt::format("the id of {} is {}; expected a whole number from 0 to {}", of, value.dump(), most_ids - 1));
    return value.get<TokenId>();
  }
  std::vector<std::string> vocabulary(const Json& model) const;
  ByteLevelSpec byte_level(const Json& model) const;
  void merges(const Json& model, ByteLevelSpec&) const;
  void split(ByteLevelSpec&) const;
  WordPieceSpec word_piece(const Json& model) const;
  std::vector<AddedToken> added(bool normalizes) const;
  std::string post_processor() const;

  const Json& all_;
  const std::string& source_;
};

std::vector<std::string> Reader::vocabulary(const Json& model) const {
  const auto found = model.find("vocab");
  if (found == model.end() || !found->is_object()) fail("the model has no vocabulary (vocab)");
  std::vector<std::string> tokens;
  for (const auto& [token, number] : found->items()) {
    const TokenId at = id(number, token);
    if (at >= tokens.size()) tokens.resize(at + std::size_t{1});
    if (token.empty()) fail("the vocabulary has an empty token");
    if (!tokens[at].empty()) fail(fmt::format("the tokens {} and {} have the same id {}", tokens[at], token, at));
    tokens[at] = token;
  }
  return tokens;
}

void Reader::merges(const Json& model, ByteLevelSpec& spec) const {
  std::unordered_map<std::string_view, TokenId> ids;
  for (std::size_t i = 0; i < spec.vocabulary.size(); ++i) ids.emplace(spec.vocabulary[i], static_cast<TokenId>(i));
  const auto found = model.find("merges");
  if (found == model.end() || !found->is_array()) fail("the model has no merges");
  for (const Json& merge : *found) {
    std::array<std::string, 2> parts;
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      parts = {merge[0].get<std::string>(), merge[1].get<std::string>()};
    } else if (merge.is_string()) {
      const auto& both = merge.get_ref<const std::string&>();
      const std::size_t blank = both.find(' ');
      parts = {both.substr(0, blank), blank == both.npos ? "" : both.substr(blank + 1)};
    }
    std::array<TokenId, 2> pair{};
    for (std::size_t i = 0; i < 2; ++i) {
      const auto token = ids.find(parts[i]);
      if (token == ids.end() || parts[i].empty())
        fail(fmt::format("merge {} is {}; expected two tokens of the vocabulary", spec.merges.size(), merge.dump()));
      pair[i] = token->second;
    }
    spec.merges.push_back(pair);
  }
}

void Reader::split(ByteLevelSpec& spec) const {
  const std::string expected =
      "ByteLevel, after Split by the expression of Llama 3 or Qwen 2 or after Digits one by one";
  const Json& whole = member(all_, "pre_tokenizer");
  Json parts = type_of(whole) == "Sequence" ? member(whole, "pretokenizers") : Json::array({whole});
  if (!parts.is_array() || parts.empty()) unsupported("pre_tokenizer", whole, expected);
  const Json last = parts.back();
  parts.erase(parts.size() - 1);
  if (type_of(last) != "ByteLevel" || flag(last, "add_prefix_space", true))
    unsupported("pre_tokenizer", whole, expected + ", with add_prefix_space: false");
  const bool regex = flag(last, "use_regex", true);
  spec.split = regex ? SplitRule::gpt2 : SplitRule::none;
  for (const Json& part : parts) {
    const std::string type = type_of(part);
    if (type == "Digits" && flag(part, "individual_digits", false) && !spec.digits_apart) {
      spec.digits_apart = true;
    } else if (type == "Split" && !regex && spec.split == SplitRule::none && text(part, "behavior", "") == "Isolated" &&
               !flag(part, "invert", false)) {
      const std::string pattern = text(member(part, "pattern"), "Regex", "");
      const auto known =
          std::find_if(std::begin(patterns), std::end(patterns), [&](const Pattern& p) { return p.text == pattern; });
      if (known == std::end(patterns))
        unsupported("the expression of Split", pattern, "that of GPT-2, Llama 3 or Qwen 2");
      spec.split = known->rule;
    } else {
      unsupported("pre_tokenizer", whole, expected);
    }
  }
}

ByteLevelSpec Reader::byte_level(const Json& model) const {
  const Json& normalizer = member(all_, "normalizer");
  const bool nothing =
      normalizer.is_null() || (type_of(normalizer) == "Sequence" && member(normalizer, "normalizers") == Json::array());
  if (!nothing) unsupported("normalizer", normalizer, "null with BPE");
  for (const char* name : {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"}) {
    const Json& value = member(model, name);
    if (!value.is_null() && value != "" && value != 0.0) unsupported(fmt::format("model.{}", name), value, "null");
  }
  if (flag(model, "byte_fallback", false))
    unsupported("model.byte_fallback", true, "false, and bytes as characters (ByteLevel)");
  if (const Json& decoder = member(all_, "decoder"); !decoder.is_null() && type_of(decoder) != "ByteLevel")
    unsupported("decoder", decoder, "ByteLevel");
  ByteLevelSpec spec;
  spec.vocabulary = vocabulary(model);
  spec.whole_words_first = flag(model, "ignore_merges", false);
  merges(model, spec);
  split(spec);
  return spec;
}

WordPieceSpec Reader::word_piece(const Json& model) const {
  WordPieceSpec spec;
  spec.vocabulary = vocabulary(model);
  spec.unknown = text(model, "unk_token", spec.unknown);
  spec.continues = text(model, "continuing_subword_prefix", spec.continues);
  if (spec.continues.empty()) fail("model.continuing_subword_prefix is empty");
  if (const Json& longest = member(model, "max_input_chars_per_word"); !longest.is_null())
    spec.longest_word = id(longest, "model.max_input_chars_per_word");
  const Json& normalizer = member(all_, "normalizer");
  if (type_of(normalizer) != "BertNormalizer") unsupported("normalizer", normalizer, "BertNormalizer with WordPiece");
  spec.clean_text = flag(normalizer, "clean_text", true);
  spec.chinese_apart = flag(normalizer, "handle_chinese_chars", true);
  spec.lowercase = flag(normalizer, "lowercase", true);
  spec.strip_accents = flag(normalizer, "strip_accents", spec.lowercase);
  if (const Json& words = member(all_, "pre_tokenizer"); type_of(words) != "BertPreTokenizer")
    unsupported("pre_tokenizer", words, "BertPreTokenizer with WordPiece");
  if (const Json& decoder = member(all_, "decoder"); !decoder.is_null() && type_of(decoder) != "WordPiece")
    unsupported("decoder", decoder, "WordPiece");
  return spec;
}

std::vector<AddedToken> Reader::added(bool normalizes) const {
  std::vector<AddedToken> tokens;
  const Json& list = member(all_, "added_tokens");
  if (list.is_null()) return tokens;
  if (!list.is_array()) fail("added_tokens is no list");
  for (const Json& entry : list) {
    AddedToken token{0, text(entry, "content", ""), flag(entry, "special", false)};
    if (token.content.empty()) fail("added_tokens has a token without content");
    token.id = id(member(entry, "id"), token.content);
    for (const char* name : {"single_word", "lstrip", "rstrip"})
      if (flag(entry, name, false))
        unsupported(fmt::format("{} of the added token {}", name, token.content), true, "false");
    if (normalizes && flag(entry, "normalized", false))
      unsupported(fmt::format("normalized of the added token {}", token.content), true, "false with WordPiece");
    tokens.push_back(std::move(token));
  }
  return tokens;
}

std::string Reader::post_processor() const {
  const Json& value = member(all_, "post_processor");
  return value.is_null() || type_of(value) == "ByteLevel" ? std::string() : value.dump();
}

TokenizerSpec Reader::read() {
  const Json& model = member(all_, "model");
  if (!model.is_object()) fail("has no model; is it a tokenizer.json?");
  TokenizerSpec spec;
  const std::string type = type_of(model);
  if (type == "WordPiece") {
    spec.model = word_piece(model);
  } else if (type == "BPE" || (type.empty() && model.contains("merges"))) {
    spec.model = byte_level(model);
  } else {
    unsupported("model.type", type, "BPE or WordPiece");
  }
  spec.added = added(type == "WordPiece");
  spec.post_processor = post_processor();
  return spec;
}

std::string json_text(std::string_view text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string vocabulary_text(const std::vector<std::string>& tokens) {
  std::string text;
  for (std::size_t id = 0; id < tokens.size(); ++id)
    if (!tokens[id].empty()) text += fmt::format("{}{}:{}", text.empty() ? "" : ",\n", json_text(tokens[id]), id);
  return text;
}

std::string model_text(const ByteLevelSpec& spec) {
  constexpr std::string_view byte_level =
      R"({{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":{}}})";
  std::string words;
  if (spec.digits_apart) words += R"({"type":"Digits","individual_digits":true},)";
  for (const Pattern& p : patterns)
    if (p.rule == spec.split && p.rule != SplitRule::gpt2)
      words += fmt::format(R"({{"type":"Split","pattern":{{"Regex":{}}},"behavior":"Isolated","invert":false}},)",
                           json_text(p.text));
  words += fmt::format(byte_level, spec.split == SplitRule::gpt2);
  std::string merges;
  for (const auto& [left, right] : spec.merges)
    merges += fmt::format("{}{}", merges.empty() ? "" : ",\n",
                          json_text(spec.vocabulary[left] + " " + spec.vocabulary[right]));
  return fmt::format(R"("normalizer":null,
"pre_tokenizer":{{"type":"Sequence","pretokenizers":[{}]}},
"decoder":{},
"model":{{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":{},
"vocab":{{
{}
}},
"merges":[
{}
]}})",
                     words, fmt::format(byte_level, true), spec.whole_words_first, vocabulary_text(spec.vocabulary),
                     merges);
}

std::string model_text(const WordPieceSpec& spec) {
  return fmt::format(
      R"("normalizer":{{"type":"BertNormalizer","clean_text":{},"handle_chinese_chars":{},"strip_accents":{},"lowercase":{}}},
"pre_tokenizer":{{"type":"BertPreTokenizer"}},
"decoder":{{"type":"WordPiece","prefix":{},"cleanup":true}},
"model":{{"type":"WordPiece","unk_token":{},"continuing_subword_prefix":{},"max_input_chars_per_word":{},
"vocab":{{
{}
}}}})",
      spec.clean_text, spec.chinese_apart, spec.strip_accents, spec.lowercase, json_text(spec.continues),
      json_text(spec.unknown), json_text(spec.continues), spec.longest_word, vocabulary_text(spec.vocabulary));
}

}  // namespace

TokenizerSpec tokenizer_from_json(const nlohmann::json& all, const std::string& source) {
  return Reader(all, source).read();
}

nlohmann::json parse_json(std::string_view text, const std::string& source) {
  try {
    return Json::parse(text, [&](int depth, Json::parse_event_t, Json&) {
      if (depth > most_depth)
        throw DataError(fmt::format("{}: has more than {} lists in one another", source, most_depth));
      return true;
    });
  } catch (const Json::exception& e) {
    throw DataError(fmt::format("{}: cannot be read as JSON: {}", source, e.what()));
  }
}

TokenizerSpec tokenizer_from_text(std::string_view text, const std::string& source) {
  return tokenizer_from_json(parse_json(text, source), source);
}

std::string to_json(const TokenizerSpec& spec) {
  std::string added;
  for (const AddedToken& token : spec.added)
    added += fmt::format(
        R"({}{{"id":{},"content":{},"single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":{}}})",
        added.empty() ? "" : ",\n", token.id, json_text(token.content), token.special);
  std::string after = spec.post_processor;
  if (after.empty() && std::holds_alternative<ByteLevelSpec>(spec.model))
    after = R"({"type":"ByteLevel","add_prefix_space":true,"trim_offsets":false,"use_regex":true})";
  if (after.empty()) after = "null";
  return fmt::format(R"({{"version":"1.0","truncation":null,"padding":null,
"added_tokens":[
{}
],
"post_processor":{},
{}}}
)",
                     added, after, std::visit([](const auto& model) { return model_text(model); }, spec.model));
}

std::string bert_post_processor(TokenId cls, TokenId sep) {
  const auto special = [](const char* name, TokenId id) {
    return Json{{"id", name}, {"ids", {id}}, {"tokens", {name}}};
  };
  const auto token = [](const char* name, int type) {
    return Json{{"SpecialToken", {{"id", name}, {"type_id", type}}}};
  };
  const auto text = [](const char* name, int type) { return Json{{"Sequence", {{"id", name}, {"type_id", type}}}}; };
  const Json cls_0 = token("[CLS]", 0), sep_0 = token("[SEP]", 0);
  return Json{{"type", "TemplateProcessing"},
              {"single", {cls_0, text("A", 0), sep_0}},
              {"pair", {cls_0, text("A", 0), sep_0, text("B", 1), token("[SEP]", 1)}},
              {"special_tokens", {{"[CLS]", special("[CLS]", cls)}, {"[SEP]", special("[SEP]", sep)}}}}
      .dump();
}

}  // namespace dtrain::io
