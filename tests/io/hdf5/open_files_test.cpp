#include "io/hdf5/open_files.hpp"

#include <array>
#include <filesystem>

#include <fmt/format.h>
#include <sys/resource.h>

#include "io/dataset/dataset.hpp"
#include "io/dataset/loader.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"

namespace dtrain::io {
namespace {

using testing::Folder;
using testing::message_of;
using testing::pixel;
using testing::Spec;
using testing::write_images;

constexpr std::uint64_t shards = 60, rows = 10;

class OpenFilesTest : public ::testing::Test {
 protected:
  void make(const Spec& spec = {}) {
    for (std::uint64_t s = 0; s < shards; ++s) write_images(path(s), rows, {1, 6, 5}, spec, s * rows);
  }
  std::string path(std::uint64_t shard) const { return folder_ / fmt::format("s-{:02}.h5", shard); }
  Dataset open(DatasetOptions options) { return Dataset(std::vector<std::string>{folder_ / "s-*.h5"}, options); }
  /// Descriptors of the shards that this process holds.
  std::size_t held() const {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code ignored;
      const auto target = std::filesystem::read_symlink(entry.path(), ignored).string();
      count += target.starts_with(folder_ / "");
    }
    return count;
  }
  static bool right(const Dataset& set, std::uint64_t index, std::byte* scratch) {
    const std::byte* row = set.row(0, index, scratch).data;
    for (std::uint64_t j = 0; j < 30; ++j)
      if (static_cast<std::uint8_t>(row[j]) != pixel(index, j)) return false;
    return true;
  }
  Folder folder_;
};

TEST_F(OpenFilesTest, NoMoreThanTheBoundAreOpen) {
  Spec gzip;
  gzip.chunk = {4, 1, 6, 5};
  gzip.gzip = 1;
  for (const Spec& spec : {Spec{}, gzip}) {
    make(spec);
    DatasetOptions options;
    options.cache_mib = 0;
    options.open_files = 5;
    const Dataset set = open(options);
    EXPECT_LE(held(), 5u);
    std::vector<std::byte> scratch(30);
    for (std::uint64_t i = 0; i < 600; ++i) {
      ASSERT_TRUE(right(set, i * 371 % 600, scratch.data()));
      ASSERT_LE(held(), 5u);
    }
    // The same batches as with all of them open, by several threads.
    DatasetOptions all = options;
    all.open_files = 1000;
    const Dataset other = open(all);
    EXPECT_EQ(set.fingerprint(), other.fingerprint());
    Graph graph(50);
    graph.add_input(PortUse::input, "input",
                    TensorDesc::of_sample(DType::f32, 50, std::array<std::int64_t, 3>{1, 6, 5}));
    graph.add_input(PortUse::target, "target", {DType::i32, Shape{50}});
    LoaderOptions loading;
    loading.layout = batch_layout(graph);
    loading.ports.resize(2);
    loading.ports[0].source = 0;
    loading.ports[1].source = 1;
    loading.ports[1].use = PortUse::target;
    loading.global_batch = 50;
    loading.threads = 3;
    const auto a = Loader::training(set, loading), b = Loader::training(other, loading);
    for (int step = 0; step < 20; ++step) {
      const Batch &x = a->next(), &y = b->next();
      ASSERT_EQ(std::memcmp(x.memory.data(), y.memory.data(), x.memory.size()), 0);
      a->release();
      b->release();
    }
  }
}

TEST_F(OpenFilesTest, FollowsTheSystemsLimit) {
  make();
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  std::size_t used = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++used;
  rlimit low = before;
  low.rlim_cur = used + 16;  // far fewer than there are shards
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
  EXPECT_EQ(OpenFiles().limit(), std::max<std::size_t>(8, low.rlim_cur / 4));
  std::uint64_t good = 0;
  try {
    DatasetOptions options;
    options.cache_mib = 0;
    const Dataset set = open(options);
    std::vector<std::byte> scratch(30);
    for (std::uint64_t i = 0; i < 600; ++i) good += right(set, i * 371 % 600, scratch.data());
  } catch (const Error& error) {
    ADD_FAILURE() << error.what();
  }
  ::setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_EQ(good, 600u);
}

TEST_F(OpenFilesTest, ReadsWhatIsNeededWhenItIsNeeded) {
  make();
  DatasetOptions options;
  options.part = {1, 3};
  {  // of an evaluation set in memory, the share of one rank of three
    const Dataset set = open(options);
    EXPECT_TRUE(set.in_memory());
    EXPECT_EQ(part_begin(600, 1, 3), 200u);
    for (std::uint64_t s = 0; s < shards; ++s) std::filesystem::rename(path(s), path(s) + ".away");
    for (std::uint64_t i = 200; i < 400; ++i) ASSERT_TRUE(right(set, i, nullptr));
    for (std::uint64_t s = 0; s < shards; ++s) std::filesystem::rename(path(s) + ".away", path(s));
    std::vector<std::byte> scratch(30);
    for (std::uint64_t i = 0; i < 600; i += 7) ASSERT_TRUE(right(set, i, scratch.data()));
  }
  options = {};
  options.cache_mib = 0;
  options.open_files = 2;
  const Dataset set = open(options);
  std::vector<std::byte> scratch(30);
  std::filesystem::remove(path(30));
  for (std::uint64_t i = 0; i < 600; ++i) {
    if (i / rows != 30) ASSERT_TRUE(right(set, i, scratch.data()));
  }
  EXPECT_HAS(message_of([&] { set.row(0, 305, scratch.data()).data; }), "s-30.h5: cannot be read: No such file");
}

TEST_F(OpenFilesTest, NoticesAFileThatWasReplaced) {
  make();
  DatasetOptions options;
  options.cache_mib = 0;
  options.open_files = 1;
  const Dataset set = open(options);
  std::vector<std::byte> scratch(30);
  ASSERT_TRUE(right(set, 3, scratch.data()));
  ASSERT_TRUE(right(set, 599, scratch.data()));
  write_images(path(0), rows, {1, 6, 5}, {}, 17);
  EXPECT_HAS(message_of([&] { set.row(0, 3, scratch.data()).data; }),
             "s-00.h5: was replaced or changed while it was in use");
}

}  // namespace
}  // namespace dtrain::io
