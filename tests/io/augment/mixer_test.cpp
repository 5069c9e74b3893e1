// What mixup and cutmix draw: beta distributions by their moments, and rectangles beside torchvision's.
#include "io/augment/mixer.hpp"

#include <cmath>
#include <fstream>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace dtrain::io {
namespace {

TensorDesc images(std::int64_t height, std::int64_t width) {
  return {DType::f32, Shape{2, height, width, 3}};
}

TEST(Mixer, PartsHaveTheMomentsOfTheBetaDistribution) {
  for (const double alpha : {0.01, 0.2, 0.8, 1.0, 4.0, 300.0}) {
    SCOPED_TRACE(alpha);
    Mix mix;
    mix.mixup = alpha;
    const Mixer mixer(mix, images(4, 4), 9);
    constexpr int draws = 20000;
    double mean = 0, square = 0, fourth = 0;
    for (std::uint64_t position = 0; position < draws; ++position) {
      const Mixer::Draw d = mixer.draw(position);
      ASSERT_FALSE(d.cut);
      ASSERT_TRUE(d.own >= 0 && d.own <= 1);
      const double from_middle = static_cast<double>(d.own) - 0.5;
      mean += from_middle / draws;
      square += from_middle * from_middle / draws;
      fourth += std::pow(from_middle, 4) / draws;
    }
    // Of Beta(a, a): variance 1 / (4 (2a + 1)), and the fourth moment about the mean is 3 / (16 (2a + 1) (2a + 3)).
    const double variance = 1 / (4 * (2 * alpha + 1)), of_fourth = 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3));
    EXPECT_NEAR(mean, 0, 4.5 * std::sqrt(variance / draws));
    EXPECT_NEAR(square, variance, 4.5 * std::sqrt((of_fourth - variance * variance) / draws) + 1e-6);
    EXPECT_NEAR(fourth, of_fourth, 0.03 * of_fourth);
  }
}

TEST(Mixer, RectanglesHaveTorchvisionsStatistics) {
  const auto golden = nlohmann::json::parse(std::ifstream("tests/golden/rand_augment.json")).at("drawn");
  const int height = golden.at("height"), width = golden.at("width");
  Mix mix;
  mix.cutmix = 1;
  const Mixer mixer(mix, images(height, width), 9);
  constexpr int draws = 20000;
  double mean = 0, square = 0;
  for (std::uint64_t position = 0; position < draws; ++position) {
    const Mixer::Draw d = mixer.draw(position);
    ASSERT_TRUE(d.cut);
    ASSERT_TRUE(d.left >= 0 && d.left <= d.right && d.right <= width);
    ASSERT_TRUE(d.top >= 0 && d.top <= d.bottom && d.bottom <= height);
    const double area = static_cast<double>(d.right - d.left) * (d.bottom - d.top);
    ASSERT_NEAR(static_cast<double>(d.own), 1 - area / (height * width), 1e-7);
    mean += static_cast<double>(d.own) / draws;
    square += static_cast<double>(d.own) * static_cast<double>(d.own) / draws;
  }
  // Deviations of about 0.24 over the root of 20,000, on both sides, four times.
  EXPECT_NEAR(mean, golden.at("cutmix").at("mean").get<double>(), 0.0095);
  EXPECT_NEAR(square, golden.at("cutmix").at("square").get<double>(), 0.0115);
}

TEST(Mixer, ProbabilitiesChooseTheKind) {
  const Mixer mixer({0.5, 0.5, 0.8, 0.25}, images(32, 32), 9);
  constexpr int draws = 20000;
  int cut = 0, plain = 0;
  for (std::uint64_t position = 0; position < draws; ++position) {
    const Mixer::Draw d = mixer.draw(position);
    cut += d.cut;
    plain += !d.cut && d.own == 1;
  }
  EXPECT_NEAR(cut, draws * 0.8 * 0.25, 255);  // 4.5 deviations
  // Beta(0.5, 0.5) gives exactly 1, rounded to 2^-20, with 2 / pi * asin(2^-10.5) = 0.00044.
  EXPECT_NEAR(plain, draws * (0.2 + 0.8 * 0.75 * 0.00044), 260);
}

TEST(Mixer, MixesValuesAndCutsRectangles) {
  constexpr int height = 6, width = 8;
  Mix mix;
  mix.cutmix = 1;
  const Mixer mixer(mix, images(height, width), 9);
  std::vector<float> own(height * width * 3, 1), other(own.size(), 2);
  mixer.mix({0.75f, true, 2, 1, 5, 4}, other.data(), own.data());
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < 3; ++c)
        ASSERT_EQ(own[static_cast<std::size_t>((y * width + x) * 3 + c)], x >= 2 && x < 5 && y >= 1 && y < 4 ? 2 : 1);
  std::fill(own.begin(), own.end(), 1.0f);
  mixer.mix({0.75f, false, 0, 0, 0, 0}, other.data(), own.data());
  for (const float v : own) ASSERT_EQ(v, 1.25f);
}

}  // namespace
}  // namespace dtrain::io
