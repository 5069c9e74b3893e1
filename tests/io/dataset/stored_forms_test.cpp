// Forms in which people store numbers and labels: float16, large integers, booleans, floats and one-hot rows as labels,
// data sets behind links.
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "io/dataset/dataset.hpp"
#include "io/dataset/inspect.hpp"
#include "io/dataset/loader.hpp"
#include "runtime/tensor/f16.hpp"
#include "tests/io/dataset/port_batch.hpp"
#include "tests/io/dataset/port_files.hpp"

namespace dtrain::io {
namespace {

using testing::add;
using testing::Folder;
using testing::H5File;
using testing::message_of;
using testing::PortBatch;
using testing::sample_of;
using testing::Spec;

/// IEEE half precision, as h5py describes it to the library.
hid_t half_type(bool big) {
  const hid_t half = H5Tcopy(big ? H5T_IEEE_F32BE : H5T_IEEE_F32LE);
  H5Tset_fields(half, 15, 10, 5, 0, 10);
  H5Tset_size(half, 2);
  H5Tset_ebias(half, 15);
  return half;
}

/// As h5py stores numpy's bool.
hid_t boolean_type() {
  const hid_t type = H5Tenum_create(H5T_STD_I8LE);
  for (const std::int8_t value : {std::int8_t{0}, std::int8_t{1}})
    H5Tenum_insert(type, value == 0 ? "FALSE" : "TRUE", &value);
  return type;
}

/// The ways in which a data set of [4, ...] may lie in a file.
std::vector<Spec> storages(hsize_t width) {
  Spec chunks, sums, compact;
  chunks.chunk = sums.chunk = {3, width};
  chunks.gzip = 1;
  chunks.shuffle = true;
  sums.fletcher = true;  // read by the library
  compact.compact = true;
  return {Spec{}, chunks, sums, compact};
}

/// x as the float inputs of a model.
std::vector<float> inputs_of(const std::string& path, std::int64_t width) {
  PortBatch batch;
  batch.port(PortUse::input, "x", DType::f32, {width});
  batch.options.shuffle = false;
  const Dataset set = batch.open({path});
  const auto loader = Loader::training(set, batch.of(static_cast<std::int64_t>(set.count())));
  const Batch& filled = loader->next();
  std::vector<float> all;
  for (std::int64_t row = 0; row < static_cast<std::int64_t>(set.count()); ++row) {
    const auto values = sample_of<float>(filled, 0, row);
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

/// Of the next sample.
std::vector<std::int32_t> next_labels(Loader& loader) {
  const auto labels = sample_of<std::int32_t>(loader.next(), 0, 0);
  loader.release();
  return labels;
}

TEST(StoredForms, Float16IsReadExactly) {
  const Folder folder;
  const std::vector<float> values{0, -0.0f, 1, -2.5f, 65504, -65504, 0x1p-24f, 0x1.ff8p-15f};
  for (const bool big : {false, true}) {
    for (Spec spec : storages(2)) {
      const hid_t half = half_type(big);
      spec.dims = {4, 2};
      spec.file_type = half;
      spec.memory_type = H5T_NATIVE_FLOAT;
      H5File(folder / "a.h5").add("x", spec, values.data());
      H5Tclose(half);
      EXPECT_EQ(Dataset(std::vector<std::string>{folder / "a.h5"}).port(0).type, StoredType::f16);
      EXPECT_EQ(inputs_of(folder / "a.h5", 2), values) << big;
    }
  }
  const hid_t half = half_type(false);
  const std::vector<float> bad{0, 1, 2, INFINITY};
  H5File(folder / "b.h5").add("x", {{4, 1}, half, H5T_NATIVE_FLOAT, {}, -1, false, false, false, ""}, bad.data());
  H5Tclose(half);
  EXPECT_HAS(message_of([&] { inputs_of(folder / "b.h5", 1); }), "b.h5: /x, row 3: value 0 is inf; samples must be");
}

TEST(StoredForms, BooleansAreTheirNumbers) {
  const Folder folder;
  const std::vector<std::int8_t> values{1, 0, 0, 1, 1, 1, 0, 0};
  for (Spec spec : storages(2)) {
    const hid_t type = boolean_type();
    spec.dims = {4, 2};
    spec.file_type = spec.memory_type = type;
    H5File(folder / "a.h5").add("x", spec, values.data());
    H5Tclose(type);
    const Dataset set(std::vector<std::string>{folder / "a.h5"});
    EXPECT_EQ(set.port(0).type, StoredType::i8);
    EXPECT_EQ(inputs_of(folder / "a.h5", 2), (std::vector<float>{1, 0, 0, 1, 1, 1, 0, 0}));
  }
}

TEST(StoredForms, LargeIntegersAreInputsAndTooLargeOnesNoLabels) {
  const Folder folder;
  constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  {
    H5File file(folder / "a.h5");
    const std::vector<std::uint64_t> x{0, 7, std::uint64_t{1} << 40, most}, y{0, 1, 2, most - 99};
    file.add("x", {{4, 1}, H5T_STD_U64LE, H5T_NATIVE_UINT64, {}, -1, false, false, false, ""}, x.data());
    file.add("y", {{4}, H5T_STD_U64LE, H5T_NATIVE_UINT64, {}, -1, false, false, false, ""}, y.data());
    file.add("t", {{2, 2}, H5T_STD_U64LE, H5T_NATIVE_UINT64, {}, -1, false, false, false, ""}, y.data());
  }
  EXPECT_EQ(inputs_of(folder / "a.h5", 1), (std::vector<float>{0, 7, 0x1p40f, 0x1p64f}));
  PortBatch labels;
  labels.port(PortUse::target, "y", DType::i32, {}).ignore = -100;
  labels.sources[0].ignore = -100;  // which most - 99 is where it is cut to 64 bits with a sign
  EXPECT_HAS(message_of([&] { labels.open({folder / "a.h5"}); }),
             "/y, row 3: the label is 18446744073709551516; labels");
  PortBatch tokens;
  tokens.port(PortUse::target, "t", DType::i32, {2}).ignore = -100;
  const Dataset set = tokens.open({folder / "a.h5"});
  EXPECT_HAS(message_of([&] { Loader::training(set, tokens.of(2))->next(); }),
             "/t, row 1, position 1: the value is 18446744073709551516");
}

TEST(StoredForms, LabelsMayBeFloatsOfWholeNumbers) {
  const Folder folder;
  {
    H5File file(folder / "a.h5");
    add(file, "y", {4}, std::vector<float>{0, 2, 1, 1});
    add(file, "map", {2, 2}, std::vector<double>{0, 2, 1, 1.5});
    add(file, "bad", {4}, std::vector<float>{0, NAN, 1, 1});
  }
  PortBatch batch;
  batch.port(PortUse::target, "y", DType::i32, {}).limit = 3;
  const Dataset set = batch.open({folder / "a.h5"});
  EXPECT_EQ(set.port(0).class_count, 3);
  EXPECT_EQ(set.label(0, 1), 2);
  PortBatch map;
  map.port(PortUse::target, "map", DType::i32, {2}).limit = 3;
  map.options.shuffle = false;
  const Dataset maps = map.open({folder / "a.h5"});
  const auto loader = Loader::training(maps, map.of(1));
  EXPECT_EQ(next_labels(*loader), (std::vector<std::int32_t>{0, 2}));
  EXPECT_HAS(message_of([&] { loader->next(); }),
             "/map, row 1, position 1: the value is 1.5; expected whole numbers from 0 to 2");
  PortBatch bad;
  bad.port(PortUse::target, "bad", DType::i32, {});
  EXPECT_HAS(message_of([&] { bad.open({folder / "a.h5"}); }), "/bad, row 1: the label is nan, but the loss needs");
}

TEST(StoredForms, OneHotRowsAreLabelsWhereTheModelWantsOne) {
  const Folder folder;
  {
    H5File file(folder / "a.h5");
    add(file, "f", {3, 3}, std::vector<float>{0, 0, 1, 1, 0, 0, 0, 1, 0});
    add(file, "u", {3, 3}, std::vector<std::uint8_t>{0, 0, 1, 1, 0, 0, 0, 1, 0});
    add(file, "soft", {3, 3}, std::vector<float>{0, 0, 1, 0.5f, 0.5f, 0, 0, 1, 0});
    add(file, "two", {3, 3}, std::vector<std::uint8_t>{0, 0, 1, 1, 0, 1, 0, 1, 0});
  }
  for (const char* key : {"f", "u", "soft", "two"}) {
    PortBatch batch;
    batch.port(PortUse::target, "y", DType::i32, {}, key).limit = 3;
    batch.options.shuffle = false;
    const Dataset set = batch.open({folder / "a.h5"});
    const auto loader = Loader::training(set, batch.of(1));
    EXPECT_EQ(next_labels(*loader), std::vector<std::int32_t>{2});
    if (std::strlen(key) > 1) {
      EXPECT_HAS(message_of([&] { loader->next(); }), std::string("/") + key + ", row 1: this is no one-hot row: ");
      continue;
    }
    EXPECT_EQ(next_labels(*loader), std::vector<std::int32_t>{0});
    EXPECT_EQ(next_labels(*loader), std::vector<std::int32_t>{1});
  }
  PortBatch four;
  four.port(PortUse::target, "y", DType::i32, {}, "u").limit = 4;
  const Dataset set = four.open({folder / "a.h5"});
  EXPECT_HAS(message_of([&] { Loader::training(set, four.of(1)); }),
             "/u uint8 [3, 3]: labels must be one integer a sample, [3], or one-hot rows of 4 values");
}

TEST(StoredForms, SoftLinksAreFollowedWithinTheFile) {
  const Folder folder;
  {
    H5File file(folder / "a.h5");
    file.group("raw");
    file.group("train");
    add(file, "raw/v3", {2, 2}, std::vector<float>{1, 2, 3, 4});
    add(file, "raw/kinds", {2}, std::vector<std::uint8_t>{0, 1});
    const auto link = [&](const char* to, const char* from) {
      H5Lcreate_soft(to, file.id(), from, H5P_DEFAULT, H5P_DEFAULT);
    };
    link("/raw/v3", "x");
    link("../kinds", "broken");
    link("newest/kinds", "labels");  // through a link to a group
    link("/raw", "newest");
    link("/raw/kinds", "train/labels");  // the same once more, below
    link("/nothing", "weights");
    link("loop", "loop");
    H5Lcreate_external("b.h5", "/x", file.id(), "elsewhere", H5P_DEFAULT, H5P_DEFAULT);
  }
  const Dataset set(std::vector<std::string>{folder / "a.h5"});
  EXPECT_EQ(set.port(0).key, "/x");
  EXPECT_EQ(set.port(1).key, "/labels");
  EXPECT_EQ(set.label(1, 1), 1);
  EXPECT_EQ(stored_number(StoredType::f32, set.row(0, 1, nullptr).data), 3);
  const auto refused = [&](const std::string& key) {
    DatasetOptions options;
    options.ports = {{"input", PortUse::input, false, key, {}, {}}};
    return message_of([&] { Dataset(std::vector<std::string>{folder / "a.h5"}, options); });
  };
  EXPECT_HAS(refused("weights"), "a.h5: weights is a soft link to /nothing, which does not exist; the file holds");
  EXPECT_HAS(refused("loop"), "loop is a soft link to loop, which ");
  EXPECT_HAS(refused("elsewhere"),
             "elsewhere is an external link, which dtrain does not follow; name the file that holds");
  EXPECT_HAS(refused("newest"), "newest is a group, not a data set");
  // Links that lead to many links.
  {
    H5File file(folder / "c.h5");
    for (int i = 0; i < 12; ++i) {
      std::string many;
      for (int k = 0; k < 12; ++k) many += "l" + std::to_string(i + 1) + "/";
      H5Lcreate_soft((many + ".").c_str(), file.id(), ("l" + std::to_string(i)).c_str(), H5P_DEFAULT, H5P_DEFAULT);
    }
    H5Lcreate_soft("/", file.id(), "l12", H5P_DEFAULT, H5P_DEFAULT);
  }
  EXPECT_HAS(message_of([&] { Dataset(std::vector<std::string>{folder / "c.h5"}); }), "no data set has a usual name");
}

TEST(StoredForms, LzfOfH5pyIsRead) {
  const std::vector<std::string> file{"tests/golden/hdf5/lzf.h5"};
  for (const double cache : {0.0, 1024.0}) {
    DatasetOptions options;
    options.cache_mib = cache;
    options.ports = {{.name = "x"}, {.name = "y", .use = PortUse::target, .index = true}};
    const Dataset set(file, options);
    std::vector<std::byte> scratch(set.port(0).row_bytes);
    for (std::uint64_t row = 0; row < 40; ++row) {
      const std::byte* const at = set.row(0, row, scratch.data()).data;
      for (std::uint64_t j = 0; j < 30; ++j) {
        const std::uint64_t n = row * 30 + j;
        const std::uint64_t value = n < 480   ? n * 2654435761 % (std::uint64_t{1} << 32)
                                    : n < 960 ? n / 400
                                              : n % 97 * (n % 7);
        ASSERT_EQ(stored_as<std::uint64_t>(StoredType::u32, at + 4 * j), value) << n;
      }
      EXPECT_EQ(set.label(1, row), static_cast<int>(row * 30 % 11));
    }
  }
  DatasetOptions sums;
  sums.ports = {{.name = "sums"}};
  EXPECT_HAS(
      message_of([&] { Dataset(file, sums); }),
      "/sums has lzf and fletcher32, which dtrain does not read together; write it again: python3 -c \"import h5py");
  // Damaged chunks are errors, and nothing is read or written beside them.
  const Folder folder;
  const std::vector<char> whole = testing::slurp(file[0]);
  for (std::size_t at = 2048; at < whole.size(); at += 211) {
    std::vector<char> bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ (at % 3 == 0 ? 0xFF : 0x20));
    testing::spill(folder / "a.h5", bytes);
    try {
      DatasetOptions options;
      options.ports = {{.name = "x"}};
      const Dataset set(std::vector<std::string>{folder / "a.h5"}, options);
      std::vector<std::byte> scratch(set.port(0).row_bytes);
      for (std::uint64_t row = 0; row < set.count(); ++row) set.row(0, row, scratch.data());
    } catch (const DataError&) {
    }
  }
}

/// Of HDF5 2.0, for libver='latest'.
TEST(StoredForms, ANewerFormatIsToldFromDamage) {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  if (major >= 2) GTEST_SKIP() << "this HDF5 reads it";
  const std::string file = "tests/golden/hdf5/newer.h5";
  const std::string why = message_of([&] { Dataset(std::vector<std::string>{file}); });
  EXPECT_HAS(why, file + ": /images is written in a newer format than this dtrain reads with HDF5 " +
                      std::to_string(major) + ".");
  EXPECT_HAS(why, "bad version number for layout message");
  EXPECT_HAS(why,
             "write it again: python3 -c \"import h5py; a = h5py.File('tests/golden/hdf5/newer.h5'); b = h5py.File(");
  DatasetOptions options;  // what it can read is read
  options.ports = {{.name = "x", .key = "labels"}};
  EXPECT_EQ(Dataset(std::vector<std::string>{file}, options).count(), 48u);
  EXPECT_HAS(inspect(file).text, "  /images (cannot be opened)  \n    cannot be used: is written in");
  const Folder folder;
  std::vector<char> bytes = testing::slurp(file);
  bytes[8] = 7;  // the version of the superblock
  testing::spill(folder / "a.h5", bytes);
  EXPECT_HAS(message_of([&] { Dataset(std::vector<std::string>{folder / "a.h5"}); }),
             "a.h5: is damaged, or written in a newer");
}

}  // namespace
}  // namespace dtrain::io
