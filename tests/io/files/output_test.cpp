// What -o may name: never an input, by whatever name, and no file of the user's that is not HDF5.
#include "io/files/output.hpp"

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>

#include <gtest/gtest.h>

#include "io/checkpoint/checkpoint.hpp"
#include "io/import/import_csv.hpp"
#include "io/import/import_images.hpp"
#include "io/import/import_mnist.hpp"
#include "io/import/repack.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"

namespace dtrain::io {
namespace {

namespace fs = std::filesystem;
using testing::Folder;

std::string bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string refusal(const std::function<void()>& work) {
  try {
    work();
    return "nothing was thrown";
  } catch (const ConfigError& e) {
    return e.what();
  }
}

TEST(Output, IsNoInputUnderWhateverName) {
  const Folder folder;
  const std::string input = folder / "a.h5";
  make_regression(input, {});
  fs::create_symlink(input, folder / "link.h5");
  fs::create_hard_link(input, folder / "hard.h5");
  const std::string inputs[] = {folder / "missing.h5", input};
  EXPECT_EQ(refusal([&] { check_output(input, inputs); }), "-o " + input + ": that is the input; name another file");
  for (const std::string& other : {folder / "link.h5", folder / "hard.h5", folder / "./a.h5"})
    EXPECT_EQ(refusal([&] { check_output(other, inputs); }),
              "-o " + other + ": that is the input " + input + " under another name; name another file");
  EXPECT_NO_THROW(check_output(folder / "new.h5", inputs));
  fs::copy_file(input, folder / "copy.h5");
  EXPECT_NO_THROW(check_output(folder / "copy.h5", inputs));  // an older output is replaced
}

TEST(Output, DoesNotReplaceWhatIsNoHdf5File) {
  const Folder folder;
  std::ofstream(folder / "config.yaml") << "name: a\n";
  std::ofstream(folder / "empty") << "";  // of mktemp
  EXPECT_EQ(refusal([&] { check_output(folder / "config.yaml", {}); }),
            "-o " + (folder / "config.yaml") +
                ": this file is there already, and it is not an HDF5 file; name another file, or remove it");
  EXPECT_NO_THROW(check_output(folder / "config.yaml", {}, OutputKind::other));
  EXPECT_NO_THROW(check_output(folder / "empty", {}));
  EXPECT_EQ(refusal([] { check_output("/dev/null", {}); }),
            "-o /dev/null: this is not a regular file; name another file");
}

/// Each command that writes with -o, over what it reads.
TEST(Output, OfEveryCommandLeavesItsInputAsItWas) {
  const Folder folder;
  const std::string table = folder / "t.csv", set = folder / "a-00000-of-00002.h5";
  std::ofstream(table) << "a,y\n1,0\n2,1\n";
  make_regression(set, {});
  const std::string digits = "models/data/digits/t10k-images-idx3-ubyte.gz", copy = folder / "images.gz";
  fs::copy_file(digits, copy);
  CsvImportOptions csv;
  csv.label = "y";
  RepackOptions shards;
  shards.shards = 2;
  const std::string folder_of_images = folder / "photos";
  fs::create_directories(folder_of_images + "/cat");
  std::ofstream(folder_of_images + "/cat/1.png") << "an image";
  const std::vector<std::pair<std::string, std::function<void()>>> commands = {
      {table, [&] { import_csv({{table}}, table, csv); }},
      {set, [&] { repack({{set}}, set, {}); }},
      {set, [&] { repack({{set}}, folder / "a.h5", shards); }},  // one of the shards
      {copy, [&] { import_mnist(copy, "models/data/digits/t10k-labels-idx1-ubyte.gz", copy); }},
      {folder_of_images + "/cat/1.png",
       [&] { import_images({{folder_of_images}}, folder_of_images + "/cat/1.png", {}); }},
      {table, [&] { make_regression(table, {}); }},
      {table, [&] { export_checkpoint("tests/golden/checkpoints", table, false); }}};
  for (std::size_t i = 0; i < commands.size(); ++i) {
    const auto& [input, command] = commands[i];
    const std::string before = bytes_of(input);
    EXPECT_EQ(refusal(command).find("-o "), 0u) << "command " << i << ": " << refusal(command);
    EXPECT_EQ(bytes_of(input), before) << "command " << i;
  }
}

}  // namespace
}  // namespace dtrain::io
