// Files whose rows several ranks write at once: every row arrives at its place, and nothing appears before the end.
#include "io/hdf5/rows_file.hpp"

#include <cstring>
#include <numeric>

#include "io/dataset/dataset.hpp"
#include "io/hdf5/hdf5.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"
#include "tests/support/thread_group.hpp"

namespace dtrain::io {
namespace {

using testing::Folder;
using testing::message_of;

const std::vector<RowsColumn> columns{{"logits", StoredType::f32, {3}}, {"class", StoredType::i32, {}}};

TEST(RowsFile, HoldsTheRowsOfAllRanksInOrder) {
  const Folder folder;
  const std::string path = folder / "new/out.h5";
  constexpr std::uint64_t rows = 10'007;
  test::run_ranks(3, [&](Group& group) {
    RowsFile file(group, path, rows, columns, {{"checkpoint", "somewhere"}});
    const auto r = static_cast<std::uint64_t>(group.rank());
    const std::uint64_t begin = r * rows / 3, end = (r + 1) * rows / 3;
    for (std::uint64_t at = begin; at < end; at += 100) {
      const std::uint64_t n = std::min<std::uint64_t>(100, end - at);
      std::vector<float> logits(n * 3);
      std::iota(logits.begin(), logits.end(), static_cast<float>(at * 3));
      std::vector<std::int32_t> classes(n);
      std::iota(classes.begin(), classes.end(), static_cast<std::int32_t>(at));
      file.write(0, at, n, logits.data());
      file.write(1, at, n, classes.data());
    }
    EXPECT_FALSE(std::filesystem::exists(path));
    group.barrier();
    file.commit();
    EXPECT_TRUE(std::filesystem::exists(path));
  });
  const std::string files[] = {path};
  DatasetOptions options;
  options.ports = {{"input", PortUse::input, false, "logits", {}, {}},
                   {"target", PortUse::target, true, "class", {}, {}}};
  const Dataset data(files, options);
  ASSERT_EQ(data.count(), rows);
  std::vector<std::byte> scratch(data.port(0).row_bytes);
  for (std::uint64_t i = 0; i < rows; ++i) {
    float row[3];
    std::memcpy(row, data.row(0, i, scratch.data()).data, sizeof row);
    for (std::size_t k = 0; k < 3; ++k) ASSERT_EQ(row[k], static_cast<float>(i * 3 + k));
    ASSERT_EQ(data.label(1, i), static_cast<std::int32_t>(i));
  }
}

TEST(RowsFile, ThatIsNotCommittedLeavesNothing) {
  const Folder folder;
  test::run_ranks(2, [&](Group& group) {
    const RowsFile file(group, folder / "out.h5", 10, columns, {});
    group.barrier();
  });
  EXPECT_TRUE(std::filesystem::is_empty(folder / ""));
}

TEST(RowsFile, ThatCannotBeMadeIsOneErrorOnAllRanks) {
  const Folder folder;
  std::ofstream(folder / "file") << "x";
  test::run_ranks(2, [&](Group& group) {
    const auto text =
        message_of<DataError>([&] { const RowsFile file(group, folder / "file/out.h5", 10, columns, {}); });
    EXPECT_NE(text.find("out.h5"), std::string::npos) << text;
  });
}

}  // namespace
}  // namespace dtrain::io
