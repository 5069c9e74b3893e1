// What is committed or printed beside the parser keeps up with it: the schema, the reference page and the recipes.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <variant>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "launch/config/config_file.hpp"
#include "models/families/families.hpp"
#include "models/layers/layer_fields.hpp"

namespace dtrain::launch {
namespace {

TEST(ConfigFile, TheSchemaNamesEveryKey) {
  const auto schema = nlohmann::json::parse(config_schema());
  EXPECT_EQ(schema.at("required"), (nlohmann::json{"model", "data"}));
  EXPECT_EQ(schema.at("additionalProperties"), false);
  const auto& properties = schema.at("properties");
  for (const char* key : {"name", "seed", "device", "precision", "threads", "model", "data", "batch", "optimizer",
                          "schedule", "train", "communication", "checkpoint", "deterministic", "log"}) {
    EXPECT_TRUE(properties.contains(key)) << key;
    EXPECT_FALSE(properties.at(key).at("description").get<std::string>().empty());
  }
  EXPECT_EQ(properties.at("batch").at("properties").at("global").at("minimum"), 1);
  EXPECT_EQ(properties.at("optimizer").at("oneOf").size(), 7u);
  const std::string kinds = models::layer_type()->expected();
  EXPECT_EQ(properties.at("model").at("properties").at("layers").at("items").at("oneOf").size(),
            2u + static_cast<std::size_t>(std::count(kinds.begin(), kinds.end(), ',')));  // and the bare words
  const auto& model = properties.at("model");
  EXPECT_EQ(model.at("allOf").at(0).dump(), R"({"anyOf":[{"required":["input"]},{"required":["inputs"]}]})");
  constexpr std::size_t nets = std::variant_size_v<models::Family>;  // layers or a family; no two of them,
  EXPECT_EQ(model.at("allOf").at(1).at("anyOf").size(), nets);
  EXPECT_EQ(model.at("not").at("anyOf").size(), nets * (nets - 1) / 2 + 2);  // nor of input, inputs and loss, losses
  EXPECT_EQ(model.at("properties").at("resnet").at("properties").at("depth").at("enum"), (nlohmann::json{18, 34, 50}));
}

TEST(ConfigFile, TheCommittedReferenceIsUpToDate) {
  std::ifstream in("launch/CONFIG.md");
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  EXPECT_EQ(text, config_reference()) << "run: dtrain config schema --markdown > launch/CONFIG.md";
}

TEST(ConfigFile, TheRecipesLoad) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("models/recipes")) {
    if (entry.path().extension() != ".yaml") continue;
    EXPECT_NO_THROW({
      const LoadedConfig c = load_config(entry.path().string());
      EXPECT_EQ(c.config.name, entry.path().stem());
    }) << entry.path();
    ++count;
  }
  EXPECT_GE(count, 8);
}

}  // namespace
}  // namespace dtrain::launch
