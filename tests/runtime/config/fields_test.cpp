// Tables of fields: former names and former words for values go on being read, and are never shown.
#include "runtime/config/fields.hpp"

#include <optional>
#include <string>

#include <gtest/gtest.h>

namespace dtrain {
namespace {

struct Norm {
  bool sync = false;
};

TypePtr<Norm> norm_table() {
  Table<Norm> table("A norm.");
  table.add("sync", &Norm::sync, boolean(), "over all ranks")
      .old_spelling("statistics", {{"micro", "false"}, {"global", "true"}});
  return shared(std::move(table));
}

/// What `{key: value}` gives, or nothing where it is refused.
std::optional<bool> sync_of(const std::string& key, Document value) {
  Norm norm;
  Reader reader;
  norm_table()->read(Document::map().set(key, std::move(value)), norm, reader);
  return reader.problems().empty() ? std::optional(norm.sync) : std::nullopt;
}

TEST(Fields, AnOldSpellingMayHaveOldWordsForValues) {
  EXPECT_EQ(sync_of("sync", Document::boolean(true)), true);
  EXPECT_EQ(sync_of("statistics", Document::string("global")), true);
  EXPECT_EQ(sync_of("statistics", Document::string("micro")), false);
  EXPECT_EQ(sync_of("statistics", Document::boolean(true)), true);
  EXPECT_EQ(sync_of("statistics", Document::string("loose")), std::nullopt);
  EXPECT_EQ(sync_of("sync", Document::string("global")), std::nullopt);  // words go with the name that they had
  EXPECT_EQ(to_flow(norm_table()->write(Norm{true})), "{sync: true}");
  EXPECT_EQ(to_json(norm_table()->schema()).find("statistics"), std::string::npos);
}

}  // namespace
}  // namespace dtrain
