// A file of records under a disk that is full for a moment, and a folder that is removed: whole records only, and said
// once.
#include "launch/report/append_file.hpp"

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include "launch/base/signals.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {
namespace {

namespace fs = std::filesystem;

class AppendFiles : public testing::Test {
 protected:
  AppendFiles() : folder_(fs::temp_directory_path() / ("dtrain-append-" + std::to_string(getpid()))) {
    fs::create_directories(folder_);
  }
  ~AppendFiles() override { fs::remove_all(folder_); }
  std::string path() const { return (folder_ / "records").string(); }
  std::string text() const {
    std::ifstream in(path());
    return {std::istreambuf_iterator<char>(in), {}};
  }
  fs::path folder_;
};

/// As where a disk is full: a write takes what fits, the next one nothing.
void limit_files_to(rlim_t bytes) {
  rlimit limit{};
  getrlimit(RLIMIT_FSIZE, &limit);
  limit.rlim_cur = bytes;
  setrlimit(RLIMIT_FSIZE, &limit);
}

TEST_F(AppendFiles, HoldWholeRecordsOnlyWhereTheDiskIsFullForAMoment) {
  const std::string first = std::string(4000, 'x') + '\n';  // longer than the warning, which goes to a file, too
  EXPECT_EXIT(
      {
        block_signals({SIGXFSZ});
        AppendFile file(path(), "metrics");
        file.append(first);
        limit_files_to(first.size() + 4);
        file.append("second\n");
        file.append("third\n");
        limit_files_to(RLIM_INFINITY);
        file.append("fourth\n");
        std::_Exit(text() == first + "fourth\n" ? 0 : 1);
      },
      testing::ExitedWithCode(0), "^warning: .*records: cannot write metrics: File too large; training goes on\n$");
}

TEST_F(AppendFiles, AreMadeAgainWithAllTheyHadWhereTheirFolderIsRemoved) {
  AppendFile file(path(), "metrics");
  file.append("first\n");
  EXPECT_FALSE(file.made_again());
  fs::remove_all(folder_);
  file.append("second\n");
  EXPECT_TRUE(file.made_again());
  EXPECT_FALSE(file.made_again());
  file.append("third\n");
  EXPECT_EQ(text(), "first\nsecond\nthird\n");
}

TEST_F(AppendFiles, DoNotWriteIntoWhatIsThereWhereTheyAreToBeFresh) {
  std::ofstream(path()) << "old";
  EXPECT_THROW(AppendFile(path(), "events", true), DataError);
  EXPECT_EQ(text(), "old");
}

}  // namespace
}  // namespace dtrain::launch
