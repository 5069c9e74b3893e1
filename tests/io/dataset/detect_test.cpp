// Which data sets of a file the usual names mean.
#include <string>
#include <vector>

#include "io/dataset/dataset.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"

namespace dtrain::io {
namespace {

using testing::Folder;
using testing::H5File;

/// One file with both halves, by its names or by its groups.
TEST(Detect, EvaluationReadsTheOtherHalfOfAFile) {
  const Folder folder;
  const std::vector<float> x(12, 1.5f);
  const std::vector<std::int64_t> y{0, 1, 0, 1};
  struct Names {
    std::vector<std::string> groups;
    std::string train[2], eval[2];
  };
  for (const Names& names :
       {Names{{}, {"x_train", "y_train"}, {"x_test", "y_test"}},
        Names{{}, {"train_images", "train_labels"}, {"val_images", "val_labels"}},
        Names{{}, {"x", "y"}, {"x_test", "y_test"}},
        Names{{"train", "test"}, {"train/x", "train/y"}, {"test/x", "test/y"}},
        Names{{"Train", "Validation"}, {"Train/data", "Train/label"}, {"Validation/data", "Validation/label"}}}) {
    {
      H5File file(folder / "a.h5");
      for (const std::string& group : names.groups) file.group(group);
      for (const auto* half : {names.train, names.eval}) {
        file.add(half[0], {{4, 3}, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, {}, -1, false, false, false, ""}, x.data());
        file.add(half[1], {{4}, H5T_STD_I64LE, H5T_NATIVE_INT64, {}, -1, false, false, false, ""}, y.data());
      }
    }
    for (const bool evaluation : {false, true}) {
      DatasetOptions options;
      options.ports = {{.name = "input"}, {.name = "target", .use = PortUse::target, .index = true}};
      options.evaluation = evaluation;
      const Dataset set(std::vector<std::string>{folder / "a.h5"}, options);
      const std::string* wanted = evaluation ? names.eval : names.train;
      EXPECT_EQ(set.port(0).key, "/" + wanted[0]);
      EXPECT_EQ(set.port(1).key, "/" + wanted[1]);
    }
  }
}

}  // namespace
}  // namespace dtrain::io
