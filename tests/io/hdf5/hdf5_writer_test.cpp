// New HDF5 files: nothing stays of one that is not finished, and names come back.
#include "io/hdf5/hdf5_writer.hpp"

#include <algorithm>

#include <fcntl.h>
#include <fmt/format.h>

#include "io/hdf5/names.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"

namespace dtrain::io::h5 {
namespace {

using testing::Folder;

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

/// Whoever is killed cannot tidy up: the next one does. What another process still writes stays.
TEST(Hdf5Writer, RemovesWhatAKilledProcessLeft) {
  const Folder folder;
  const std::string path = folder / "a.h5";
  const std::uint64_t dims[] = {1000};
  for (const char* other : {"a.h5.tmp-x", "a.h5.tmp-", "b.h5.tmp-7"}) testing::spill(folder / other, {'x'});
  testing::spill(path + ".tmp-123456789", {'x'});
  testing::spill(path + ".tmp-1", {'x'});
  const int held = ::open((path + ".tmp-1").c_str(), O_RDWR | O_CLOEXEC);
  struct flock whole {};
  whole.l_type = F_WRLCK;
  ASSERT_EQ(::fcntl(held, F_OFD_SETLK, &whole), 0);
  {
    Writer writer(path);
    const Writer other(folder / "c.h5");
    writer.add("x", StoredType::u8, dims);
    writer.commit();
  }
  ::close(held);
  EXPECT_EQ(names_in(folder / ""),
            (std::vector<std::string>{"a.h5", "a.h5.tmp-", "a.h5.tmp-1", "a.h5.tmp-x", "b.h5.tmp-7"}));
  EXPECT_EQ(File(path).list().text(), "/x uint8 [1000]");
}

TEST(Hdf5Writer, NamesComeBackFewAndMany) {
  const Folder folder;
  for (const std::size_t count : {std::size_t{1}, std::size_t{50}, std::size_t{40'000}}) {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < count; ++i) names.push_back(fmt::format("class {}/{}.jpg", i % 7, i));
    names.back() = std::string(300, 'x') + "\xc3\xa4";
    {
      Writer writer(folder / "n.h5");
      writer.add_names("file_names", names);
      writer.commit();
    }
    EXPECT_EQ(read_names(File(folder / "n.h5"), "/file_names"), names);
    EXPECT_LT(std::filesystem::file_size(folder / "n.h5"), 20'000 + 20 * count);  // short names cost little
    if (count > 1)
      EXPECT_HAS(testing::message_of([&] { read_names(File(folder / "n.h5"), "/file_names", count - 1); }),
                 "there are more than");
  }
}

}  // namespace
}  // namespace dtrain::io::h5
