#include "io/text/tokenizer_spec.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <xxhash.h>

#include "io/text/byte_level.hpp"
#include "io/text/tokenizer_json.hpp"
#include "io/text/word_piece.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

/// GPT-2's, whatever files it comes from.
constexpr std::string_view gpt2_hash = "5dc80446aa073260";
constexpr std::string_view end_names[] = {"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]"};

bool stands_for_itself(std::uint32_t c) {
  return (c >= '!' && c <= '~') || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF);
}

template <class Vocabulary>
std::size_t size_with(const Vocabulary& vocabulary, const std::vector<AddedToken>& added) {
  std::size_t size = vocabulary.size();
  for (const AddedToken& token : added) size = std::max<std::size_t>(size, token.id + std::size_t{1});
  return size;
}

}  // namespace

std::uint32_t character_of_byte(unsigned char byte) noexcept {
  if (stands_for_itself(byte)) return byte;
  std::uint32_t before = 0;  // bytes that do not either
  for (std::uint32_t b = 0; b < byte; ++b) before += stands_for_itself(b) ? 0 : 1;
  return 256 + before;
}

bool bytes_of_characters(std::string_view token, std::string& bytes) {
  constexpr std::uint32_t characters = 256 + 68;
  static const auto byte_of = [] {
    std::array<std::int16_t, characters> table{};
    table.fill(-1);
    for (unsigned b = 0; b < 256; ++b)
      table[character_of_byte(static_cast<unsigned char>(b))] = static_cast<std::int16_t>(b);
    return table;
  }();
  bytes.clear();
  const char *at = token.data(), *const end = at + token.size();
  while (at < end) {
    const Character c = character_at(at, end);
    if (!c.valid || c.code >= characters || byte_of[c.code] < 0) return false;
    bytes += static_cast<char>(byte_of[c.code]);
    at += c.bytes;
  }
  return true;
}

TokenizerSpec bytes_spec() {
  ByteLevelSpec model;
  for (unsigned b = 0; b < 256; ++b)
    append_utf8(character_of_byte(static_cast<unsigned char>(b)), model.vocabulary.emplace_back());
  model.split = SplitRule::none;
  return {std::move(model), {{256, "<|endoftext|>", true}}, {}};
}

std::unique_ptr<Tokenizer> make_tokenizer(TokenizerSpec spec, const std::string& source) {
  std::sort(spec.added.begin(), spec.added.end(), [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  Tokenizer::About about;
  about.definition = to_json(spec);
  about.hash = fmt::format("{:016x}", XXH3_64bits(about.definition.data(), about.definition.size()));
  for (const std::string_view name : end_names) {
    const auto found = std::find_if(spec.added.begin(), spec.added.end(),
                                    [&](const AddedToken& token) { return token.content == name; });
    if (found == spec.added.end()) continue;
    about.end_of_text = found->id;
    break;
  }
  about.lines_apart = std::none_of(spec.added.begin(), spec.added.end(), [](const AddedToken& token) {
    return !token.special && token.content.find('\n') != token.content.npos;
  });
  if (auto* model = std::get_if<ByteLevelSpec>(&spec.model)) {
    // Without a rule the whole text is one word.
    about.lines_apart = about.lines_apart && (model->split != SplitRule::none || model->merges.empty());
    about.vocabulary = static_cast<TokenId>(size_with(model->vocabulary, spec.added));
    const bool bytes = model->merges.empty() && model->split == SplitRule::none && about.vocabulary == 257;
    about.name = bytes ? "bytes" : about.hash == gpt2_hash ? "gpt2" : fmt::format("bpe-{}", about.vocabulary);
    return std::make_unique<ByteLevelTokenizer>(std::move(about), std::move(*model), std::move(spec.added), source);
  }
  auto& model = std::get<WordPieceSpec>(spec.model);
  about.vocabulary = static_cast<TokenId>(size_with(model.vocabulary, spec.added));
  about.name = fmt::format("wordpiece-{}", about.vocabulary);
  return std::make_unique<WordPieceTokenizer>(std::move(about), std::move(model), std::move(spec.added), source);
}

}  // namespace dtrain::io
