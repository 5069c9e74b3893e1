#include "io/import/import_csv.hpp"

#include <cstring>
#include <filesystem>
#include <limits>

#include <fmt/format.h>
#include <zlib.h>

#include "io/dataset/dataset.hpp"
#include "io/dataset/inspect.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"

namespace dtrain::io {
namespace {

using testing::Folder;
using testing::message_of;

class ImportCsv : public ::testing::Test {
 protected:
  std::string put(const std::string& text, const std::string& name = "t.csv") {
    testing::spill(folder_ / name, {text.begin(), text.end()});
    return folder_ / name;
  }
  std::string import(const std::string& text, const CsvImportOptions& options = {}) {
    const std::string file = put(text);
    return import_csv(std::span(&file, 1), folder_ / "t.h5", options);
  }
  std::string refused(const std::string& text, const CsvImportOptions& options = {}) {
    std::filesystem::remove(folder_ / "t.h5");
    const std::string error = message_of([&] { import(text, options); });
    EXPECT_FALSE(std::filesystem::exists(folder_ / "t.h5"));
    return error.substr(error.rfind('/') + 1);
  }
  /// All features of the imported file.
  std::vector<float> features() {
    const Dataset set(std::vector<std::string>{folder_ / "t.h5"});
    std::vector<float> values;
    for (std::uint64_t i = 0; i < set.count(); ++i) {
      const auto* row = reinterpret_cast<const float*>(set.row(0, i, nullptr).data);
      values.insert(values.end(), row, row + set.port(0).row[0]);
    }
    return values;
  }
  std::vector<int> labels() {
    const Dataset set(std::vector<std::string>{folder_ / "t.h5"});
    std::vector<int> values;
    for (std::uint64_t i = 0; i < set.count(); ++i) values.push_back(set.label(1, i));
    return values;
  }
  Folder folder_;
};

TEST_F(ImportCsv, WordsAndNumbers) {
  CsvImportOptions options;
  options.label = "kind";
  EXPECT_HAS(import("\xef\xbb\xbf"
                    "a, \"b \"\"c\"\"\",kind\r\n1,2.5,dog\r\n-3e1 , +4,\"cat\"\r\n\r\n0.5,1e-400,dog\r\n",
                    options),
             "3 samples of 2 features (float32), 2 classes; the first line is a header");
  EXPECT_EQ(features(), (std::vector<float>{1, 2.5f, -30, 4, 0.5f, 0}));
  EXPECT_EQ(labels(), (std::vector<int>{1, 0, 1}));
  EXPECT_HAS(inspect(folder_ / "t.h5").text, "/feature_names string [2]");
  EXPECT_HAS(inspect(folder_ / "t.h5").text, "/class_names string [2]");
}

TEST_F(ImportCsv, IndicesTargetsAndSeveralFiles) {
  CsvImportOptions options;
  options.targets = {"-1", "0"};
  options.ignore = {"1"};
  options.delimiter = ';';
  const std::vector<std::string> files{put("1;2;3;4\n5;6;7;8", "a.csv"), put("9;10;11;12\n", "b.csv")};
  EXPECT_HAS(import_csv(files, folder_ / "t.h5", options), "3 samples of 1 features (float32), 2 targets; no header");
  EXPECT_EQ(features(), (std::vector<float>{3, 7, 11}));
  const Dataset set(std::vector<std::string>{folder_ / "t.h5"});
  float y[2];
  std::memcpy(y, set.row(1, 1, nullptr).data, sizeof y);
  EXPECT_EQ(y[0], 8);
  EXPECT_EQ(y[1], 5);
  // The same through gzip, a header in both files, and by name.
  const std::string text = "p;q;r;s\n1;2;3;4\n5;6;7;8\n";
  const gzFile gz = gzopen((folder_ / "c.csv.gz").c_str(), "wb");
  gzwrite(gz, text.data(), static_cast<unsigned>(text.size()));
  gzclose(gz);
  options.targets = {"s", "p"};
  options.ignore = {"q"};
  const std::vector<std::string> named{folder_ / "c.csv.gz", put("p;q;r;s\n9;10;11;12\n", "d.csv")};
  import_csv(named, folder_ / "t.h5", options);
  EXPECT_EQ(features(), (std::vector<float>{3, 7, 11}));
  const std::vector<std::string> other{folder_ / "c.csv.gz", put("p;q;r;x\n9;10;11;12\n", "e.csv")};
  EXPECT_HAS(message_of([&] { import_csv(other, folder_ / "x.h5", options); }),
             "e.csv:1:1: the columns are p, q, r, x, but p, q, r, s in ");
  // In another order, by name.
  const std::vector<std::string> turned{folder_ / "c.csv.gz", put("s;r;q;p\n12;11;10;9\n", "f.csv")};
  import_csv(turned, folder_ / "t.h5", options);
  EXPECT_EQ(features(), (std::vector<float>{3, 7, 11}));
}

TEST_F(ImportCsv, TheRuleOfTheHeaderIsSaid) {
  CsvImportOptions options;
  EXPECT_HAS(import("a,b\n1,2\n", options), "; the first line is a header: it holds words in place of numbers\n");
  EXPECT_HAS(import("0,1,2\n5,6,8\n", options),
             "1 samples of 3 features (float32); the first line is a header: it counts");
  EXPECT_HAS(import(",0,1,2\n0,5,6,8\n", options), "1 samples of 3 features (float32); the first line is a header: it");
  EXPECT_HAS(import("0,1\n5,6\n", options),
             "2 samples of 2 features (float32); no header: the first line is a sample\n");
  EXPECT_HAS(import("1,2,3\n5,6,7\n", options), "2 samples of 3 features (float32); no header");
  EXPECT_HAS(import("0,1,3\n5,6,7\n", options), "2 samples of 3");
  options.label = "-1";
  EXPECT_HAS(import("0,1,2,kind\n5,6,7,dog\n", options), "1 samples of 3 features (float32), 1 classes; the first");
  options.header = CsvImportOptions::Header::no;
  EXPECT_HAS(import("0,1,2\n5,6,1\n", options), "2 samples of 2 features (float32), 3 classes; no header: as --header");
}

TEST_F(ImportCsv, OddColumnsAreLeftOutOrNamed) {
  CsvImportOptions options;
  options.label = "y";
  EXPECT_HAS(import(",a,y\n7,1.5,0\n3,2.5,1\n", options),
             "left out column 0, which has no name: it is an index of the rows\n");
  EXPECT_EQ(features(), (std::vector<float>{1.5f, 2.5f}));
  EXPECT_HAS(import("Unnamed: 0,a,y,\n0,1.5,0,\n1,2.5,1,\n", options),
             "left out column 3, which has no name: it is empty");
  EXPECT_EQ(features(), (std::vector<float>{1.5f, 2.5f}));
  EXPECT_HAS(refused(",a,y\n7.5,1.5,0\n", options), "t.csv: column 0 has no name; give it one");
  const std::string text = import("id,c,a,y,z\n1,4,1.5,0,0\n2,4,2.5,1,1\n3,4,0,1,1\n", options);
  EXPECT_HAS(text, "column id counts the rows; --ignore id leaves it out\n");
  EXPECT_HAS(text, "column c has one value in all rows; --ignore c leaves it out\n");
  EXPECT_HAS(text, "column z is the label again; --ignore z leaves it out\n");
  EXPECT_EQ(text.find("column a "), text.npos);
  EXPECT_HAS(refused("y,a,y\n0,1,0\n", options), "t.csv:1:1: columns 0 and 2 are both called y; say the index");
  options.label = "0";
  options.ignore = {"2"};
  EXPECT_HAS(import("y,a,y\n0,1,0\n", options), "1 samples of 1 features");
}

/// The words of pandas 2's documentation of read_csv, na_values.
TEST_F(ImportCsv, MissingValuesAreThoseOfPandas) {
  CsvImportOptions options;
  options.label = "y";
  for (const char* word : {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
                           "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}) {
    const auto error = [&](const char* text) {
      return message_of([&] { import(fmt::format(fmt::runtime(text), word), options); });
    };
    EXPECT_HAS(error("a,y\n1,cat\n2,{}\n"), "1 rows with missing values") << word;
    EXPECT_HAS(error("a,y\n1,cat\n\"{}\",cat\n"), "1 rows with missing values") << word;
  }
  options.keep_words = true;
  EXPECT_HAS(import("a,y\n1,None\n2,cat\n", options), "2 samples of 1 features (float32), 2 classes");
}

TEST_F(ImportCsv, MistakesHaveLineAndColumn) {
  CsvImportOptions options;
  EXPECT_HAS(refused("a,b\n1,2\n3,x\n"), "t.csv:3:3: \"x\" is not a number (column b)");
  EXPECT_HAS(refused("1,2\n3,4,5\n"), "t.csv:2:5: there are 3 fields; expected 2, as in the first line");
  EXPECT_HAS(refused("1,2\n3\n"), "t.csv:2:1: there are 1 fields; expected 2");
  EXPECT_HAS(refused("1,2\n3,\"4\n"), "t.csv:2:3: a quote is not closed on its line");
  EXPECT_HAS(refused("1,2\n3,\"4\"5\n"), "t.csv:2:6: text follows a closed quote");
  EXPECT_HAS(refused("1,0x10\n"), "no rows");  // a word: the line is a header
  EXPECT_HAS(refused("1,2\n3,0x10\n"), "t.csv:2:3: \"0x10\" is not a number");
  EXPECT_HAS(refused(std::string("1,2\n3,\0004\n", 9)), "t.csv:2:3: there is a zero byte");
  EXPECT_HAS(refused(""), "t.csv: no rows");
  EXPECT_HAS(refused("a,b\n"), "t.csv: no rows");
  options.label = "c";
  EXPECT_HAS(refused("a,b\n1,2\n", options), "t.csv:1:1: there is no column c; the 2 columns are a, b");
  options.label = "2";
  EXPECT_HAS(refused("1,2\n", options), "t.csv:1:1: there is no column 2; the 2 columns are 0 to 1");
  options.label = "1";
  EXPECT_HAS(refused("1,2\n3,x\n", options), "t.csv:2:3: the label is x, but labels before it are numbers");
  EXPECT_HAS(refused("1,x\n3,4\n", options), "t.csv:2:3: the label is 4; expected a word, as before it");
  EXPECT_HAS(refused("1,2.5\n", options), "t.csv:1:3: the label is 2.5; expected an integer or a word");
  options.targets = {"0"};
  EXPECT_THROW(import("1,2\n", options), ConfigError);
  EXPECT_HAS(message_of([&] {
               const std::string none = folder_ / "none.csv";
               import_csv(std::span(&none, 1), folder_ / "x.h5", {});
             }),
             "none.csv: No such file");
}

TEST_F(ImportCsv, BadRowsAreCountedNamedRefusedOrDropped) {
  CsvImportOptions options;
  options.label = "2";
  options.classes = 3;
  const std::string text = "1,2,0\n,4,1\n5,nan,2\n7,8,3\n9,-inf,1\n11,1e39,0\n13,14,-1\n15,16,\n17,18,2\n";
  const std::string error = message_of([&] { import(text, options); });
  EXPECT_HAS(error, "2 labels out of range (");
  EXPECT_HAS(error, "t.csv:7:7: -1)");
  EXPECT_HAS(error, "5 rows with missing values or values that are not finite (");
  EXPECT_HAS(error, "t.csv:2:1: empty; ");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "t.h5"));
  options.on_error = OnError::drop;
  EXPECT_HAS(import(text, options), "2 samples of 2 features");
  EXPECT_EQ(features(), (std::vector<float>{1, 2, 17, 18}));
  EXPECT_EQ(labels(), (std::vector<int>{0, 2}));
  EXPECT_HAS(message_of([&] { import("nan,2,0\n", options); }), "no rows are left: 1 rows with missing values");
}

TEST_F(ImportCsv, ManyRowsInChunks) {
  std::string text;
  for (int i = 0; i < 30000; ++i) text += fmt::format("{},{},{}\n", i, i * 0.5, i % 7);
  CsvImportOptions options;
  options.label = "-1";
  options.storage = {1000, 1};
  EXPECT_HAS(import(text, options), "normalize: {scale: 1, mean: [1.5e+04, 7500], standard_deviation: [8660, 4330]}");
  EXPECT_HAS(inspect(folder_ / "t.h5").text, "/x float32 [30000, 2]  chunked [1000, 2], shuffle, gzip");
  const auto x = features();
  for (std::size_t i = 0; i < 30000; ++i) ASSERT_EQ(x[2 * i + 1], static_cast<float>(i) * 0.5f);
}

}  // namespace
}  // namespace dtrain::io
