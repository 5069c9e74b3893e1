#include "io/text/tokenizer_files.hpp"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "io/text/tokenizer_json.hpp"
#include "io/text/tokenizer_spec.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

namespace fs = std::filesystem;
using Ids = std::unordered_map<std::string_view, TokenId>;

constexpr std::uint64_t most_bytes = std::uint64_t{256} << 20;  // of a file
constexpr std::string_view special_names[] = {
    "<|endoftext|>", "<|end_of_text|>", "<|begin_of_text|>", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
constexpr std::array<std::array<const char*, 2>, 2> pairs{
    {{"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}}};

bool is_file(const fs::path& path) {
  std::error_code none;
  return fs::is_regular_file(path, none);
}

std::string read_file(const fs::path& path) {
  std::error_code failed;
  const std::uint64_t bytes = fs::file_size(path, failed);
  if (failed) throw DataError(fmt::format("{}: {}", path.string(), failed.message()));
  if (bytes > most_bytes)
    throw DataError(
        fmt::format("{}: has {} bytes; a tokenizer's file has at most {}", path.string(), bytes, most_bytes));
  std::string text(bytes, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(text.data(), static_cast<std::streamsize>(bytes)))
    throw DataError(fmt::format("{}: cannot be read: {}", path.string(), std::strerror(errno)));
  return text;
}

/// Calls f(line, number from 1) for each; a line does not have its end.
template <class F>
void each_line(std::string_view text, F&& f) {
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    f(line, number);
  }
}

Ids ids_of(const std::vector<std::string>& vocabulary) {
  Ids ids;
  for (std::size_t id = 0; id < vocabulary.size(); ++id) ids.emplace(vocabulary[id], static_cast<TokenId>(id));
  return ids;
}

std::vector<AddedToken> special_of(const Ids& ids) {
  std::vector<AddedToken> added;
  for (const std::string_view name : special_names)
    if (const auto found = ids.find(name); found != ids.end())
      added.push_back({found->second, std::string(name), true});
  return added;
}

/// vocab.json or encoder.json, and merges.txt or vocab.bpe. The model is given to the reader of tokenizer.json.
TokenizerSpec from_pair(const fs::path& vocabulary, const fs::path& merges) {
  const std::string list = read_file(merges);
  nlohmann::json lines = nlohmann::json::array();
  each_line(list, [&](std::string_view line, std::size_t number) {
    if (line.empty() || line.starts_with("#version")) return;
    const std::size_t blank = line.find(' ');
    if (blank == 0 || blank == line.npos || blank + 1 == line.size() || line.find(' ', blank + 1) != line.npos)
      throw DataError(fmt::format("{}:{}: expected two tokens with one blank between them", merges.string(), number));
    lines.push_back(std::string(line));
  });
  nlohmann::json all;
  all["model"] = {
      {"type", "BPE"}, {"vocab", parse_json(read_file(vocabulary), vocabulary.string())}, {"merges", lines}};
  all["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  TokenizerSpec spec = tokenizer_from_json(all, fmt::format("{} and {}", vocabulary.string(), merges.string()));
  spec.added = special_of(ids_of(std::get<ByteLevelSpec>(spec.model).vocabulary));
  return spec;
}

/// vocab.txt, a token a line; a tokenizer_config.json beside it says whether case counts.
TokenizerSpec from_lines(const fs::path& path) {
  const std::string text = read_file(path);
  WordPieceSpec model;
  each_line(text, [&](std::string_view line, std::size_t) { model.vocabulary.emplace_back(line); });
  const Ids ids = ids_of(model.vocabulary);
  if (!ids.contains(model.unknown))
    throw DataError(fmt::format("{}: has no line {}; expected the vocabulary of a WordPiece tokenizer, a token a line",
                                path.string(), model.unknown));
  if (const fs::path about = path.parent_path() / "tokenizer_config.json"; is_file(about)) {
    const auto config = nlohmann::json::parse(read_file(about), nullptr, false);
    const auto flag = [&](const char* name, bool otherwise) {
      return config.is_object() && config.contains(name) && config[name].is_boolean() ? config[name].get<bool>()
                                                                                      : otherwise;
    };
    model.lowercase = flag("do_lower_case", true);
    model.strip_accents = flag("strip_accents", model.lowercase);
    model.chinese_apart = flag("tokenize_chinese_chars", true);
  }
  TokenizerSpec spec;
  spec.added = special_of(ids);
  const auto cls = ids.find("[CLS]"), sep = ids.find("[SEP]");
  if (cls != ids.end() && sep != ids.end()) spec.post_processor = bert_post_processor(cls->second, sep->second);
  spec.model = std::move(model);
  return spec;
}

TokenizerSpec from_folder(const fs::path& folder) {
  if (is_file(folder / "tokenizer.json")) {
    const fs::path path = folder / "tokenizer.json";
    return tokenizer_from_text(read_file(path), path.string());
  }
  for (const auto& [vocabulary, merges] : pairs)
    if (is_file(folder / vocabulary) && is_file(folder / merges))
      return from_pair(folder / vocabulary, folder / merges);
  if (is_file(folder / "vocab.txt")) return from_lines(folder / "vocab.txt");
  throw DataError(
      fmt::format("{}: has no tokenizer; expected tokenizer.json, vocab.json and merges.txt, encoder.json and "
                  "vocab.bpe, or vocab.txt",
                  folder.string()));
}

TokenizerSpec from_file(const fs::path& path) {
  const std::string name = path.filename().string();
  for (const auto& [vocabulary, merges] : pairs) {
    if (name != vocabulary && name != merges) continue;
    const fs::path one = path.parent_path() / vocabulary, other = path.parent_path() / merges;
    for (const fs::path& needed : {one, other})
      if (!is_file(needed))
        throw DataError(fmt::format("{}: is not there; {} is one of two files, {} and {}", needed.string(), name,
                                    vocabulary, merges));
    return from_pair(one, other);
  }
  return path.extension() == ".txt" ? from_lines(path) : tokenizer_from_text(read_file(path), path.string());
}

std::vector<fs::path> places_of_gpt2() {
  std::vector<fs::path> places{"data/gpt2"};
  const char *const data = std::getenv("XDG_DATA_HOME"), *const home = std::getenv("HOME");
  if (data != nullptr && *data != '\0') {
    places.emplace_back(fs::path(data) / "dtrain/gpt2");
  } else if (home != nullptr && *home != '\0') {
    places.emplace_back(fs::path(home) / ".local/share/dtrain/gpt2");
  }
  return places;
}

std::unique_ptr<Tokenizer> open_gpt2() {
  std::vector<std::string> looked;
  for (const fs::path& folder : places_of_gpt2()) {
    looked.push_back(folder.string());
    std::error_code none;
    if (!fs::is_directory(folder, none)) continue;
    auto tokenizer = make_tokenizer(from_folder(folder), folder.string());
    if (tokenizer->name() != "gpt2")
      throw DataError(fmt::format("{}: the tokenizer here is not GPT-2's but {}; to use it, say --tokenizer {}",
                                  folder.string(), tokenizer->name(), folder.string()));
    return tokenizer;
  }
  throw DataError(
      fmt::format("the tokenizer gpt2 needs two files, encoder.json and vocab.bpe of OpenAI's GPT-2 (or vocab.json "
                  "and merges.txt of Hugging Face's gpt2); put them into {}, or name the folder that has them: "
                  "--tokenizer FOLDER",
                  fmt::join(looked, " or ")));
}

}  // namespace

std::unique_ptr<Tokenizer> open_tokenizer(const std::string& what) {
  if (what == "bytes") return make_tokenizer(bytes_spec(), what);
  if (what == "gpt2") return open_gpt2();
  std::error_code none;
  if (fs::is_directory(what, none)) return make_tokenizer(from_folder(what), what);
  if (!is_file(what))
    throw DataError(fmt::format("the tokenizer {} is not there; expected bytes, gpt2, a file or a folder", what));
  return make_tokenizer(from_file(what), what);
}

std::unique_ptr<Tokenizer> tokenizer_of(const std::string& definition, const std::string& source) {
  return make_tokenizer(tokenizer_from_text(definition, source), source);
}

}  // namespace dtrain::io
