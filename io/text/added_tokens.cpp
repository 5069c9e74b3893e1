#include "io/text/added_tokens.hpp"

#include <algorithm>

namespace dtrain::io {

AddedTokens::AddedTokens(const std::vector<AddedToken>& all, SpecialTokens special) {
  for (const AddedToken& token : all) {
    if (token.content.empty() || (token.special && special == SpecialTokens::as_text)) continue;
    tokens_.push_back(token);
    begins_[static_cast<unsigned char>(token.content[0])] = true;
  }
  std::stable_sort(tokens_.begin(), tokens_.end(),
                   [](const AddedToken& a, const AddedToken& b) { return a.content.size() > b.content.size(); });
}

const AddedToken* AddedTokens::find(std::string_view text) const noexcept {
  for (const AddedToken& token : tokens_)
    if (text.starts_with(token.content)) return &token;
  return nullptr;
}

}  // namespace dtrain::io
