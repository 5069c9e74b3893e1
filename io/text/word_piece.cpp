#include "io/text/word_piece.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include "io/text/unicode.hpp"
#include "io/text/word_cache.hpp"
#include "io/text/word_piece_tables.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

/// The last entry that begins at or before the character; null where there is none.
template <class Entry>
const Entry* last_before(std::span<const Entry> entries, std::uint32_t c, std::uint32_t Entry::*begin) {
  const auto after = std::upper_bound(entries.begin(), entries.end(), c,
                                      [&](std::uint32_t value, const Entry& entry) { return value < entry.*begin; });
  return after == entries.begin() ? nullptr : &*(after - 1);
}
bool holds(std::span<const CharacterRange> ranges, std::uint32_t c) {
  const CharacterRange* const range = last_before(ranges, c, &CharacterRange::first);
  return range != nullptr && c <= range->last;
}
/// Calls f for each character of the sequence that c becomes; false where it becomes none of these.
template <class F>
bool each_of(std::span<const CharacterSequence> sequences, std::uint32_t c, F&& f) {
  const CharacterSequence* const found = last_before(sequences, c, &CharacterSequence::from);
  if (found == nullptr || found->from != c) return false;
  for (const std::uint32_t to : found->to)
    if (to != 0) f(to);
  return true;
}

/// What tokenizers calls Chinese.
bool is_chinese(std::uint32_t c) {
  constexpr CharacterRange rows[] = {{0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},  {0x20000, 0x2A6DF},
                                     {0x2A700, 0x2B81F}, {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F}};
  return holds(rows, c);
}
/// Blanks of clean_text, which come before what is removed.
bool is_blank(std::uint32_t c) {
  return is_white_space(c) && c != 0xB && c != 0xC && c != 0x85;
}

template <class F>
void lowered(std::uint32_t c, F&& f) {
  const WordPieceTables& tables = word_piece_tables();
  if (each_of(tables.lower_several, c, f)) return;
  const CharacterMapping* const found = last_before(tables.lower, c, &CharacterMapping::first);
  const bool mapped = found != nullptr && c <= found->last && (c - found->first) % found->step == 0;
  f(mapped ? static_cast<std::uint32_t>(static_cast<std::int64_t>(c) + found->add) : c);
}

template <class F>
void without_accents(std::uint32_t c, F&& f) {
  constexpr std::uint32_t hangul = 0xAC00, syllables = 11172, leads = 0x1100, vowels = 0x1161, tails = 0x11A7;
  constexpr std::uint32_t of_a_vowel = 28, of_a_lead = 588;
  if (c >= hangul && c < hangul + syllables) {
    const std::uint32_t i = c - hangul;
    f(leads + i / of_a_lead);
    f(vowels + i % of_a_lead / of_a_vowel);
    if (i % of_a_vowel != 0) f(tails + i % of_a_vowel);
    return;
  }
  const WordPieceTables& tables = word_piece_tables();
  if (holds(tables.marks, c) || each_of(tables.bare_several, c, f)) return;
  const CharacterPair* const found = last_before(word_piece_bare(), c, &CharacterPair::from);
  f(found != nullptr && found->from == c ? found->to : c);
}

bool is_ascii_punctuation(unsigned char c) {
  return (c >= 33 && c < 48) || (c >= 58 && c < 65) || (c >= 91 && c < 97) || (c >= 123 && c < 127);
}

}  // namespace

class WordPieceTokenizer::WordEncoder : public Encoder {
 public:
  WordEncoder(const WordPieceTokenizer& of, SpecialTokens special) : of_(of), added_(of.added_, special) {}
  void encode(std::string_view text, std::vector<TokenId>& ids) override {
    added_.split(
        text,
        [&](std::string_view part) {
          fold(part);
          words_of(ids);
        },
        [&](TokenId id) { ids.push_back(id); });
  }

 private:
  void fold(std::string_view text);
  void fold_other(std::uint32_t c);
  void words_of(std::vector<TokenId>& ids);
  void word_to(std::string_view word, std::vector<TokenId>& ids);
  /// False where the word is unknown.
  bool cut(std::string_view word, std::vector<TokenId>& ids) const;

  const WordPieceTokenizer& of_;
  AddedTokens added_;
  WordCache cache_;
  std::string folded_;
};

void WordPieceTokenizer::WordEncoder::fold_other(std::uint32_t c) {
  const WordPieceSpec& spec = of_.spec_;
  if (spec.clean_text) {
    if (is_blank(c)) {
      folded_ += ' ';
      return;
    }
    if (holds(word_piece_tables().removed, c)) return;
  }
  const bool apart = spec.chinese_apart && is_chinese(c);
  if (apart) folded_ += ' ';
  const auto put = [this](std::uint32_t to) { append_utf8(to, folded_); };
  const auto lower = [&](std::uint32_t to) {
    if (spec.lowercase) {
      lowered(to, put);
    } else {
      put(to);
    }
  };
  if (spec.strip_accents) {
    without_accents(c, lower);
  } else {
    lower(c);
  }
  if (apart) folded_ += ' ';
}

void WordPieceTokenizer::WordEncoder::fold(std::string_view text) {
  folded_.clear();
  const char *at = text.data(), *const end = at + text.size();
  while (at < end) {
    const char c = *at;
    if (c >= ' ' && c < 127) {
      folded_ += of_.spec_.lowercase && c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
      ++at;
      continue;
    }
    const Character next = character_at(at, end);
    fold_other(next.valid ? next.code : 0xFFFD);
    at += next.bytes;
  }
}

void WordPieceTokenizer::WordEncoder::words_of(std::vector<TokenId>& ids) {
  const char *at = folded_.data(), *const end = at + folded_.size(), *begin = at;
  const auto finish = [&](const char* last) {
    if (last > begin) word_to({begin, static_cast<std::size_t>(last - begin)}, ids);
  };
  while (at < end) {
    const auto byte = static_cast<unsigned char>(*at);
    std::size_t bytes = 1;
    bool blank = byte == ' ', apart = is_ascii_punctuation(byte);
    if (byte >= 0x80 || byte < ' ') {
      const Character c = character_at(at, end);
      bytes = c.bytes;
      blank = is_white_space(c.code);
      apart = !blank && holds(word_piece_tables().punctuation, c.code);
    }
    if (blank || apart) {
      finish(at);
      begin = at + bytes;
      if (apart) word_to({at, bytes}, ids);
    }
    at += bytes;
  }
  finish(end);
}

void WordPieceTokenizer::WordEncoder::word_to(std::string_view word, std::vector<TokenId>& ids) {
  const std::size_t before = ids.size();
  const auto compute = [&] {
    if (cut(word, ids)) return;
    ids.resize(before);
    ids.push_back(of_.unknown_);
  };
  if (word.size() > WordCache::longest) return compute();
  const WordCache::Key key = WordCache::key_of(word);
  if (const WordCache::Line* line = cache_.find(word, key)) {
    ids.insert(ids.end(), line->ids.begin(), line->ids.begin() + line->count);
    return;
  }
  compute();
  cache_.put(word, key, std::span(ids).subspan(before));
}

bool WordPieceTokenizer::WordEncoder::cut(std::string_view word, std::vector<TokenId>& ids) const {
  const auto begins_character = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; };
  if (static_cast<std::size_t>(std::count_if(word.begin(), word.end(), begins_character)) > of_.spec_.longest_word)
    return false;
  const Pieces* pieces = &of_.begins_;
  while (!word.empty()) {
    std::size_t bytes = std::min(word.size(), of_.longest_piece_);
    Pieces::const_iterator found;
    for (; bytes > 0; --bytes) {
      if (bytes < word.size() && !begins_character(word[bytes])) continue;
      found = pieces->find(word.substr(0, bytes));
      if (found != pieces->end()) break;
    }
    if (bytes == 0) return false;
    ids.push_back(found->second);
    word.remove_prefix(bytes);
    pieces = &of_.continues_;
  }
  return true;
}

WordPieceTokenizer::WordPieceTokenizer(About about, WordPieceSpec spec, std::vector<AddedToken> added,
                                       const std::string& source)
    : Tokenizer(std::move(about)), spec_(std::move(spec)), added_(std::move(added)) {
  spec_.vocabulary.resize(vocabulary());
  for (std::size_t i = 0; i < spec_.vocabulary.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const std::string_view token = spec_.vocabulary[i];
    if (token.empty()) continue;
    longest_piece_ = std::max(longest_piece_, token.size());
    begins_.emplace(token, id);
    if (token.starts_with(spec_.continues)) continues_.emplace(token.substr(spec_.continues.size()), id);
  }
  const auto unknown = begins_.find(spec_.unknown);
  if (unknown == begins_.end())
    throw DataError(
        fmt::format("{}: the vocabulary has no token {}, which unknown words become", source, spec_.unknown));
  unknown_ = unknown->second;
  for (const AddedToken& token : added_) spec_.vocabulary[token.id] = token.content;
}

std::unique_ptr<Encoder> WordPieceTokenizer::encoder(SpecialTokens special) const {
  return std::make_unique<WordEncoder>(*this, special);
}

std::string_view WordPieceTokenizer::piece(TokenId id) const {
  if (id >= spec_.vocabulary.size() || spec_.vocabulary[id].empty()) no_such_id(id);
  return spec_.vocabulary[id];
}

std::string WordPieceTokenizer::decode(std::span<const TokenId> ids) const {
  // As the decoder of tokenizers does with `cleanup`, each token by itself.
  constexpr std::array<std::array<std::string_view, 2>, 11> cleaned{{{" .", "."},
                                                                     {" ?", "?"},
                                                                     {" !", "!"},
                                                                     {" ,", ","},
                                                                     {" ' ", "'"},
                                                                     {" n't", "n't"},
                                                                     {" 'm", "'m"},
                                                                     {" do not", " don't"},
                                                                     {" 's", "'s"},
                                                                     {" 've", "'ve"},
                                                                     {" 're", "'re"}}};
  std::string text;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::string_view token = piece(ids[i]);
    std::string part;
    if (i == 0) {
      part = token;
    } else if (token.starts_with(spec_.continues)) {
      part = token.substr(spec_.continues.size());
    } else {
      part = fmt::format(" {}", token);
    }
    for (const auto& [from, to] : cleaned)
      for (std::size_t at = part.find(from); at != part.npos; at = part.find(from, at + to.size()))
        part.replace(at, from.size(), to);
    text += part;
  }
  return text;
}

}  // namespace dtrain::io
