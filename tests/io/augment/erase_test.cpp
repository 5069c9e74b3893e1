// Random erasing: the statistics of its rectangles beside torchvision's, and what they hold.
#include "io/augment/erase.hpp"

#include <cmath>
#include <fstream>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace dtrain::io {
namespace {

constexpr std::uint32_t sub = 6;

TEST(Erase, RectanglesHaveTorchvisionsStatistics) {
  const auto golden = nlohmann::json::parse(std::ifstream("tests/golden/rand_augment.json")).at("drawn");
  const int height = golden.at("height"), width = golden.at("width");
  const RandomKey key = random_key(5, Purpose::augment);
  constexpr int draws = 20000;
  double count = 0, area = 0, high = 0, wide = 0, left = 0, top = 0;
  for (std::uint64_t position = 0; position < draws; ++position) {
    const Rectangle r = draw_rectangle({}, key, position, sub, height, width);
    if (r.width == 0) continue;
    ASSERT_TRUE(r.left >= 0 && r.top >= 0 && r.left + r.width <= width && r.top + r.height <= height);
    count += 1;
    area += static_cast<double>(r.width) * r.height / (height * width);
    high += static_cast<double>(r.height) / height;
    wide += static_cast<double>(r.width) / width;
    left += static_cast<double>(r.left) / (width - r.width);
    top += static_cast<double>(r.top) / (height - r.height);
  }
  // Each side is a mean of 10,000 draws: their deviations (0.09 of areas, 0.19 of sides) / 100, times the root of 2,
  // four times.
  const auto& expected = golden.at("erasing");
  EXPECT_NEAR(count / draws, expected.at("part").get<double>(), 0.02);
  EXPECT_NEAR(area / count, expected.at("area").get<double>(), 0.006);
  EXPECT_NEAR(high / count, expected.at("height").get<double>(), 0.011);
  EXPECT_NEAR(wide / count, expected.at("width").get<double>(), 0.011);
  EXPECT_NEAR(left / count, 0.5, 0.02);
  EXPECT_NEAR(top / count, 0.5, 0.02);
}

TEST(Erase, ReplacesTheRectangleAlone) {
  constexpr int height = 40, width = 50, channels = 3;
  const RandomKey key = random_key(5, Purpose::augment);
  const Rectangle at{7, 4, 31, 33};
  for (const double value : {0.25, RandomErasing::random}) {
    RandomErasing erasing;
    erasing.value = value;
    std::vector<float> image(height * width * channels, 9), again = image;
    erase(erasing, key, 12, sub, at, width, channels, image.data());
    erase(erasing, key, 12, sub, at, width, channels, again.data());
    EXPECT_EQ(image, again);
    double sum = 0, squares = 0;
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        const bool inside = x >= 7 && x < 38 && y >= 4 && y < 37;
        for (int c = 0; c < channels; ++c) {
          const float v = image[static_cast<std::size_t>((y * width + x) * channels + c)];
          if (!inside || value != RandomErasing::random) {
            ASSERT_EQ(v, inside ? 0.25f : 9.0f);
            continue;
          }
          sum += static_cast<double>(v);
          squares += static_cast<double>(v) * static_cast<double>(v);
        }
      }
    }
    if (value != RandomErasing::random) continue;
    constexpr double n = 31 * 33 * channels;
    EXPECT_NEAR(sum / n, 0, 0.08);  // 4.4 deviations of a mean
    EXPECT_NEAR(squares / n, 1, 0.11);
  }
}

}  // namespace
}  // namespace dtrain::io
