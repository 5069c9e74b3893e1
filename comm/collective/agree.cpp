#include "comm/collective/agree.hpp"

#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

void agree_on(Group& group, const std::string& host, std::span<const Fact> facts) {
  using Json = nlohmann::json;
  std::vector<std::string> mine{host};
  for (const Fact& fact : facts) mine.insert(mine.end(), {fact.name, fact.value});
  std::vector<std::vector<std::string>> all;
  for (const std::string& text : group.all_gather(Json(mine).dump(-1, ' ', false, Json::error_handler_t::replace)))
    all.push_back(Json::parse(text));

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
