#include "io/import/import_text.hpp"

#include <algorithm>
#include <filesystem>
#include <optional>

#include <fmt/format.h>
#include <zlib.h>

#include "io/dataset/inspect.hpp"
#include "io/hdf5/column.hpp"
#include "io/text/token_file.hpp"
#include "runtime/tensor/error.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"
#include "tests/io/text/tokenizer_files.hpp"

namespace dtrain::io {
namespace {

using namespace std::string_literals;
using testing::Folder;
using testing::golden_definition;
using testing::golden_tokenizer;
using testing::message_of;
using testing::write_text;
using Options = TextImportOptions;

std::vector<char> content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
template <class T>
std::vector<T> read(const std::string& path, const std::string& name) {
  const h5::File file(path);
  const Column column(path, file.info(name));
  std::vector<T> values(column.rows());
  EXPECT_EQ(column.row_bytes(), sizeof(T));
  column.read_all(reinterpret_cast<std::byte*>(values.data()), 1);
  return values;
}
/// The text of each document; the token that ends it is "|".
std::vector<std::string> documents(const std::string& path) {
  const h5::File file(path);
  const auto tokens = find_tokens(file);
  if (!tokens) return {"no tokens"};
  std::vector<std::string> texts;
  const auto tokenizer = stored_tokenizer(file, *tokens);
  for (Document& d : first_documents(*tokens, path, *tokenizer, 1000, ~std::uint64_t{0} >> 1)) {
    const std::string end(tokenizer->piece(*tokenizer->end_of_text()));
    if (d.begin.ends_with(end)) d.begin.replace(d.begin.size() - end.size(), end.size(), "|");
    texts.push_back(std::move(d.begin));
  }
  return texts;
}
std::optional<double> text_bytes(const std::string& path) {
  const h5::File file(path);
  return find_tokens(file)->text_bytes;
}
std::string imported(const std::vector<std::string>& files, const std::string& out, const Options& options = {}) {
  return import_text(files, out, options);
}
using Texts = std::vector<std::string>;

TEST(ImportText, AFileIsADocument) {
  const Folder folder;
  write_text(folder / "a", "one\r\ntwo\n");
  write_text(folder / "b", std::string("\xEF\xBB\xBF") + "mark\0ed"s);
  const std::string said = imported({folder / "a", folder / "b"}, folder / "t.h5");
  EXPECT_EQ(documents(folder / "t.h5"), (Texts{"one\r\ntwo\n|", "mark\0ed|"s}));
  EXPECT_HAS(said, "18 tokens (uint16) of 2 documents, made of 16 bytes of text");
  EXPECT_HAS(said, "each document ends with token 256, <|endoftext|>");
  EXPECT_EQ(text_bytes(folder / "t.h5"), 16);
  EXPECT_HAS(inspect(folder / "t.h5").text, "text: 18 tokens of 2 documents; tokenizer bytes, 257 ids");
  EXPECT_HAS(inspect(folder / "t.h5").text, R"("one\r\ntwo\n<|endoftext|>" (10 tokens))");
}

TEST(ImportText, ALineIsADocument) {
  const Folder folder;
  write_text(folder / "a", "one\r\n\n  \n<|endoftext|> two \nthree");
  Options options;
  options.document = Options::Document::line;
  imported({folder / "a"}, folder / "t.h5", options);
  EXPECT_EQ(documents(folder / "t.h5"), (Texts{"one|", "<|endoftext|> two |", "three|"}));
}

TEST(ImportText, JsonLinesHaveTheTextUnderAKey) {
  const Folder folder;
  write_text(folder / "a.jsonl", "{\"id\": 1, \"text\": \"x\\ny \\u00e9\"}\n\n{\"text\": \"\"}\r\n{\"text\": \"z\"}");
  Options options;
  options.key = "text";
  EXPECT_HAS(imported({folder / "a.jsonl"}, folder / "t.h5", options), "left out 1 empty document\n");
  EXPECT_EQ(documents(folder / "t.h5"), (Texts{"x\ny é|", "z|"}));
  EXPECT_EQ(text_bytes(folder / "t.h5"), 7);
}

/// The text of a long file is cut for several threads; its ids are those of the whole, and so are the file's bytes.
TEST(ImportText, ThreadsChangeNothing) {
  const Folder folder;
  std::string text;
  for (int i = 0; text.size() < 2'200'000; ++i)
    text += testing::golden_text(i % 3 == 0   ? "english"
                                 : i % 3 == 1 ? "blanks"
                                              : "other scripts") +
            "\nI'll\n\n  go\r\n" + std::to_string(i);
  const std::string last = "the end\n";
  write_text(folder / "long.txt", text);
  write_text(folder / "short.txt", last);
  for (const char* name : {"gpt2 rule", "llama3 rule", "uncased"}) {
    write_text(folder / "tokenizer.json", golden_definition(name).dump());
    Options options;
    options.tokenizer = folder / "tokenizer.json";
    for (const int threads : {1, 5}) {
      options.threads = threads;
      imported({folder / "long.txt", folder / "short.txt"}, folder / std::to_string(threads), options);
    }
    EXPECT_EQ(content_of(folder / "1"), content_of(folder / "5")) << name;
    EXPECT_EQ(text_bytes(folder / "1"), static_cast<double>(text.size() + last.size()));
    const auto tokenizer = golden_tokenizer(name);
    std::vector<std::int64_t> offsets{0};
    std::vector<TokenId> ids;
    const auto encoder = tokenizer->encoder();
    for (const std::string& document : {text, last}) {
      encoder->encode(document, ids);
      ids.push_back(*tokenizer->end_of_text());
      offsets.push_back(static_cast<std::int64_t>(ids.size()));
    }
    const auto tokens = read<std::uint16_t>(folder / "1", "tokens");
    EXPECT_TRUE(std::equal(ids.begin(), ids.end(), tokens.begin(), tokens.end())) << name;
    EXPECT_EQ(read<std::int64_t>(folder / "1", "document_offsets"), offsets) << name;
  }
}

TEST(ImportText, ManyIdsNeed32Bits) {
  const Folder folder;
  auto definition = golden_definition("gpt2 rule");
  definition["added_tokens"].push_back({{"id", 70000}, {"content", "<far>"}, {"special", false}});
  write_text(folder / "tokenizer.json", definition.dump());
  write_text(folder / "a", "a<far>b");
  Options options;
  options.tokenizer = folder / "tokenizer.json";
  EXPECT_HAS(imported({folder / "a"}, folder / "t.h5", options), "(uint32)");
  EXPECT_EQ(read<std::uint32_t>(folder / "t.h5", "tokens")[1], 70000u);
  EXPECT_EQ(documents(folder / "t.h5"), Texts{"a<far>b|"});
}

TEST(ImportText, SaysWhatIsWrongAndWhere) {
  const Folder folder;
  write_text(folder / "tokenizer.json", golden_definition("gpt2 rule").dump());
  Options words, lines, json;
  words.tokenizer = lines.tokenizer = folder / "tokenizer.json";
  lines.document = Options::Document::line;
  json.key = "text";
  const auto refused = [&](const std::string& text, const Options& options) {
    write_text(folder / "a.txt", text);
    return message_of([&] { imported({folder / "a.txt"}, folder / "t.h5", options); });
  };
  EXPECT_HAS(refused("ok\nb\xFFy", words), "a.txt: byte 4 of its text, 0xff, is not UTF-8; convert the file to UTF-8");
  EXPECT_HAS(refused("ok\nb\xC3", lines), "a.txt: byte 4 of its text, 0xc3, is not UTF-8");
  EXPECT_HAS(refused(std::string(3'000'000, 'x') + "\xFF", words), "a.txt: byte 3000000 of its text");
  EXPECT_HAS(refused("", words), "a.txt: is empty");
  EXPECT_HAS(refused("\n \n", lines), "a.txt: holds no text");
  EXPECT_HAS(refused("{\"text\": \"a\"}\n\n{\"text\"", json), "a.txt:3: this line is no JSON");
  EXPECT_HAS(refused("[1]", json), "a.txt:1: expected a JSON object with the key text");
  EXPECT_HAS(refused("{\"body\": 1, \"id\": 2}", json), "a.txt:1: has no key text; its keys are body, id");
  EXPECT_HAS(refused("{\"text\": 5}", json), "a.txt:1: text is no text but number");
  EXPECT_HAS(refused("{\"text\": \"\xFF\"}", json), "a.txt:1: this line is no JSON");
  json.document = Options::Document::file;
  EXPECT_THROW(refused("{}", json), ConfigError);
  write_text(folder / "a.jsonl", "{}");
  EXPECT_THROW(imported({folder / "a.jsonl"}, folder / "t.h5"), ConfigError);  // which key?
  EXPECT_HAS(message_of([&] { imported({folder / "none"}, folder / "t.h5"); }), "none: No such file");
  for (const auto& entry : std::filesystem::directory_iterator(folder / ""))
    EXPECT_EQ(entry.path().string().find("t.h5"), std::string::npos) << entry.path();
}

TEST(ImportText, AFileOfTokensKnowsItsTokenizer) {
  const Folder folder;
  write_text(folder / "a", "abc");
  imported({folder / "a"}, folder / "t.h5");
  const h5::File file(folder / "t.h5");
  auto tokens = find_tokens(file);
  ASSERT_TRUE(tokens);
  EXPECT_EQ(stored_tokenizer(file, *tokens)->hash(), tokens->tokenizer_hash);
  tokens->tokenizer_hash = "0123456789abcdef";
  EXPECT_HAS(message_of([&] { stored_tokenizer(file, *tokens); }), "but its tokens are of 0123456789abcdef");
}

TEST(ImportText, TellsHowFarItIs) {
  const Folder folder;
  write_text(folder / "a", std::string(100'000, 'x'));
  write_text(folder / "b", std::string(1'000, 'x'));
  std::uint64_t done = 0, all = 0;
  Options options;
  options.progress = [&](std::uint64_t now, std::uint64_t of) {
    EXPECT_GE(now, done);
    done = now;
    all = of;
  };
  imported({folder / "a", folder / "b"}, folder / "t.h5", options);
  EXPECT_EQ(done, 101'000u);
  EXPECT_EQ(all, 101'000u);
}

/// Texts of all shards that are there, in order.
Texts shard_texts(const Folder& folder, std::size_t& shards) {
  Texts all;
  for (shards = 0;; ++shards) {
    const std::string path = folder / fmt::format("t-{:05}.h5", shards);
    if (!std::filesystem::exists(path)) return all;
    for (std::string& text : documents(path)) all.push_back(std::move(text));
  }
}

TEST(ImportText, ShardsHoldWholeDocumentsAndGoOnWhereTheyEnded) {
  const Folder folder;
  std::string text;
  Texts lines;
  for (int i = 0; i < 250; ++i) {
    lines.push_back(fmt::format("line {}{:20000}", i, "."));
    text += lines.back() + (i % 7 == 0 ? "\r\n" : "\n");
    lines.back() += '|';
  }
  write_text(folder / "a", text);
  write_text(folder / "b", "the last one");
  lines.emplace_back("the last one|");
  const std::vector<std::string> files{folder / "a", folder / "b"};
  Options options;
  options.document = Options::Document::line;
  options.shard_tokens = 500'000;
  const std::string said = imported(files, folder / "t.h5", options);
  std::size_t shards = 0;
  EXPECT_TRUE(shard_texts(folder, shards) == lines);
  ASSERT_GE(shards, 3u);
  EXPECT_HAS(said, fmt::format("t-00000.h5 to {}: ", folder / fmt::format("t-{:05}.h5", shards - 1)));
  const auto first = content_of(folder / "t-00000.h5"), second = content_of(folder / "t-00001.h5");
  const auto time = std::filesystem::last_write_time(folder / "t-00000.h5");

  EXPECT_HAS(imported(files, folder / "t.h5", options),
             "kept what is there of this import: " + (folder / "t-00000.h5 to "));
  for (std::size_t shard = 1; shard < shards; ++shard)
    std::filesystem::remove(folder / fmt::format("t-{:05}.h5", shard));
  EXPECT_HAS(imported(files, folder / "t.h5", options),
             "kept what is there of this import: " + (folder / "t-00000.h5\n"));
  std::size_t again = 0;
  EXPECT_TRUE(shard_texts(folder, again) == lines);
  EXPECT_EQ(std::filesystem::last_write_time(folder / "t-00000.h5"), time);

  // Another import takes their place, and the shards that it does not have are removed.
  options.shard_tokens = 2'000'000;
  imported(files, folder / "t.h5", options);
  EXPECT_TRUE(shard_texts(folder, again) == lines);
  EXPECT_LT(again, shards);
  options.shard_tokens = 500'000;
  options.threads = 1;
  imported(files, folder / "t.h5", options);
  EXPECT_EQ(content_of(folder / "t-00000.h5"), first);
  EXPECT_EQ(content_of(folder / "t-00001.h5"), second);
}

}  // namespace
}  // namespace dtrain::io
