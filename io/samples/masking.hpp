// Masked-language modelling (Devlin et al. 2019): which tokens of a sample are hidden, and what the model sees there.
// A Masking borrows the MaskTokens of its tokenizer; it draws by place alone, and any thread may use it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/text/tokenizer.hpp"
#include "runtime/random/rng.hpp"

namespace dtrain::io {

/// What masking must know of a tokenizer.
struct MaskTokens {
  TokenId mask = 0;
  bool whole_words = false;
  std::vector<bool> special;    // by id: never hidden
  std::vector<bool> continues;  // by id: not the first token of a word

  /// Throws DataError that names `source` where the tokenizer has no mask token, [MASK] or <mask>.
  static MaskTokens of(const Tokenizer&, bool whole_words, const std::string& source);
};

class Masking {
 public:
  static constexpr double hidden = 0.15, replaced = 0.8, random = 0.1;  // the last two of what is hidden

  Masking(const MaskTokens& tokens, std::uint64_t seed) : tokens_(tokens), key_(random_key(seed, Purpose::augment)) {}
  /// Every id is below.
  std::int64_t vocabulary() const noexcept { return static_cast<std::int64_t>(tokens_.special.size()); }

  /// Calls f(position, whether it is hidden, the id that the model reads there) for each of `count` tokens of a sample.
  /// A token may be overwritten when f is called for it.
  template <class T, class F>
  void apply(const T* ids, std::int64_t count, std::uint64_t index, std::uint64_t epoch, F f) const {
    bool inside = false, chosen = false;  // of a word; by the draw of its first token
    for (std::int64_t p = 0; p < count; ++p) {
      const auto id = static_cast<TokenId>(ids[p]);
      if (id >= tokens_.special.size() || tokens_.special[id]) {
        inside = false;
        f(p, false, id);
        continue;
      }
      const Random4 draw = draw4(key_, index, static_cast<std::uint32_t>(epoch), static_cast<std::uint32_t>(p));
      if (!tokens_.whole_words || !inside || !tokens_.continues[id])
        chosen = static_cast<double>(to_unit(draw.v[0])) < hidden;
      inside = true;
      f(p, chosen, chosen ? seen(id, draw) : id);
    }
  }

 private:
  TokenId seen(TokenId id, const Random4& draw) const noexcept;

  const MaskTokens& tokens_;
  const RandomKey key_;
};

}  // namespace dtrain::io
