#include "io/import/import_csv.hpp"

#include <cstring>
#include <filesystem>
#include <limits>

#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>
#include <zlib.h>

#include "io/dataset/dataset.hpp"
#include "io/dataset/inspect.hpp"
#include "io/hdf5/names.hpp"
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
  /// A zip archive of files.
  std::string zip(const std::string& name, const std::vector<std::pair<std::string, std::string>>& members) {
    archive* const a = archive_write_new();
    archive_write_set_format_zip(a);
    archive_write_open_filename(a, (folder_ / name).c_str());
    for (const auto& [path, text] : members) {
      archive_entry* const entry = archive_entry_new();
      archive_entry_set_pathname(entry, path.c_str());
      archive_entry_set_filetype(entry, AE_IFREG);
      archive_entry_set_perm(entry, 0644);
      archive_entry_set_size(entry, static_cast<la_int64_t>(text.size()));
      archive_write_header(a, entry);
      archive_write_data(a, text.data(), text.size());
      archive_entry_free(entry);
    }
    archive_write_free(a);
    return folder_ / name;
  }
  std::string import_file(const std::string& file, const CsvImportOptions& options = {}) {
    return import_csv(std::span(&file, 1), folder_ / "t.h5", options);
  }
  Folder folder_;
};

/// As UTF-16 of one byte order, without a mark.
std::string utf16(std::u16string_view text, bool little) {
  std::string bytes;
  for (const char16_t c : text) {
    const char low = static_cast<char>(c & 0xFF), high = static_cast<char>(c >> 8);
    bytes += little ? low : high;
    bytes += little ? high : low;
  }
  return bytes;
}

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

/// The words of pandas 2's documentation of read_csv, na_values; and the question mark of the UCI repository.
TEST_F(ImportCsv, MissingValuesAreThoseOfPandas) {
  CsvImportOptions options;
  options.label = "y";
  for (const char* word :
       {"",     "#N/A", "#N/A N/A", "#NA",  "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
        "<NA>", "N/A",  "NA",       "NULL", "NaN",     "None",     "n/a",  "nan",  "null",   "?"}) {
    const auto error = [&](const char* text) {
      return message_of([&] { import(fmt::format(fmt::runtime(text), word), options); });
    };
    EXPECT_HAS(error("a,y\n1,cat\n2,{}\n"), "1 rows with missing values") << word;
    EXPECT_HAS(error("a,y\n1,cat\n\"{}\",cat\n"), "1 rows with missing values") << word;
  }
  options.keep_words = true;
  EXPECT_HAS(import("a,y\n1,None\n2,cat\n", options), "2 samples of 1 features (float32), 2 classes");
}

TEST_F(ImportCsv, TruthValuesAreNumbersInFeaturesAndWordsInLabels) {
  CsvImportOptions options;
  options.label = "y";
  EXPECT_HAS(import("a,b,y\nTrue,1.5,True\nFALSE,2,False\ntrue,3,True\n", options), "2 features (float32), 2 classes");
  EXPECT_EQ(features(), (std::vector<float>{1, 1.5f, 0, 2, 1, 3}));
  EXPECT_EQ(labels(), (std::vector<int>{1, 0, 1}));  // False, True
  EXPECT_HAS(import("True,1\nFalse,2\n"), "2 samples of 2 features (float32); no header");
  import("a\n1\nTrue\n0\n");
  EXPECT_EQ(features(), (std::vector<float>{1, 1, 0}));
  const std::string mixed = refused("a\n1.5\nTrue\n");
  EXPECT_HAS(mixed, "t.csv:2:1) (column a)");
  EXPECT_HAS(message_of([&] { import("a\n1.5\nTrue\n"); }), "t.csv:3:1: True: the column mixes True or False (");
  EXPECT_HAS(refused("a,b\n1,2\n3,yes\n"), "t.csv:3:3: \"yes\" is not a number (column b)");
}

/// pandas writes 0.0 where a column of integers has a gap.
TEST_F(ImportCsv, LabelsMayBeWholeNumbersThatAreWrittenAsFloats) {
  CsvImportOptions options;
  options.label = "y";
  EXPECT_HAS(import("a,y\n1,0.0\n2,2.0\n3,1\n4,1e0\n", options), "4 samples of 1 features (float32), 3 classes");
  EXPECT_EQ(labels(), (std::vector<int>{0, 2, 1, 1}));
  EXPECT_HAS(refused("a,y\n1,0.0\n2,0.5\n", options), "t.csv:3:3: the label is 0.5; expected an integer or a word");
  EXPECT_HAS(message_of([&] { import("a,y\n1,0.0\n2,-1.0\n", options); }), "t.csv:3:3: -1.0)");
}

TEST_F(ImportCsv, LinesMayEndWithCarriageReturns) {
  for (const char* end : {"\n", "\r\n", "\r"}) {
    const std::string e = end;
    EXPECT_HAS(import("a,b" + e + "1,2" + e + e + "3,4"), "2 samples of 2 features") << e.size();
    EXPECT_EQ(features(), (std::vector<float>{1, 2, 3, 4}));
    EXPECT_HAS(refused("a,b" + e + "1,2" + e + "3,x" + e), "t.csv:3:3: \"x\" is not a number");
  }
  // A line end across two blocks of the reader.
  std::string text;
  for (int i = 0; i < 200000; ++i) text += "1,2\r\n";
  EXPECT_HAS(import(text + "3,4\r"), "200001 samples of 2 features");
}

TEST_F(ImportCsv, Utf16IsReadWhereItsMarkSaysSo) {
  CsvImportOptions options;
  options.label = "y";
  const std::u16string text = u"a,y\r\n1,caf\u00e9\r\n2,\u732b\r\n3,\U0001F408\r\n";
  for (const bool little : {true, false}) {
    EXPECT_HAS(import((little ? "\xff\xfe" : "\xfe\xff") + utf16(text, little), options),
               "1 features (float32), 3 classes");
    const h5::File file(folder_ / "t.h5");
    EXPECT_EQ(h5::read_names(file, "/class_names"), (std::vector<std::string>{"caf\u00e9", "\u732b", "\U0001F408"}));
    EXPECT_HAS(refused(utf16(text, little), options), "t.csv:1:");
    EXPECT_HAS(message_of([&] { import(utf16(text, little), options); }),
               "there are zero bytes; if this is UTF-16 without a byte order mark, save it as UTF-8");
  }
  EXPECT_HAS(refused("\xff\xfe" + utf16(u"1,2\n\xD83D,4\n", true)), "t.csv: is damaged or truncated after");
  EXPECT_HAS(refused("\xff\xfe" + utf16(u"1,2\n", true) + "3"), "half a character of UTF-16");
}

TEST_F(ImportCsv, TheDelimiterIsFoundOrSaid) {
  EXPECT_HAS(import("sep=;\na;b\n1;2\n"),
             "1 samples of 2 features (float32); the first line is a header: it holds words "
             "in place of numbers; fields are separated by ;\n");
  EXPECT_HAS(import("\xef\xbb\xbf\"sep=|\"\r\n1|2\r\n"), "1 samples of 2 features");
  EXPECT_HAS(import("a;b\n1;2\n"), "1 samples of 2 features");
  EXPECT_HAS(import("a\tb c\n1\t2\n"), "fields are separated by tabs");
  EXPECT_HAS(import("\"a;x\",\"b;y\"\n1,2\n"), "1 samples of 2 features");
  EXPECT_HAS(import("a;x,b\n1,2\n"), "1 samples of 2 features");
  EXPECT_HAS(import("a\n1\n2\n"), "2 samples of 1 features");
  CsvImportOptions options;
  options.label = "-1";
  EXPECT_HAS(import("1,2,fun|war\n3,4,war|fun\n", options), "2 samples of 2 features (float32), 2 classes");
  EXPECT_HAS(import("1,2,fun;war\n3,4,war;fun\n", options), "2 samples of 2 features (float32), 2 classes");
  options.delimiter = ',';
  EXPECT_HAS(refused("sep=;\n1;2\n", options), "t.csv:1:1: the first line says that ; stands between fields");
}

TEST_F(ImportCsv, DecimalCommasAreReadBesideSemicolons) {
  CsvImportOptions options;
  import("a;b\n1,5;-2\n3;0,25\n");
  EXPECT_EQ(features(), (std::vector<float>{1.5f, -2, 3, 0.25f}));
  EXPECT_HAS(import("1,5;2,5\n3,5;4,5\n"), "2 samples of 2 features");
  EXPECT_EQ(features(), (std::vector<float>{1.5f, 2.5f, 3.5f, 4.5f}));
  EXPECT_HAS(message_of([&] { import("a;b\n1,5;2\n3;0.25\n"); }),
             "t.csv:3:3: 0.25 has a decimal point, but there is a decimal comma at ");
  EXPECT_HAS(refused("a;b\n1.234,5;2\n"), "t.csv:2:1: \"1.234,5\" is not a number (column a); if the comma is");
  EXPECT_HAS(refused("a\tb\n1,5\t2\n"), "is not a number (column a); if the comma is a decimal sign, say --decimal");
  options.decimal = DecimalSign::comma;
  import("a\tb\n1,5\t2\n", options);
  EXPECT_EQ(features(), (std::vector<float>{1.5f, 2}));
  EXPECT_HAS(refused("a\tb\n1,5\t2.5\n", options), "\"2.5\" is not a number");
  options.decimal = DecimalSign::point;
  EXPECT_HAS(refused("a;b\n1,5;2\n", options), "\"1,5\" is not a number");
}

TEST_F(ImportCsv, AZipOfOneFileIsRead) {
  const std::string text = "a,b\n1,2\n3,4\n";
  EXPECT_HAS(import_file(zip("a.zip", {{"__MACOSX/._t.csv", "x"}, {"folder/t.csv", text}})), "2 samples of 2 features");
  EXPECT_EQ(features(), (std::vector<float>{1, 2, 3, 4}));
  EXPECT_HAS(message_of([&] {
               import_file(zip("b.zip", {{"t.csv", text}, {"u.csv", text}}));
             }),
             "b.zip: is an archive of 2 files (t.csv, u.csv); expected one: unpack it");
  EXPECT_HAS(message_of([&] {
               import_file(zip("c.xlsx", {{"[Content_Types].xml", "x"}, {"xl/sheet1.xml", "x"}}));
             }),
             "c.xlsx: is a workbook of Excel; save its sheet as CSV");
  std::vector<char> bytes = testing::slurp(folder_ / "a.zip");
  bytes.resize(bytes.size() / 2);
  testing::spill(folder_ / "d.zip", bytes);
  EXPECT_THROW(import_file(folder_ / "d.zip"), DataError);
}

TEST_F(ImportCsv, RowsOfPixelsBecomeImages) {
  CsvImportOptions options;
  options.label = "label";
  const std::string text = "label,pixel0,pixel1,pixel2,pixel3,pixel4,pixel5\n1,0,255,7,0,1,2\n0,3,4,5,6,0,9\n";
  options.shape = {2, 3};
  EXPECT_HAS(import(text, options),
             "2 images [1, 2, 3] (channels first, uint8), 2 classes; the first line is a header");
  {
    const Dataset set(std::vector<std::string>{folder_ / "t.h5"});
    EXPECT_EQ(set.port(0).row, (Shape{1, 2, 3}));
    EXPECT_EQ(set.port(0).type, StoredType::u8);
    EXPECT_EQ(set.port(0).layout, StoredLayout::channels_first);
    const auto* row = reinterpret_cast<const std::uint8_t*>(set.row(0, 0, nullptr).data);
    EXPECT_EQ(std::vector<int>(row, row + 6), (std::vector<int>{0, 255, 7, 0, 1, 2}));
    EXPECT_EQ(set.label(1, 1), 0);
  }
  options.shape = {1, 2};
  EXPECT_HAS(import("label,a,b\n1,0.5,255\n0,3,4\n", options), "channels first, float32)");
  options.shape = {3, 3};
  EXPECT_HAS(refused(text, options),
             "t.csv:1:1: there are 6 columns of features, but --shape 3,3 needs 9; name the other");
  options.shape = {3, 1, 2};
  EXPECT_HAS(message_of<ConfigError>([&] { import(text, options); }), "say --layout channels_last (r,g,b,r,g,b)");
  options.layout = StoredLayout::channels_last;
  EXPECT_HAS(import(text, options), "2 images [1, 2, 3] (channels last, uint8)");
  const Dataset set(std::vector<std::string>{folder_ / "t.h5"});
  EXPECT_EQ(set.port(0).row, (Shape{1, 2, 3}));
  EXPECT_EQ(set.port(0).layout, StoredLayout::channels_last);
  // Where nothing is said, the output tells of it.
  std::string names = "label", values = "1";
  for (int i = 0; i < 16; ++i) {
    names += fmt::format(",pixel{}", i);
    values += ",7";
  }
  options.shape.clear();
  EXPECT_HAS(import(names + "\n" + values + "\n", options), "the columns look like pixels; --shape 4,4 makes");
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
