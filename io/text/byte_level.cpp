#include "io/text/byte_level.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "io/text/word_cache.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

/// The token that each merge makes.
std::vector<TokenId> made_by(const ByteLevelSpec& spec, const std::string& source) {
  std::unordered_map<std::string_view, TokenId> ids;
  for (std::size_t id = 0; id < spec.vocabulary.size(); ++id)
    if (!spec.vocabulary[id].empty()) ids.emplace(spec.vocabulary[id], static_cast<TokenId>(id));
  std::vector<TokenId> to;
  to.reserve(spec.merges.size());
  for (const auto& [left, right] : spec.merges) {
    const std::string both = spec.vocabulary[left] + spec.vocabulary[right];
    const auto found = ids.find(both);
    if (found == ids.end())
      throw DataError(fmt::format("{}: the merge of {} and {} makes {}, which is not in the vocabulary", source,
                                  spec.vocabulary[left], spec.vocabulary[right], both));
    to.push_back(found->second);
  }
  return to;
}

}  // namespace

class ByteLevelTokenizer::WordEncoder : public Encoder {
 public:
  WordEncoder(const ByteLevelTokenizer& of, SpecialTokens special)
      : of_(of), added_(of.added_, special), merger_(of.merges_) {}
  void encode(std::string_view text, std::vector<TokenId>& ids) override {
    added_.split(
        text, [&](std::string_view part) { part_of(part, ids); }, [&](TokenId id) { ids.push_back(id); });
  }

 private:
  /// Text without added tokens.
  void part_of(std::string_view text, std::vector<TokenId>& ids) {
    if (!of_.digits_apart_) return words_of(text, ids);
    std::size_t begin = 0;
    const char* const end = text.data() + text.size();
    for (std::size_t at = 0; at < text.size();) {
      const words::Next next = words::next_at(text.data() + at, end);
      if (next.kind == CharacterClass::number) {
        words_of(text.substr(begin, at - begin), ids);
        words_of(text.substr(at, next.bytes), ids);
        begin = at + next.bytes;
      }
      at += next.bytes;
    }
    words_of(text.substr(begin), ids);
  }
  /// Ids are written behind `count` and then counted: cheaper than growing the vector by each word.
  void words_of(std::string_view text, std::vector<TokenId>& ids) {
    std::size_t count = ids.size();
    each_word(text, of_.split_, [&](std::string_view word) {
      const std::size_t most = count + std::max(word.size(), WordCache::most_ids);
      if (most > ids.size()) ids.resize(std::max(most, ids.size() + ids.size() / 2 + text.size() / 4));
      count += word_to(word, ids.data() + count);
    });
    ids.resize(count);
  }
  std::size_t word_to(std::string_view word, TokenId* to) {
    if (word.size() > WordCache::longest) return merged(word, to);
    const WordCache::Key key = WordCache::key_of(word);
    if (const WordCache::Line* line = cache_.find(word, key)) {
      std::copy(line->ids.begin(), line->ids.end(), to);
      return line->count;
    }
    const std::size_t count = merged(word, to);
    cache_.put(word, key, {to, count});
    return count;
  }
  std::size_t merged(std::string_view word, TokenId* to) {
    if (!of_.whole_.empty())
      if (const auto found = of_.whole_.find(word); found != of_.whole_.end()) {
        *to = found->second;
        return 1;
      }
    for (std::size_t i = 0; i < word.size(); ++i) to[i] = of_.bytes_[static_cast<unsigned char>(word[i])];
    return merger_.merge({to, word.size()});
  }

  const ByteLevelTokenizer& of_;
  AddedTokens added_;
  Merger merger_;
  WordCache cache_;
};

ByteLevelTokenizer::ByteLevelTokenizer(About about, ByteLevelSpec spec, std::vector<AddedToken> added,
                                       const std::string& source)
    : Tokenizer(std::move(about)),
      split_(spec.split),
      digits_apart_(spec.digits_apart),
      added_(std::move(added)),
      pieces_(vocabulary()),
      known_(vocabulary()),
      merges_(spec.merges, made_by(spec, source)) {
  std::array<bool, 256> there{};
  for (std::size_t id = 0; id < spec.vocabulary.size(); ++id) {
    const std::string& token = spec.vocabulary[id];
    if (token.empty()) continue;
    known_[id] = true;
    if (!bytes_of_characters(token, pieces_[id])) {
      pieces_[id] = token;
      continue;
    }
    if (pieces_[id].size() != 1) continue;
    const auto byte = static_cast<unsigned char>(pieces_[id][0]);
    bytes_[byte] = static_cast<TokenId>(id);
    there[byte] = true;
  }
  for (const AddedToken& token : added_) {
    pieces_[token.id] = token.content;
    known_[token.id] = true;
  }
  const auto missing = std::find(there.begin(), there.end(), false);
  if (missing != there.end())
    throw DataError(fmt::format("{}: the vocabulary has no token for byte {:#04x}; byte-level BPE needs all 256",
                                source, missing - there.begin()));
  if (spec.whole_words_first)
    for (std::size_t id = 0; id < spec.vocabulary.size(); ++id)
      if (!spec.vocabulary[id].empty()) whole_.emplace(pieces_[id], static_cast<TokenId>(id));
}

std::unique_ptr<Encoder> ByteLevelTokenizer::encoder(SpecialTokens special) const {
  return std::make_unique<WordEncoder>(*this, special);
}

std::string_view ByteLevelTokenizer::piece(TokenId id) const {
  if (id >= pieces_.size() || !known_[id]) no_such_id(id);
  return pieces_[id];
}

std::string ByteLevelTokenizer::decode(std::span<const TokenId> ids) const {
  std::string text;
  for (const TokenId id : ids) text += piece(id);
  return text;
}

}  // namespace dtrain::io
