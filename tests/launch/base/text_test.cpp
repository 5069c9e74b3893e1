#include "launch/base/text.hpp"

#include <cstdlib>

#include <gtest/gtest.h>

#include "launch/base/error_text.hpp"
#include "launch/config/config_file.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {
namespace {

TEST(CutQuotes, LeavesWhatPeopleRead) {
  EXPECT_EQ(cut_quotes("t.csv:2: \"a\" and \"b\": not a number"), "t.csv:2: \"a\" and \"b\": not a number");
  EXPECT_EQ(cut_quotes("don't \"open"), "don't \"open");
  EXPECT_EQ(cut_quotes(""), "");
  const std::string edge = '"' + std::string(200, 'x') + '"';
  EXPECT_EQ(cut_quotes(edge), edge);
}

TEST(CutQuotes, CutsACellThatIsAWholeFile) {
  const std::string cell(20'000'000, 'x');
  EXPECT_EQ(cut_quotes("row 1: \"" + cell + "\" is not a number, \"b\""),
            "row 1: \"" + std::string(200, 'x') + "...\" is not a number, \"b\"");
  EXPECT_EQ(cut_quotes("\"" + std::string(300, '\\') + "\""), "\"" + std::string(200, '\\') + "...\"");
  EXPECT_LT(cut_quotes(cell).size(), 4100u);
  // No character is cut in two.
  std::string umlauts = "x";
  for (int i = 0; i < 150; ++i) umlauts += "\xc3\xa4";
  EXPECT_EQ(cut_quotes('"' + umlauts + '"'), '"' + umlauts.substr(0, 199) + "...\"");
}

TEST(CutQuotes, ActsOnEveryError) {
  ExitCode code{};
  EXPECT_LT(error_text(DataError("t.csv: \"" + std::string(1 << 20, 'x') + "\""), code).size(), 300u);
}

class Paths : public testing::Test {
 protected:
  Paths() : home_(std::getenv("HOME") != nullptr ? std::getenv("HOME") : "") {
    setenv("HOME", "/home/a", 1);
    setenv("DTRAIN_TEST_DATA", "/data", 1);
    unsetenv("DTRAIN_TEST_NONE");
  }
  ~Paths() override {
    setenv("HOME", home_.c_str(), 1);
    unsetenv("DTRAIN_TEST_DATA");
  }
  std::string home_;
};

TEST_F(Paths, AreReplacedAsByAShell) {
  EXPECT_EQ(expand_path("~/x.h5"), "/home/a/x.h5");
  EXPECT_EQ(expand_path("~"), "/home/a");
  EXPECT_EQ(expand_path("$HOME/x"), "/home/a/x");
  EXPECT_EQ(expand_path("${DTRAIN_TEST_DATA}s/$DTRAIN_TEST_DATA"), "/datas//data");
  for (const char* as_it_is : {"x~/y", "~b", "a$", "a$/b", "${a", "runs/a"}) EXPECT_EQ(expand_path(as_it_is), as_it_is);
  EXPECT_THROW(expand_path("$DTRAIN_TEST_NONE/x"), ConfigError);
}

TEST_F(Paths, OfAConfigurationAreReplaced) {
  const std::string text = R"(name: a
model: {input: [1], layers: [dense: {units: 2}]}
data: {train: [~/a.h5, b.h5], eval: $DTRAIN_TEST_DATA/c.h5}
log: {directory: ~/runs/a}
)";
  const RunConfig c = parse_config(text, "c.yaml").config;
  EXPECT_EQ(c.data.train, (std::vector<std::string>{"/home/a/a.h5", "b.h5"}));
  EXPECT_EQ(c.data.eval.files, std::vector<std::string>{"/data/c.h5"});
  EXPECT_EQ(c.log.directory, "/home/a/runs/a");
  EXPECT_EQ(c.checkpoint.directory, "/home/a/runs/a/checkpoints");
  const std::string lacking[] = {"checkpoint.directory=$DTRAIN_TEST_NONE/x"};
  try {
    parse_config(text, "c.yaml", lacking);
    FAIL() << "expected a ConfigError";
  } catch (const ConfigError& e) {
    EXPECT_NE(std::string(e.what()).find(
                  "checkpoint.directory: \"$DTRAIN_TEST_NONE/x\": the environment has no variable DTRAIN_TEST_NONE"),
              std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace dtrain::launch
