#include "comm/collective/agree.hpp"

#include <cstring>
#include <vector>

#include <fmt/format.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

namespace {

// Each string as "<length>:<bytes>": independent of the version of either side.
void append(std::string& out, const std::string& text) {
  out += fmt::format("{}:", text.size());
  out += text;
}

std::vector<std::string> split(const std::string& packed) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at < packed.size();) {
    const std::size_t colon = packed.find(':', at);
    if (colon == std::string::npos) break;
    const std::size_t length = std::stoul(packed.substr(at, colon - at));
    out.push_back(packed.substr(colon + 1, length));
    at = colon + 1 + length;
  }
  return out;
}

}  // namespace

void agree_on(Group& group, const std::string& host, std::span<const Fact> facts) {
  std::string mine;
  append(mine, host);
  for (const Fact& fact : facts) {
    append(mine, fact.name);
    append(mine, fact.value);
  }
  std::vector<std::vector<std::string>> all;
  for (const std::string& packed : group.all_gather(mine)) all.push_back(split(packed));

  for (std::size_t i = 1; i < all[0].size(); i += 2) {
    for (std::size_t rank = 1; rank < all.size(); ++rank) {
      const auto& theirs = all[rank];
      // Another version may compare other things: then the names differ, and that is the difference to tell.
      const std::string name = i < theirs.size() ? theirs[i] : "nothing";
      const std::string value = i + 1 < theirs.size() ? theirs[i + 1] : "nothing";
      if (name == all[0][i] && value == all[0][i + 1]) continue;
      std::size_t others = 0;
      for (std::size_t r = rank + 1; r < all.size(); ++r) {
        others += i + 1 >= all[r].size() || all[r][i + 1] != all[0][i + 1];
      }
      throw CommError(
          fmt::format("ranks disagree on {}: rank 0 (host {}) has {}, rank {} (host {}) has {}{}; start all "
                      "ranks with the same program and the same files",
                      all[0][i], all[0][0], all[0][i + 1], rank, theirs.at(0), value,
                      others ? fmt::format(", and so {} more", others) : ""),
          static_cast<int>(rank));
    }
  }
}

}  // namespace dtrain::comm
