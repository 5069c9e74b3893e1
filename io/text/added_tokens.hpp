// Finds added tokens in a text; what lies between them is for the tokenizer's model.
// An AddedTokens owns its names and does not change; any thread may use it.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "io/text/tokenizer_spec.hpp"

namespace dtrain::io {

class AddedTokens {
 public:
  /// Of these, all or those that are not special.
  AddedTokens(const std::vector<AddedToken>&, SpecialTokens);
  /// Calls text(part) for parts without a token and token(id) for tokens: the leftmost first, and of those that begin
  /// there the longest.
  template <class Text, class Token>
  void split(std::string_view all, Text&& text, Token&& token) const {
    std::size_t begin = 0;
    for (std::size_t at = next(all, 0); at < all.size(); at = next(all, at)) {
      const AddedToken* const found = find(all.substr(at));
      if (found == nullptr) {
        ++at;
        continue;
      }
      if (at > begin) text(all.substr(begin, at - begin));
      token(found->id);
      begin = at = at + found->content.size();
    }
    if (begin < all.size()) text(all.substr(begin));
  }

 private:
  /// The next place where a token may begin.
  std::size_t next(std::string_view all, std::size_t at) const noexcept {
    if (tokens_.empty()) return all.size();
    while (at < all.size() && !begins_[static_cast<unsigned char>(all[at])]) ++at;
    return at;
  }
  const AddedToken* find(std::string_view text) const noexcept;

  std::vector<AddedToken> tokens_;  // the longest first
  std::array<bool, 256> begins_{};
};

}  // namespace dtrain::io
