#include "io/dataset/dataset.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <thread>

#include <sys/stat.h>

#include "tests/io/hdf5/hdf5_files.hpp"

namespace dtrain::io {
namespace {

using testing::Folder;
using testing::H5File;
using testing::message_of;
using testing::pixel;
using testing::Spec;
using testing::write_images;

std::unique_ptr<Dataset> open(const std::string& path, DatasetOptions options = {}) {
  const std::vector<std::string> files{path};
  return std::make_unique<Dataset>(files, options);
}
DatasetOptions uncached() {
  DatasetOptions options;
  options.cache_mib = 0;
  return options;
}

struct StorageCase {
  const char* name;
  Spec spec;
};
std::vector<StorageCase> storage_cases() {
  const auto chunked = [](std::vector<hsize_t> chunk, int gzip = -1, bool shuffle = false, bool fletcher = false) {
    Spec s;
    s.chunk = std::move(chunk);
    s.gzip = gzip;
    s.shuffle = shuffle;
    s.fletcher = fletcher;
    return s;
  };
  Spec compact;
  compact.compact = true;
  return {{"contiguous", {}},
          {"compact", compact},
          {"row chunks", chunked({1, 1, 6, 5})},
          {"chunks", chunked({16, 1, 6, 5})},
          {"gzip", chunked({16, 1, 6, 5}, 4)},
          {"shuffle gzip", chunked({16, 1, 6, 5}, 1, true)},
          {"split rows", chunked({16, 1, 4, 2}, 1)},
          {"split rows plain", chunked({7, 1, 6, 3})},
          {"fletcher", chunked({16, 1, 6, 5}, 1, true, true)},
          {"one chunk", chunked({200, 1, 6, 5}, 1)}};
}

TEST(Dataset, ReadsEveryStorageInMemoryAndNot) {
  const Folder folder;
  for (const auto& c : storage_cases()) {
    const std::string path = folder / "set.h5";
    write_images(path, 203, {1, 6, 5}, c.spec);
    std::string fingerprint;
    for (const double cache : {0.0, 1024.0}) {
      DatasetOptions options;
      options.cache_mib = cache;
      const auto set = open(path, options);
      SCOPED_TRACE(c.name);
      ASSERT_EQ(set->count(), 203u);
      EXPECT_EQ(set->in_memory(), cache > 0);
      EXPECT_EQ(set->port(0).row, (Shape{1, 6, 5}));
      EXPECT_EQ(set->port(0).type, StoredType::u8);
      EXPECT_TRUE(set->port(1).labels);
      EXPECT_EQ(set->port(1).class_count, 10);
      EXPECT_EQ(set->port(0).key, "/images");
      EXPECT_EQ(set->port(1).key, "/labels");
      std::vector<std::byte> scratch(set->port(0).row_bytes);
      for (std::uint64_t k = 0; k < 203; ++k) {
        const std::uint64_t i = k * 101 % 203;
        const auto* row = reinterpret_cast<const std::uint8_t*>(set->row(0, i, scratch.data()).data);
        for (std::uint64_t j = 0; j < 30; ++j) ASSERT_EQ(row[j], pixel(i, j)) << i << " " << j;
        ASSERT_EQ(set->label(1, i), testing::label_of(i));
      }
      if (fingerprint.empty()) fingerprint = set->fingerprint();
      EXPECT_EQ(set->fingerprint(), fingerprint);
      EXPECT_EQ(!set->blocks().starts.empty(),
                cache == 0 && (c.spec.compact || (!c.spec.chunk.empty() && c.spec.chunk[0] > 1)));
    }
  }
}

template <class T>
void check_type(hid_t little, hid_t big, hid_t memory, StoredType expected) {
  const Folder folder;
  std::vector<T> values{T(0), T(1), T(77), std::numeric_limits<T>::max(), std::numeric_limits<T>::lowest(), T(5)};
  for (const hid_t type : {little, big}) {
    for (const bool chunked : {false, true}) {
      const std::string path = folder / "set.h5";
      {
        H5File file(path);
        Spec spec{{3, 2}, type, memory, {}, -1, false, false, false, ""};
        if (chunked) {
          spec.chunk = {2, 2};
          spec.gzip = 1;
          spec.shuffle = true;
        }
        file.add("x", spec, values.data());
      }
      const auto set = open(path, uncached());
      EXPECT_EQ(set->port(0).type, expected);
      EXPECT_EQ(set->ports().size(), 1u);
      std::vector<std::byte> scratch(set->port(0).row_bytes);
      for (std::uint64_t i = 0; i < 3; ++i) {
        EXPECT_EQ(std::memcmp(set->row(0, i, scratch.data()).data, values.data() + 2 * i, 2 * sizeof(T)), 0)
            << name_of(expected);
      }
    }
  }
}

TEST(Dataset, ReadsEveryTypeInBothByteOrders) {
  check_type<std::uint8_t>(H5T_STD_U8LE, H5T_STD_U8BE, H5T_NATIVE_UINT8, StoredType::u8);
  check_type<std::int8_t>(H5T_STD_I8LE, H5T_STD_I8BE, H5T_NATIVE_INT8, StoredType::i8);
  check_type<std::uint16_t>(H5T_STD_U16LE, H5T_STD_U16BE, H5T_NATIVE_UINT16, StoredType::u16);
  check_type<std::int16_t>(H5T_STD_I16LE, H5T_STD_I16BE, H5T_NATIVE_INT16, StoredType::i16);
  check_type<std::uint32_t>(H5T_STD_U32LE, H5T_STD_U32BE, H5T_NATIVE_UINT32, StoredType::u32);
  check_type<std::int32_t>(H5T_STD_I32LE, H5T_STD_I32BE, H5T_NATIVE_INT32, StoredType::i32);
  check_type<std::uint64_t>(H5T_STD_U64LE, H5T_STD_U64BE, H5T_NATIVE_UINT64, StoredType::u64);
  check_type<std::int64_t>(H5T_STD_I64LE, H5T_STD_I64BE, H5T_NATIVE_INT64, StoredType::i64);
  check_type<float>(H5T_IEEE_F32LE, H5T_IEEE_F32BE, H5T_NATIVE_FLOAT, StoredType::f32);
  check_type<double>(H5T_IEEE_F64LE, H5T_IEEE_F64BE, H5T_NATIVE_DOUBLE, StoredType::f64);
}

TEST(Dataset, ShardsAreOneSetAndGlobsAreSorted) {
  const Folder folder;
  write_images(folder / "part-10.h5", 20, {1, 6, 5}, {}, 50);
  write_images(folder / "part-02.h5", 50, {1, 6, 5}, {}, 0);
  write_images(folder / "all.h5", 70);
  const auto shards = open(folder / "part-*.h5", uncached());
  ASSERT_EQ(shards->count(), 70u);
  EXPECT_EQ(shards->files(), (std::vector<std::string>{folder / "part-02.h5", folder / "part-10.h5"}));
  std::vector<std::byte> scratch(shards->port(0).row_bytes);
  for (std::uint64_t i = 0; i < 70; ++i) {
    EXPECT_EQ(static_cast<std::uint8_t>(shards->row(0, i, scratch.data()).data[29]), pixel(i, 29));
    EXPECT_EQ(shards->label(1, i), testing::label_of(i));
  }
  EXPECT_EQ(shards->fingerprint(), open(folder / "all.h5")->fingerprint()) << "resharding is no change of data";
  EXPECT_EQ(shards->where(0, 50), (folder / "part-10.h5") + ": /images, row 0");
}

TEST(Dataset, FingerprintSeesLabelsSamplesAndShapes) {
  const Folder folder;
  write_images(folder / "a.h5", 100);
  write_images(folder / "b.h5", 100, {1, 5, 6});
  write_images(folder / "c.h5", 101);
  write_images(folder / "d.h5", 100, {1, 6, 5}, {}, 1);
  const auto a = open(folder / "a.h5")->fingerprint();
  EXPECT_EQ(a.size(), 16u);
  for (const char* other : {"b.h5", "c.h5", "d.h5"}) EXPECT_NE(a, open(folder / other)->fingerprint()) << other;
}

TEST(Dataset, DetectsUsualNamesAndTakesKeys) {
  const Folder folder;
  const std::vector<float> x(12, 1.5f), y{1, 2, 3, 4};
  const auto write = [&](const std::string& path, const std::string& xs, const std::string& ys) {
    H5File file(path);
    file.group("train");
    file.add(xs, {{4, 3}, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, {}, -1, false, false, false, ""}, x.data());
    file.add(ys, {{4}, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, {}, -1, false, false, false, ""}, y.data());
  };
  for (const auto& [xs, ys] :
       {std::pair{"X", "Y"}, {"data", "target"}, {"x_train", "y_train"}, {"train/Features", "train/Labels"}}) {
    write(folder / "a.h5", xs, ys);
    const auto set = open(folder / "a.h5");
    EXPECT_EQ(set->port(0).key, std::string("/") + xs);
    EXPECT_EQ(set->port(1).key, std::string("/") + ys);
    EXPECT_FALSE(set->port(1).index);
    EXPECT_EQ(set->port(1).row.elements(), 1);
    EXPECT_EQ(stored_number(set->port(1).type, set->row(1, 2, nullptr).data), 3);
  }
  write(folder / "a.h5", "foo", "train/bar");
  const auto text = message_of([&] { open(folder / "a.h5"); });
  EXPECT_HAS(text, "/foo float32 [4, 3]");
  EXPECT_HAS(text, "/train/bar float32 [4]");
  EXPECT_HAS(text, "data.sample_key");
  const auto with = [](const std::string& sample, const std::string& target, bool labels = false) {
    DatasetOptions options;
    options.ports = {{"input", PortUse::input, false, sample, {}, {}},
                     {"target", PortUse::target, labels, target, {}, {}}};
    return options;
  };
  EXPECT_EQ(open(folder / "a.h5", with("foo", "/train/bar"))->count(), 4u);
  const auto missing = message_of([&] { open(folder / "a.h5", with("foo", "/train/baz")); });
  EXPECT_HAS(missing, "/train/baz does not exist; the file holds /foo");
  EXPECT_HAS(missing, "; did you mean /train/bar?");
  EXPECT_HAS(message_of([&] { open(folder / "a.h5", with("foo", "/train")); }), "is a group");
  EXPECT_HAS(message_of([&] { open(folder / "a.h5", with("foo", "", true)); }), "data.target_key");
  EXPECT_EQ(open(folder / "a.h5", with("foo", "/train/bar", true))->port(1).class_count, 5) << "whole numbers";

  {
    H5File both(folder / "b.h5");
    for (const char* group : {"a", "b"}) {
      both.group(group);
      both.add(std::string(group) + "/images",
               {{4, 3}, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, {}, -1, false, false, false, ""}, x.data());
    }
  }
  EXPECT_HAS(message_of([&] { open(folder / "b.h5"); }), "could both be the samples");
}

TEST(Dataset, MissingWrongAndTruncatedFilesAreToldApart) {
  const Folder folder;
  EXPECT_HAS(message_of([&] { open(folder / "no.h5"); }), "no.h5: no such file");
  EXPECT_HAS(message_of([&] { open(folder / "no-*.h5"); }), "no file matches");
  EXPECT_HAS(message_of([&] { open(folder / ""); }), "is a directory");
  testing::spill(folder / "text.h5", std::vector<char>(5000, 'x'));
  EXPECT_HAS(message_of([&] { open(folder / "text.h5"); }), "is not an HDF5 file");
  testing::spill(folder / "empty.h5", {});
  EXPECT_HAS(message_of([&] { open(folder / "empty.h5"); }), "is empty");
  EXPECT_THROW(Dataset(std::vector<std::string>{}), DataError);
  write_images(folder / "a.h5", 10);
  EXPECT_HAS(message_of([&] { Dataset(std::vector<std::string>{folder / "a.h5", folder / "a.h5"}); }), "named twice");
}

TEST(Dataset, EveryTruncationIsAnError) {
  const Folder folder;
  Spec gzip;
  gzip.chunk = {16, 1, 6, 5};
  gzip.gzip = 1;
  for (const auto& spec : {Spec{}, gzip}) {
    write_images(folder / "a.h5", 300, {1, 6, 5}, spec);
    const auto bytes = testing::slurp(folder / "a.h5");
    for (std::size_t cut = 1; cut < bytes.size(); cut += 97) {
      testing::spill(folder / "cut.h5",
                     {bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(bytes.size() - cut)});
      EXPECT_THROW(open(folder / "cut.h5"), DataError) << cut;
    }
  }
  write_images(folder / "a.h5", 300);
  auto bytes = testing::slurp(folder / "a.h5");
  bytes.resize(bytes.size() - 1000);
  testing::spill(folder / "cut.h5", bytes);
  EXPECT_HAS(message_of([&] { open(folder / "cut.h5"); }), "is truncated");
}

// Bit flips must never crash; most are noticed, flips in raw pixels cannot be.
TEST(Dataset, DamagedFilesNeverCrash) {
  const Folder folder;
  Spec gzip;
  gzip.chunk = {16, 1, 6, 5};
  gzip.gzip = 1;
  gzip.shuffle = true;
  write_images(folder / "a.h5", 100, {1, 6, 5}, gzip);
  const auto good = testing::slurp(folder / "a.h5");
  std::uint64_t random = 88172645463325252ull;
  int refused = 0;
  for (int k = 0; k < 400; ++k) {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    auto bytes = good;
    bytes[random % bytes.size()] = static_cast<char>(bytes[random % bytes.size()] ^ (1 << (random >> 40) % 8));
    testing::spill(folder / "bad.h5", bytes);
    try {
      open(folder / "bad.h5");
    } catch (const DataError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 40);
}

TEST(Dataset, HostileFilesAreRefused) {
  const Folder folder;
  write_images(folder / "real.h5", 10);
  {
    H5File file(folder / "link.h5");
    H5Lcreate_external((folder / "real.h5").c_str(), "/images", file.id(), "images", H5P_DEFAULT, H5P_DEFAULT);
  }
  EXPECT_HAS(message_of([&] { open(folder / "link.h5"); }),
             "/images is an external link, which dtrain does not follow");
  DatasetOptions key;
  key.ports = {{"input", PortUse::input, false, "images", {}, {}}};
  EXPECT_HAS(message_of([&] { open(folder / "link.h5", key); }), "external link");
  {
    H5File file(folder / "soft.h5");
    H5Lcreate_soft("/loop", file.id(), "images", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_soft("/images", file.id(), "loop", H5P_DEFAULT, H5P_DEFAULT);
  }
  EXPECT_HAS(message_of([&] { open(folder / "soft.h5", key); }), "soft link");
  testing::spill(folder / "secret.txt", std::vector<char>(4096, 's'));
  {
    H5File file(folder / "external.h5");
    Spec spec;
    spec.dims = {10, 30};
    spec.external = folder / "secret.txt";
    file.add("images", spec, nullptr);
  }
  EXPECT_HAS(message_of([&] { open(folder / "external.h5"); }), "external storage");
  {
    H5File file(folder / "huge.h5");  // 4 TiB that were never written
    Spec spec;
    spec.dims = {hsize_t{1} << 32, 1024};
    file.add("images", spec, nullptr);
  }
  EXPECT_HAS(message_of([&] { open(folder / "huge.h5"); }), "never written");
  {
    H5File file(folder / "sparse.h5");
    Spec spec;
    spec.dims = {hsize_t{1} << 32, 1024};
    spec.chunk = {1024, 1024};
    spec.gzip = 1;
    file.add("images", spec, nullptr);
  }
  EXPECT_HAS(message_of([&] { open(folder / "sparse.h5"); }), "chunks were written");
  {
    H5File file(folder / "bomb.h5");  // one chunk of 128 MiB of zeros
    Spec spec;
    spec.dims = {2, 64 << 20};
    spec.chunk = {2, 64 << 20};
    spec.gzip = 1;
    file.add("images", spec, nullptr);
  }
  EXPECT_HAS(message_of([&] { open(folder / "bomb.h5"); }), "chunks of more than 64 MiB");
  {
    H5File file(folder / "cycle.h5");
    file.group("a");
    H5Lcreate_hard(file.id(), "/", file.id(), "a/up", H5P_DEFAULT, H5P_DEFAULT);
  }
  EXPECT_HAS(message_of([&] { open(folder / "cycle.h5"); }), "no data set has a usual name");
  {
    H5File file(folder / "filter.h5");
    const std::vector<std::uint8_t> data(300, 1);
    Spec spec;
    spec.dims = {10, 30};
    const hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t chunk[] = {5, 30};
    H5Pset_chunk(plist, 2, chunk);
    H5Pset_scaleoffset(plist, H5Z_SO_INT, 4);
    const hid_t space = H5Screate_simple(2, spec.dims.data(), nullptr);
    const hid_t set = H5Dcreate2(file.id(), "images", H5T_STD_U8LE, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    H5Dwrite(set, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, data.data());
    H5Dclose(set);
    H5Sclose(space);
    H5Pclose(plist);
  }
  EXPECT_HAS(message_of([&] { open(folder / "filter.h5"); }),
             "is compressed by scale-offset, which dtrain does not read; write it again: python3 -c \"import h5py;");
}

TEST(Dataset, ShardsThatDifferAreNamed) {
  const Folder folder;
  write_images(folder / "a.h5", 10);
  write_images(folder / "b.h5", 10, {1, 5, 5});
  const auto text = message_of([&] { Dataset(std::vector<std::string>{folder / "a.h5", folder / "b.h5"}); });
  EXPECT_HAS(text, "b.h5: /images uint8 [10, 1, 5, 5] differs from");
  EXPECT_HAS(text, "a.h5");
  const std::vector<float> x(300, 1);
  {
    H5File file(folder / "c.h5");
    file.add("images", {{10, 1, 6, 5}, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, {}, -1, false, false, false, ""}, x.data());
  }
  EXPECT_HAS(message_of([&] {
               Dataset(std::vector<std::string>{folder / "a.h5", folder / "c.h5"});
             }),
             "shards must agree");
  const std::vector<std::uint8_t> bytes(300, 1);
  {
    H5File file(folder / "d.h5");
    Spec spec;
    spec.dims = {10, 1, 6, 5};
    file.add("images", spec, bytes.data());
  }
  EXPECT_HAS(message_of([&] {
               Dataset(std::vector<std::string>{folder / "a.h5", folder / "d.h5"});
             }),
             "has no targets");
  EXPECT_HAS(message_of([&] { Dataset(std::vector<std::string>{folder / "d.h5", folder / "a.h5"}); }), "has targets");
}

TEST(Dataset, EmptySetsAndWrongTargetsAreErrors) {
  const Folder folder;
  write_images(folder / "empty.h5", 0);
  EXPECT_HAS(message_of([&] { open(folder / "empty.h5"); }), "holds no samples");
  const std::vector<std::uint8_t> bytes(300, 1);
  {
    H5File file(folder / "a.h5");
    Spec spec;
    spec.dims = {10, 30};
    file.add("images", spec, bytes.data());
    spec.dims = {9};
    file.add("labels", spec, bytes.data());
  }
  EXPECT_HAS(message_of([&] { open(folder / "a.h5"); }), "/labels has 9 rows, but /images has 10");
  {
    H5File file(folder / "b.h5");
    Spec spec;
    spec.dims = {10, 30};
    file.add("images", spec, bytes.data());
    spec.dims = {10, 4};
    file.add("labels", spec, bytes.data());
  }
  EXPECT_HAS(message_of([&] { open(folder / "b.h5"); }), "one integer a sample");
}

TEST(Dataset, LabelsOutOfRangeAreNamedByFileRowAndValue) {
  const Folder folder;
  write_images(folder / "a.h5", 10);
  {
    H5File file(folder / "b.h5");
    const std::vector<std::uint8_t> images(300, 1);
    std::vector<std::int64_t> labels(10, 3);
    labels[7] = 12;
    Spec spec;
    spec.dims = {10, 1, 6, 5};
    file.add("images", spec, images.data());
    file.add("labels", {{10, 1}, H5T_STD_U8LE, H5T_NATIVE_INT64, {}, -1, false, false, false, ""}, labels.data());
  }
  const Dataset set(std::vector<std::string>{folder / "a.h5", folder / "b.h5"});
  EXPECT_EQ(set.port(1).class_count, 13);
  set.check_labels(1, 13);
  const auto text = message_of([&] { set.check_labels(1, 10); });
  EXPECT_HAS(text, "b.h5: /labels, row 7: the label is 12, but the model has 10 classes");
  {
    H5File file(folder / "c.h5");
    const std::vector<std::uint8_t> images(300, 1);
    std::vector<std::int64_t> labels(10, 3);
    labels[4] = -1;
    Spec spec;
    spec.dims = {10, 1, 6, 5};
    file.add("images", spec, images.data());
    file.add("labels", {{10}, H5T_STD_I64LE, H5T_NATIVE_INT64, {}, -1, false, false, false, ""}, labels.data());
  }
  EXPECT_HAS(message_of([&] { open(folder / "c.h5"); }), "c.h5: /labels, row 4: the label is -1");
}

TEST(Dataset, ManyThreadsReadTheSameBands) {
  const Folder folder;
  Spec gzip;
  gzip.chunk = {8, 1, 6, 5};
  gzip.gzip = 1;
  write_images(folder / "a.h5", 1000, {1, 6, 5}, gzip);
  const auto set = open(folder / "a.h5", uncached());
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (std::uint64_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      std::vector<std::byte> scratch(set->port(0).row_bytes);
      for (std::uint64_t k = 0; k < 2000; ++k) {
        const std::uint64_t i = (k * 617 + t * 113) % 1000;
        if (static_cast<std::uint8_t>(set->row(0, i, scratch.data()).data[7]) != pixel(i, 7)) ++wrong;
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace dtrain::io
