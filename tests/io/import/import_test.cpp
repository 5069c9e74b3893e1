#include <cmath>
#include <filesystem>
#include <numeric>

#include <nlohmann/json.hpp>
#include <zlib.h>

#include "io/dataset/dataset.hpp"
#include "io/dataset/inspect.hpp"
#include "io/import/import_mnist.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"

namespace dtrain::io {
namespace {

using testing::Folder;
using testing::H5File;
using testing::message_of;
using testing::pixel;
using testing::Spec;

std::vector<char> idx(unsigned magic, const std::vector<unsigned>& dims, std::size_t bytes) {
  std::vector<char> out;
  const auto word = [&](unsigned v) {
    for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(v >> shift & 0xff));
  };
  word(magic);
  for (const unsigned d : dims) word(d);
  for (std::size_t i = 0; i < bytes; ++i) out.push_back(static_cast<char>(dims.size() == 1 ? i % 10 : i * 7 % 251));
  return out;
}

void spill_gzip(const std::string& path, const std::vector<char>& bytes) {
  const gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
  gzclose(file);
}

TEST(ImportMnist, PlainAndGzipGiveTheSameFile) {
  const Folder folder;
  const auto images = idx(0x803, {25, 6, 5}, 25 * 30), labels = idx(0x801, {25}, 25);
  testing::spill(folder / "i", images);
  testing::spill(folder / "l", labels);
  spill_gzip(folder / "i.gz", images);
  spill_gzip(folder / "l.gz", labels);
  const auto report = import_mnist(folder / "i", folder / "l", folder / "new/sub/plain.h5");
  import_mnist(folder / "i.gz", folder / "l.gz", folder / "gz.h5");
  EXPECT_EQ(report.samples, 25u);
  EXPECT_HAS(report.text(), "25 images of 1x6x5 (uint8), 10 classes");
  EXPECT_EQ(testing::slurp(folder / "new/sub/plain.h5"), testing::slurp(folder / "gz.h5"));
  const Dataset set(std::vector<std::string>{folder / "gz.h5"});
  EXPECT_EQ(set.count(), 25u);
  EXPECT_EQ(set.port(0).row, (Shape{1, 6, 5}));
  for (std::uint64_t i = 0; i < 25; ++i) {
    EXPECT_EQ(set.label(1, i), static_cast<int>(i % 10));
    for (std::uint64_t j = 0; j < 30; ++j)
      EXPECT_EQ(static_cast<unsigned>(set.row(0, i, nullptr).data[j]), (i * 30 + j) * 7 % 251);
  }
}

TEST(ImportMnist, WrongInputIsAClearErrorAndLeavesNothing) {
  const Folder folder;
  const auto images = idx(0x803, {25, 6, 5}, 25 * 30), labels = idx(0x801, {25}, 25);
  testing::spill(folder / "i", images);
  testing::spill(folder / "l", labels);
  const auto import = [&](const std::string& i, const std::string& l) {
    return message_of([&] { import_mnist(folder / i, folder / l, folder / "out.h5"); });
  };
  EXPECT_HAS(import("none", "l"), "No such file");
  EXPECT_HAS(import("l", "i"), "are images and labels mixed up?");
  testing::spill(folder / "text", std::vector<char>(1000, 'x'));
  EXPECT_HAS(import("text", "l"), "the magic number is 0x78787878, 0x00000803 was expected");
  testing::spill(folder / "l24", idx(0x801, {24}, 24));
  EXPECT_HAS(import("i", "l24"), "holds 24 labels");
  for (const std::size_t cut : {1, 30, 400, 750, 751, 760}) {
    testing::spill(folder / "cut", {images.begin(), images.end() - static_cast<std::ptrdiff_t>(cut)});
    EXPECT_HAS(import("cut", "l"), cut > 750 ? "header is cut short" : "is truncated in row");
  }
  auto more = images;
  more.push_back('x');
  testing::spill(folder / "more", more);
  EXPECT_HAS(import("more", "l"), "holds more than the 25 rows");
  spill_gzip(folder / "gz", images);
  auto packed = testing::slurp(folder / "gz");
  packed.resize(packed.size() / 2);
  testing::spill(folder / "halfgz", packed);
  EXPECT_NE(import("halfgz", "l"), "");
  packed = testing::slurp(folder / "gz");
  packed[packed.size() - 6] ^= 1;  // the checksum
  testing::spill(folder / "sumgz", packed);
  EXPECT_HAS(import("sumgz", "l"), "damaged");
  testing::spill(folder / "liar", idx(0x803, {0xffffffffu, 6, 5}, 100));
  testing::spill(folder / "liar1", idx(0x801, {0xffffffffu}, 100));
  EXPECT_HAS(import("liar", "liar1"), "is truncated");
  testing::spill(folder / "wide", idx(0x803, {25, 0xffffffffu, 0xffffffffu}, 100));
  EXPECT_HAS(import("wide", "l"), "the header is damaged");
  testing::spill(folder / "zero", idx(0x803, {0, 6, 5}, 0));
  testing::spill(folder / "zero1", idx(0x801, {0}, 0));
  EXPECT_HAS(import("zero", "zero1"), "holds no images");
  for (const auto& entry : std::filesystem::directory_iterator(folder / "")) {
    EXPECT_EQ(entry.path().string().find("out.h5"), std::string::npos) << entry.path();
  }
  testing::spill(folder / "file", {'x'});
  EXPECT_HAS(message_of([&] { import_mnist(folder / "i", folder / "l", folder / "file/out.h5"); }), "out.h5: ");
}

TEST(ImportMnist, TheRealOne) {
  const std::string from = std::filesystem::exists("data/mnist") ? "data/mnist/" : "../shared/data/mnist/";
  if (!std::filesystem::exists(from + "t10k-images-idx3-ubyte.gz")) GTEST_SKIP() << "no MNIST in data/mnist";
  const Folder folder;
  import_mnist(from + "t10k-images-idx3-ubyte.gz", from + "t10k-labels-idx1-ubyte.gz", folder / "test.h5");
  const Dataset set(std::vector<std::string>{folder / "test.h5"});
  ASSERT_EQ(set.count(), 10000u);
  EXPECT_EQ(set.port(1).class_count, 10);
  double sum = 0;
  for (std::uint64_t i = 0; i < 10000; ++i) {
    for (std::size_t j = 0; j < 784; ++j) sum += static_cast<double>(set.row(0, i, nullptr).data[j]);
  }
  EXPECT_NEAR(sum / (10000 * 784 * 255.0), 0.1325, 1e-4);  // the known mean of the test images
  EXPECT_EQ(set.label(1, 0), 7);
  EXPECT_HAS(inspect(folder / "test.h5").text, "samples of each: 980 1135 1032 1010 982 892 958 1028 974 1009");
}

TEST(MakeRegression, HoldsItsTruth) {
  const Folder folder;
  RegressionOptions options;
  options.samples = 4000;
  options.noise = 0.05;
  const auto truth = make_regression(folder / "r.h5", options);
  ASSERT_EQ(truth.weight.size(), 10u);
  const Dataset set(std::vector<std::string>{folder / "r.h5"});
  EXPECT_EQ(set.port(0).row, (Shape{10}));
  EXPECT_FALSE(set.port(1).index);
  EXPECT_EQ(set.port(1).row.elements(), 1);
  double squares = 0, mean = 0;
  for (std::uint64_t i = 0; i < set.count(); ++i) {
    const auto* x = reinterpret_cast<const float*>(set.row(0, i, nullptr).data);
    const double y = stored_number(set.port(1).type, set.row(1, i, nullptr).data);
    double predicted = static_cast<double>(truth.bias);
    for (std::size_t f = 0; f < 10; ++f) predicted += static_cast<double>(x[f]) * static_cast<double>(truth.weight[f]);
    squares += (y - predicted) * (y - predicted);
    mean += static_cast<double>(x[3]);
  }
  EXPECT_NEAR(std::sqrt(squares / 4000), 0.05, 0.003);  // five deviations of the estimate
  EXPECT_NEAR(mean / 4000, 0, 0.08);
  make_regression(folder / "again.h5", options);
  EXPECT_EQ(testing::slurp(folder / "r.h5"), testing::slurp(folder / "again.h5"));
  options.seed = 2;
  EXPECT_NE(make_regression(folder / "other.h5", options).weight, truth.weight);
  options.samples = 0;
  EXPECT_THROW(make_regression(folder / "none.h5", options), ConfigError);
}

TEST(Inspect, TextAndJsonSayWhatIsThere) {
  const Folder folder;
  Spec gzip;
  gzip.chunk = {16, 1, 6, 5};
  gzip.gzip = 1;
  gzip.shuffle = true;
  testing::write_images(folder / "a.h5", 100, {1, 6, 5}, gzip);
  const auto inspection = inspect(folder / "a.h5");
  EXPECT_HAS(inspection.text, "/images uint8 [100, 1, 6, 5]  chunked [16, 1, 6, 5], shuffle, gzip");
  EXPECT_HAS(inspection.text, "/labels uint8 [100]  contiguous");
  EXPECT_HAS(inspection.text, "samples: /images (100)");
  const auto json = nlohmann::json::parse(inspection.json);
  EXPECT_EQ(json["sample"], "/images");
  EXPECT_EQ(json["target"], "/labels");
  EXPECT_EQ(json["count"], 100);
  EXPECT_EQ(json["datasets"][0]["shape"], nlohmann::json({100, 1, 6, 5}));
  EXPECT_EQ(json["datasets"][0]["filters"], nlohmann::json({"shuffle", "gzip"}));
  EXPECT_EQ(json["datasets"][1]["max"], 9);
  std::uint64_t total = 0;
  for (const auto& c : json["classes"]) total += c.get<std::uint64_t>();
  EXPECT_EQ(total, 100u);
  {
    H5File file(folder / "link.h5");
    H5Lcreate_external("/etc/passwd", "/", file.id(), "images", H5P_DEFAULT, H5P_DEFAULT);
  }
  EXPECT_HAS(inspect(folder / "link.h5").text, "/images is an external link");
  EXPECT_THROW(inspect(folder / "none.h5"), DataError);
}

}  // namespace
}  // namespace dtrain::io
