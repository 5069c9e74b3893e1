#include "io/text/pretokenize.hpp"

namespace dtrain::io::words {

std::size_t contraction(const char* at, const char* end, bool any_case) noexcept {
  const auto letter = [&](int i) -> char {
    if (end - at <= i) return 0;
    const char c = at[i];
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
  };
  switch (letter(1)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    case 'r':
    case 'v':
      return letter(2) == 'e' ? 3 : 0;
    case 'l':
      return letter(2) == 'l' ? 3 : 0;
    default:
      break;
  }
  // The long s is an s of another case.
  constexpr std::string_view long_s = "'\xC5\xBF";
  return any_case && std::string_view(at, static_cast<std::size_t>(end - at)).starts_with(long_s) ? long_s.size() : 0;
}

const char* space_end(const char* at, const char* end) noexcept {
  const char *last = at, *before = at;  // where the last character of the run begins
  while (last < end) {
    const Next next = next_at(last, end);
    if (next.kind != CharacterClass::space) break;
    before = last;
    last += next.bytes;
  }
  return last == end || before == at ? last : before;
}

}  // namespace dtrain::io::words
