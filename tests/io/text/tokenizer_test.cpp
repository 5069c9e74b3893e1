#include <chrono>
#include <filesystem>
#include <functional>
#include <random>
#include <set>

#include <fmt/format.h>

#include "io/text/tokenizer_spec.hpp"
#include "io/text/unicode.hpp"
#include "runtime/tensor/error.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"
#include "tests/io/text/tokenizer_files.hpp"

namespace dtrain::io {
namespace {

using testing::Folder;
using testing::golden_definition;
using testing::golden_text;
using testing::golden_tokenizer;
using testing::ids_in;
using testing::message_of;
using testing::tokenizer_goldens;
using testing::write_text;
using Json = testing::TokenizerJson;

const std::string gpt2_files = "../shared/data/gpt2-bpe";

bool is_byte_level(const Tokenizer& tokenizer) {
  return !tokenizer.name().starts_with("wordpiece");
}
std::string random_bytes(std::size_t count) {
  std::mt19937 draw(3);
  std::string bytes(count, '\0');
  for (char& c : bytes) c = static_cast<char>(draw());
  return bytes;
}

TEST(Tokenizer, GivesTheIdsOfTokenizers) {
  for (const auto& [name, golden] : tokenizer_goldens().at("tokenizers").items()) {
    const auto tokenizer = golden_tokenizer(name);
    const auto encoder = tokenizer->encoder();
    for (const auto& [text, ids] : golden.at("ids").items()) {
      SCOPED_TRACE(name + ", " + text);
      std::vector<TokenId> found;
      encoder->encode(golden_text(text), found);
      EXPECT_EQ(found, ids_in(ids));
      if (is_byte_level(*tokenizer)) {
        EXPECT_EQ(tokenizer->decode(found), golden_text(text));
      } else {
        EXPECT_EQ(tokenizer->decode(found), golden.at("decoded").at(text).get<std::string>());
      }
    }
    const std::string special = tokenizer_goldens().at("special").get<std::string>();
    EXPECT_EQ(tokenizer->encode(special, SpecialTokens::as_tokens), ids_in(golden.at("with_special"))) << name;
    EXPECT_NE(tokenizer->encode(special), ids_in(golden.at("with_special"))) << name;
  }
}

TEST(Tokenizer, GivesTheIdsOfGpt2) {
  if (!std::filesystem::exists(gpt2_files)) GTEST_SKIP() << "no GPT-2 vocabulary in " << gpt2_files;
  const auto tokenizer = open_tokenizer(gpt2_files);
  EXPECT_EQ(tokenizer->name(), "gpt2");
  EXPECT_EQ(tokenizer->vocabulary(), 50257u);
  EXPECT_EQ(tokenizer->end_of_text(), 50256u);
  const Json& golden = tokenizer_goldens().at("gpt2");
  for (const auto& [text, ids] : golden.at("ids").items())
    EXPECT_EQ(tokenizer->encode(golden_text(text)), ids_in(ids)) << text;
  std::ifstream file("../shared/data/text/tinyshakespeare.txt", std::ios::binary);
  const std::string plays{std::istreambuf_iterator<char>(file), {}};
  const std::vector<TokenId> ids = tokenizer->encode(plays);
  std::uint64_t mixed = 0;
  for (const TokenId id : ids) mixed = mixed * 31 + id;
  EXPECT_EQ(ids.size(), golden.at("shakespeare").at("tokens").get<std::size_t>());
  EXPECT_EQ(mixed, golden.at("shakespeare").at("mixed").get<std::uint64_t>());
  EXPECT_EQ(tokenizer->decode(ids), plays);
  // The definition is the tokenizer, wherever it was read from.
  const auto again = tokenizer_of(tokenizer->definition(), "a data file");
  EXPECT_EQ(again->hash(), tokenizer->hash());
  EXPECT_EQ(again->encode(plays), ids);
}

TEST(Tokenizer, AnyBytesComeBack) {
  const std::string bytes = random_bytes(20000);
  for (const char* name : {"gpt2 rule", "llama3 rule", "qwen2 rule", "digits apart"}) {
    const auto tokenizer = golden_tokenizer(name);
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(bytes)), bytes) << name;
    // Characters that are cut short, at the end as well.
    for (const std::string cut : {"a\xE4\xBD", "\xF0\x9F", "\xC3", "\xED\xA0\x80", "\xC0\x80 \xFF"})
      EXPECT_EQ(tokenizer->decode(tokenizer->encode(cut)), cut) << name;
  }
  EXPECT_TRUE(golden_tokenizer("uncased")->encode("\xFF\xC3").empty());  // as the sign for damaged text
}

TEST(Tokenizer, BytesAreBytes) {
  const auto tokenizer = open_tokenizer("bytes");
  EXPECT_EQ(tokenizer->name(), "bytes");
  EXPECT_EQ(tokenizer->vocabulary(), 257u);
  EXPECT_EQ(tokenizer->end_of_text(), 256u);
  const std::string bytes = random_bytes(3000);
  const std::vector<TokenId> ids = tokenizer->encode(bytes);
  ASSERT_EQ(ids.size(), bytes.size());
  for (std::size_t i = 0; i < ids.size(); ++i) ASSERT_EQ(ids[i], static_cast<unsigned char>(bytes[i]));
  EXPECT_EQ(tokenizer->decode(ids), bytes);
  EXPECT_EQ(tokenizer->encode("<|endoftext|>").size(), 13u);
  EXPECT_EQ(tokenizer->encode("<|endoftext|>", SpecialTokens::as_tokens), std::vector<TokenId>{256});
  EXPECT_EQ(tokenizer_of(tokenizer->definition(), "")->name(), "bytes");
}

/// What each merge does, one after another: slow, and plainly right.
std::vector<TokenId> merged_slowly(const Json& model, std::vector<std::string> parts) {
  std::map<std::pair<std::string, std::string>, std::size_t> ranks;
  for (const Json& merge : model.at("merges"))
    ranks.emplace(std::pair{merge[0].get<std::string>(), merge[1].get<std::string>()}, ranks.size());
  while (true) {
    std::size_t best = ranks.size(), place = 0;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = ranks.find({parts[i], parts[i + 1]});
      if (found != ranks.end() && found->second < best) {
        best = found->second;
        place = i;
      }
    }
    if (best == ranks.size()) break;
    parts[place] += parts[place + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(place) + 1);
  }
  std::vector<TokenId> ids;
  for (const std::string& part : parts) ids.push_back(model.at("vocab").at(part).get<TokenId>());
  return ids;
}

TEST(Tokenizer, LongWordsMergeAsShortOnesDo) {
  const auto tokenizer = golden_tokenizer("gpt2 rule");
  const Json model = golden_definition("gpt2 rule").at("model");
  std::mt19937 draw(11);
  for (const std::size_t length : {1, 2, 3, 30, 31, 32, 33, 47, 48, 49, 50, 97, 300}) {
    std::string word;
    std::vector<std::string> parts;
    for (std::size_t i = 0; i < length; ++i) parts.emplace_back(1, "aethinos"[draw() % 8]), word += parts.back();
    EXPECT_EQ(tokenizer->encode(word), merged_slowly(model, parts)) << word;
    EXPECT_EQ(tokenizer->encode(word), tokenizer->encode(word)) << word;
  }
}

TEST(Tokenizer, OneLongWordTakesNoLongTime) {
  const auto tokenizer = golden_tokenizer("gpt2 rule");
  const auto seconds = [&](const std::string& text) {
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  constexpr double most = 30;  // what is quadratic takes minutes; sanitizers and a busy machine do not reach it
  EXPECT_LT(seconds(std::string(400'000, 'a')), most);
  EXPECT_LT(seconds(std::string(100'000, ' ')), most);
}

/// A word's place in the cache is shared: all ids must still be right when it is full of others.
TEST(Tokenizer, WordsThatTakeOneAnothersPlaceKeepTheirIds) {
  const auto tokenizer = golden_tokenizer("gpt2 rule");
  const auto encoder = tokenizer->encoder();
  for (int round = 0; round < 2; ++round)
    for (int i = 0; i < 60000; i += round == 0 ? 1 : 97) {
      const std::string word =
          fmt::format(" w{}x{}", i % 7 == 0 ? "erstandin" : "",
                      std::string(static_cast<std::size_t>(i % 23), static_cast<char>('a' + i / 23 % 26)));
      std::vector<TokenId> ids;
      encoder->encode(word, ids);
      ASSERT_EQ(tokenizer->decode(ids), word);
    }
}

TEST(Tokenizer, EachIdHasAPiece) {
  const auto tokenizer = golden_tokenizer("llama3 rule");
  std::set<std::string_view> pieces;
  for (TokenId id = 0; id < tokenizer->vocabulary(); ++id) pieces.insert(tokenizer->piece(id));
  EXPECT_EQ(pieces.size(), tokenizer->vocabulary());
  EXPECT_TRUE(pieces.contains("    "));
  EXPECT_HAS(message_of([&] { tokenizer->piece(tokenizer->vocabulary()); }),
             "token 421 is not in the vocabulary of bpe-421");
  EXPECT_HAS(message_of([&] { (void)tokenizer->decode(std::vector<TokenId>{5, 9999}); }), "token 9999");
}

TEST(TokenizerFiles, AllFormsGiveOneTokenizer) {
  const Folder folder;
  Json whole = golden_definition("gpt2 rule");
  const Json& vocabulary = whole.at("model").at("vocab");
  whole["added_tokens"] = Json::array();
  whole["added_tokens"].push_back({{"id", 0}, {"content", "<|end_of_text|>"}, {"special", true}});
  std::string merges = "#version: 0.2\n";
  for (const Json& merge : whole.at("model").at("merges"))
    merges += merge[0].get<std::string>() + " " + merge[1].get<std::string>() + "\n";
  for (const char* name : {"json", "pair", "old"}) std::filesystem::create_directory(folder / name);
  write_text(folder / "json/tokenizer.json", whole.dump(1));
  write_text(folder / "pair/vocab.json", vocabulary.dump());
  write_text(folder / "pair/merges.txt", merges);
  write_text(folder / "old/encoder.json", vocabulary.dump());
  write_text(folder / "old/vocab.bpe", merges);
  const std::string hash = open_tokenizer(folder / "json")->hash();
  for (const char* what : {"json/tokenizer.json", "pair", "pair/vocab.json", "pair/merges.txt", "old",
                           "old/encoder.json", "old/vocab.bpe"})
    EXPECT_EQ(open_tokenizer(folder / what)->hash(), hash) << what;
}

TEST(TokenizerFiles, VocabTxtIsAWordPiece) {
  const Folder folder;
  const Json golden = golden_definition("uncased");
  std::vector<std::string> tokens(golden.at("model").at("vocab").size());
  for (const auto& [token, id] : golden.at("model").at("vocab").items()) tokens[id.get<std::size_t>()] = token;
  std::string lines;
  for (const std::string& token : tokens) lines += token + "\n";
  write_text(folder / "vocab.txt", lines);
  const auto tokenizer = open_tokenizer(folder / "");
  EXPECT_EQ(tokenizer->name(), fmt::format("wordpiece-{}", tokens.size()));
  EXPECT_EQ(tokenizer->encode(golden_text("english")), golden_tokenizer("uncased")->encode(golden_text("english")));
  EXPECT_EQ(tokenizer->end_of_text(), tokenizer->encode("[SEP]", SpecialTokens::as_tokens).at(0));
  write_text(folder / "tokenizer_config.json", R"({"do_lower_case": false})");
  EXPECT_NE(open_tokenizer(folder / "vocab.txt")->hash(), tokenizer->hash());
}

TEST(TokenizerFiles, SayWhatIsWrong) {
  const Folder folder;
  const auto opened = [&](const std::string& what) { return message_of([&] { open_tokenizer(what); }); };
  EXPECT_HAS(opened(folder / "none"), "is not there; expected bytes, gpt2, a file or a folder");
  EXPECT_HAS(opened(folder / ""), "has no tokenizer; expected tokenizer.json, vocab.json and merges.txt");
  write_text(folder / "vocab.json", "{}");
  EXPECT_HAS(opened(folder / "vocab.json"), "merges.txt: is not there; vocab.json is one of two files");
  write_text(folder / "merges.txt", "#version: 0.2\na b\nabc\n");
  EXPECT_HAS(opened(folder / "vocab.json"), "merges.txt:3: expected two tokens with one blank");
  write_text(folder / "merges.txt", "a b\n");
  EXPECT_HAS(opened(folder / "vocab.json"), "merge 0 is \"a b\"; expected two tokens of the vocabulary");
  write_text(folder / "merges.txt", "");
  EXPECT_HAS(opened(folder / "vocab.json"), "has no token for byte 0x00");
  write_text(folder / "vocab.txt", "a\nb\n");
  EXPECT_HAS(opened(folder / "vocab.txt"), "has no line [UNK]");
  write_text(folder / "tokenizer.json", "{\"normalizer\": " + std::string(1'000'000, '['));
  EXPECT_HAS(opened(folder / ""), "has more than 64 lists in one another");
  write_text(folder / "tokenizer.json", "{\"model\": ");
  EXPECT_HAS(opened(folder / ""), "cannot be read as JSON");
  write_text(folder / "tokenizer.json", "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"\xFF\": 1}}}");
  EXPECT_HAS(opened(folder / ""), "cannot be read as JSON");
}

TEST(TokenizerFiles, RefuseByNameWhatIsNotSupported) {
  const auto changed = [](const std::string& name, const std::function<void(Json&)>& change) {
    Json definition = golden_definition(name);
    change(definition);
    return message_of([&] { tokenizer_of(definition.dump(), "tokenizer.json"); });
  };
  const auto bpe = [&](const std::function<void(Json&)>& change) { return changed("llama3 rule", change); };
  EXPECT_HAS(bpe([](Json& j) { j["model"]["type"] = "Unigram"; }),
             R"(model.type is "Unigram", which dtrain does not support)");
  EXPECT_HAS(bpe([](Json& j) { j["normalizer"] = {{"type", "NFC"}}; }), R"(normalizer is {"type":"NFC"})");
  EXPECT_HAS(bpe([](Json& j) { j["model"]["byte_fallback"] = true; }), "model.byte_fallback is true");
  EXPECT_HAS(bpe([](Json& j) { j["model"]["unk_token"] = "<unk>"; }), "model.unk_token is \"<unk>\"");
  EXPECT_HAS(bpe([](Json& j) { j["model"]["dropout"] = 0.1; }), "model.dropout is 0.1");
  EXPECT_HAS(bpe([](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "\\w+"; }),
             "the expression of Split is \"\\\\w+\"");
  EXPECT_HAS(bpe([](Json& j) {
               j["pre_tokenizer"] = {{"type", "Metaspace"}};
             }),
             "pre_tokenizer is {\"type\":\"Metaspace\"}");
  EXPECT_HAS(bpe([](Json& j) { j["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = true; }),
             "with add_prefix_space: false");
  EXPECT_HAS(bpe([](Json& j) { j["added_tokens"][0]["lstrip"] = true; }), "lstrip of the added token");
  EXPECT_HAS(bpe([](Json& j) { j["decoder"] = {{"type", "Fuse"}}; }), "decoder is {\"type\":\"Fuse\"}");
  EXPECT_HAS(bpe([](Json& j) { j["model"]["vocab"]["new"] = 5; }), "have the same id 5");
  EXPECT_HAS(bpe([](Json& j) { j["model"]["vocab"]["new"] = -5; }), "the id of new is -5");
  EXPECT_HAS(bpe([](Json& j) { j["model"]["vocab"]["new"] = 1e9; }), "the id of new is 1000000000.0");
  EXPECT_HAS(bpe([](Json& j) { j["model"]["merges"][3] = "x"; }), "merge 3 is \"x\"");
  EXPECT_HAS(bpe([](Json& j) { j.erase("model"); }), "has no model");
  EXPECT_HAS(changed("uncased", [](Json& j) { j["normalizer"] = nullptr; }), "expected BertNormalizer with WordPiece");
  EXPECT_HAS(changed("uncased", [](Json& j) { j["model"]["unk_token"] = "<none>"; }), "has no token <none>");
}

TEST(Unicode, FindsWhatIsNoUtf8) {
  EXPECT_EQ(first_invalid_utf8("Grüße 你好 👩"), std::nullopt);
  EXPECT_EQ(first_invalid_utf8("ab\xFF"), 2u);
  EXPECT_EQ(first_invalid_utf8("ab\xC3"), 2u);
  EXPECT_EQ(first_invalid_utf8("\xED\xA0\x80"), 0u);      // a surrogate
  EXPECT_EQ(first_invalid_utf8("x\xC0\xAF"), 1u);         // a longer form than needed
  EXPECT_EQ(first_invalid_utf8("\xF4\x90\x80\x80"), 0u);  // above the last character
}

}  // namespace
}  // namespace dtrain::io
