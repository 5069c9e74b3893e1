#include "io/import/repack.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <set>

#include <fmt/format.h>

#include "io/dataset/dataset.hpp"
#include "io/dataset/inspect.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"

namespace dtrain::io {
namespace {

using testing::Folder;
using testing::H5File;
using testing::label_of;
using testing::message_of;
using testing::pixel;
using testing::Spec;
using testing::write_images;

std::string run(const std::vector<std::string>& from, const std::string& out, const RepackOptions& options = {}) {
  return repack(from, out, options);
}

/// Sample numbers of a set that write_images made, by their content.
std::vector<std::uint64_t> numbers(const Dataset& set, std::uint64_t n) {
  std::vector<std::uint64_t> found;
  std::vector<std::byte> scratch(set.port(0).row_bytes);
  for (std::uint64_t i = 0; i < set.count(); ++i) {
    const std::byte* row = set.row(0, i, scratch.data()).data;
    for (std::uint64_t k = 0; k < n; ++k) {
      bool same = set.label(1, i) == label_of(k);
      for (std::size_t j = 0; same && j < set.port(0).row_bytes; ++j)
        same = static_cast<std::uint8_t>(row[j]) == pixel(k, j);
      if (same) found.push_back(k);
    }
  }
  return found;
}

TEST(Repack, ShardsStorageAndOrderKeepEverySample) {
  const Folder folder;
  Spec gzip;
  gzip.chunk = {8, 1, 6, 5};
  gzip.gzip = 1;
  write_images(folder / "a.h5", 31);
  write_images(folder / "b.h5", 12, {1, 6, 5}, gzip, 31);
  RepackOptions options;
  run({folder / "a.h5", folder / "b.h5"}, folder / "all.h5", options);
  const auto expected = numbers(Dataset(std::vector<std::string>{folder / "all.h5"}), 43);
  ASSERT_EQ(expected.size(), 43u);
  EXPECT_TRUE(std::is_sorted(expected.begin(), expected.end()));
  EXPECT_HAS(inspect(folder / "all.h5").text, "/images uint8 [43, 1, 6, 5]  contiguous");

  options.storage = {5, 4};
  options.shards = 4;
  options.shuffle = 9;
  EXPECT_HAS(run({folder / "all.h5"}, folder / "s.h5", options), "s-00003-of-00004.h5: 43 samples in 4 shards");
  const Dataset shards(std::vector<std::string>{folder / "s-*.h5"});
  EXPECT_EQ(shards.files().size(), 4u);
  const auto shuffled = numbers(shards, 43);
  EXPECT_EQ(std::set(shuffled.begin(), shuffled.end()).size(), 43u);
  EXPECT_FALSE(std::is_sorted(shuffled.begin(), shuffled.end()));
  EXPECT_HAS(inspect(folder / "s-00000-of-00004.h5").text, "chunked [5, 1, 6, 5], gzip");
  run({folder / "all.h5"}, folder / "again.h5", options);
  EXPECT_EQ(testing::slurp(folder / "s-00002-of-00004.h5"), testing::slurp(folder / "again-00002-of-00004.h5"));
  options.shards = 44;
  EXPECT_THROW(run({folder / "all.h5"}, folder / "x.h5", options), ConfigError);
}

/// A pattern would take the files of both for one set.
TEST(Repack, ReplacesItsOlderShardsAndMixedOnesAreRefused) {
  const Folder folder;
  write_images(folder / "d.h5", 31);
  write_images(folder / "e.h5", 31, {1, 6, 5}, {}, 5);
  RepackOptions options;
  const auto shards_to = [&](const std::string& from, const std::string& out, std::int64_t shards) {
    options.shards = shards;
    return run({folder / from}, folder / out, options);
  };
  const auto open = [&](const std::string& pattern) {
    return Dataset(std::vector<std::string>{folder / pattern}).count();
  };
  shards_to("d.h5", "part.h5", 4);
  testing::spill(folder / "part-00000-of-00003.h5", testing::slurp(folder / "d.h5"));  // not of repack: it stays
  EXPECT_HAS(shards_to("d.h5", "part.h5", 2), "removed 4 older shards: ");
  EXPECT_TRUE(std::filesystem::exists(folder / "part-00000-of-00003.h5"));
  std::filesystem::remove(folder / "part-00000-of-00003.h5");
  EXPECT_EQ(open("part-*.h5"), 31u);
  // Made elsewhere and copied beside them.
  shards_to("d.h5", "other.h5", 4);
  std::filesystem::copy_file(folder / "other-00001-of-00004.h5", folder / "part-00001-of-00004.h5");
  const std::string text = message_of([&] { open("part-*.h5"); });
  EXPECT_HAS(text, "part-00001-of-00004.h5: /images is shard 1 of 4, but ");
  EXPECT_HAS(text, "is the same set, cut in another way");
  EXPECT_HAS(message_of([&] { run({folder / "part-*.h5"}, folder / "x.h5"); }), "cut in another way");
  std::filesystem::remove(folder / "part-00001-of-00004.h5");
  std::filesystem::copy_file(folder / "part-00001-of-00002.h5", folder / "part-copy.h5");
  EXPECT_HAS(message_of([&] { open("part-*.h5"); }), "they hold the same samples");
  std::filesystem::remove(folder / "part-copy.h5");
  shards_to("e.h5", "new.h5", 2);
  std::filesystem::copy_file(folder / "new-00001-of-00002.h5", folder / "part-00003-of-00002.h5");
  EXPECT_HAS(message_of([&] { open("part-*.h5"); }), "they are of different sets");
  std::filesystem::remove(folder / "part-00003-of-00002.h5");
  // Two sets, or a part of one, are fine.
  EXPECT_EQ(open("[np][ea]*-of-00002.h5"), 62u);
  EXPECT_EQ(open("part-00001*.h5"), 16u);
  options.shards = 3;
  EXPECT_HAS(message_of<ConfigError>([&] { run({folder / "part-*.h5"}, folder / "part.h5", options); }),
             "is read, and would be");
  // What is made of them is a set of its own.
  EXPECT_HAS(shards_to("part-*.h5", "one.h5", 1), "wrote ");
  EXPECT_EQ(open("one.h5"), 31u);
}

TEST(Repack, KeepsTypesAttributesAndNames) {
  const Folder folder;
  {
    H5File file(folder / "a.h5");
    const std::vector<double> x{1, 2, 3, 4, 5, 6};
    const std::vector<std::int16_t> y{3, 4};
    Spec xs, ys;
    xs.dims = {2, 3};
    xs.file_type = H5T_IEEE_F64BE;
    xs.memory_type = H5T_NATIVE_DOUBLE;
    ys.dims = {2};
    ys.file_type = H5T_STD_I16LE;
    ys.memory_type = H5T_NATIVE_INT16;
    file.add("x", xs, x.data());
    file.add("y", ys, y.data());
    const hid_t set = H5Dopen2(file.id(), "y", H5P_DEFAULT), space = H5Screate(H5S_SCALAR);
    const hid_t attribute = H5Acreate2(set, "classes", H5T_IEEE_F64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    const double classes = 5;
    H5Awrite(attribute, H5T_NATIVE_DOUBLE, &classes);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Dclose(set);
    const hid_t text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, 3);
    const hsize_t two = 2;
    const hid_t names_space = H5Screate_simple(1, &two, nullptr);
    const hid_t names = H5Dcreate2(file.id(), "class_names", text, names_space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Dwrite(names, text, H5S_ALL, H5S_ALL, H5P_DEFAULT, "catdog");
    H5Dclose(names);
    H5Sclose(names_space);
    H5Tclose(text);
  }
  run({folder / "a.h5"}, folder / "b.h5");
  const std::string text = inspect(folder / "b.h5").text;
  EXPECT_HAS(text, "/class_names string [2]");
  EXPECT_HAS(text, "/x float64 [2, 3]  contiguous");
  EXPECT_HAS(text, "min 1, max 6, mean 3.5");
  EXPECT_HAS(text, "/y int16 [2]");
  const hid_t file = H5Fopen((folder / "b.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  double classes = 0;
  const hid_t attribute = H5Aopen_by_name(file, "y", "classes", H5P_DEFAULT, H5P_DEFAULT);
  H5Aread(attribute, H5T_NATIVE_DOUBLE, &classes);
  H5Aclose(attribute);
  H5Fclose(file);
  EXPECT_EQ(classes, 5);
}

TEST(Repack, RefusesOrDropsWhatCannotBeTrainedOn) {
  const Folder folder;
  constexpr std::size_t n = 40;
  {
    H5File file(folder / "bad.h5");
    std::vector<float> x(n * 2);
    std::vector<std::int32_t> y(n);
    for (std::size_t i = 0; i < n; ++i) {
      x[2 * i] = x[2 * i + 1] = static_cast<float>(i);
      y[i] = static_cast<int>(i % 4);
    }
    x[2 * 7 + 1] = std::numeric_limits<float>::quiet_NaN();
    x[2 * 8] = std::numeric_limits<float>::infinity();
    y[20] = -1;
    y[21] = 4;
    Spec xs, ys;
    xs.dims = {n, 2};
    xs.file_type = H5T_IEEE_F32LE;
    xs.memory_type = H5T_NATIVE_FLOAT;
    ys.dims = {n};
    ys.file_type = H5T_STD_I32LE;
    ys.memory_type = H5T_NATIVE_INT32;
    file.add("x", xs, x.data());
    file.add("y", ys, y.data());
  }
  RepackOptions options;
  options.classes = 4;
  const std::string text = message_of([&] { run({folder / "bad.h5"}, folder / "out.h5", options); });
  EXPECT_HAS(text, "2 labels out of range (");
  EXPECT_HAS(text, "bad.h5: /y, row 20: -1; ");
  EXPECT_HAS(text, "bad.h5: /y, row 21: 4)");
  EXPECT_HAS(text, "2 samples with values that are not finite (");
  EXPECT_HAS(text, "bad.h5: /x, row 7: value 1 is nan; ");
  EXPECT_HAS(text, "--on-error drop");
  EXPECT_FALSE(std::filesystem::exists(folder / "out.h5"));
  options.on_error = OnError::drop;
  EXPECT_HAS(run({folder / "bad.h5"}, folder / "out.h5", options), "36 samples");
  const Dataset set(std::vector<std::string>{folder / "out.h5"});
  ASSERT_EQ(set.count(), 36u);
  EXPECT_EQ(set.port(1).class_count, 4);
  std::vector<std::byte> scratch(8);
  std::uint64_t expected = 0;
  for (std::uint64_t i = 0; i < 36; ++i, ++expected) {
    while (expected == 7 || expected == 8 || expected == 20 || expected == 21) ++expected;
    float value = 0;
    std::memcpy(&value, set.row(0, i, scratch.data()).data, sizeof value);
    ASSERT_EQ(value, static_cast<float>(expected));
  }
  options.classes = 0;
  options.target_key = "x";
  options.sample_key = "x";
  EXPECT_THROW(run({folder / "absent.h5"}, folder / "x.h5"), DataError);
}

}  // namespace
}  // namespace dtrain::io
