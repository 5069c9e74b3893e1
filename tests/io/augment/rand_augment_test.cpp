// RandAugment's operations on bytes, beside torchvision's, and how often each is drawn.
#include "io/augment/rand_augment.hpp"

#include <array>
#include <cstdlib>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace dtrain::io {
namespace {

using Json = nlohmann::json;

const Json& goldens() {
  static const Json json = Json::parse(std::ifstream("tests/golden/rand_augment.json"));
  return json;
}

ByteImage image_of(int channels) {
  for (const Json& image : goldens().at("images"))
    if (image.at("channels") == channels)
      return {goldens().at("height"), goldens().at("width"), channels,
              image.at("values").get<std::vector<std::uint8_t>>()};
  return {};
}

TEST(RandAugment, OperationsAreTorchvisions) {
  std::array<int, image_operations> seen{};
  for (const Json& golden : goldens().at("operations")) {
    const auto operation = golden.at("operation").get<ImageOperation>();
    SCOPED_TRACE(golden.at("operation").dump() + ", magnitude " + golden.at("magnitude").dump());
    ByteImage image = image_of(golden.at("channels"));
    const OperationDraw draw{operation, golden.at("negative")};
    apply(operation, strength_of(draw, golden.at("magnitude"), image.height, image.width), image);
    const auto expected = golden.at("out").get<std::vector<std::uint8_t>>();
    ASSERT_EQ(image.values.size(), expected.size());
    // torchvision finds places and factors in float32 of other formulas: a value in a hundred may be cut to the one
    // below, and a pixel whose place is between two may be the other one.
    std::size_t others = 0;
    const bool moves = operation >= ImageOperation::shear_x && operation <= ImageOperation::rotate;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const int difference = std::abs(int{image.values[i]} - int{expected[i]});
      others += difference != 0;
      ASSERT_LE(difference, moves ? 255 : 1) << i;
    }
    EXPECT_LE(others, expected.size() / 100);
    ++seen.at(static_cast<std::size_t>(operation));
  }
  for (const int count : seen) EXPECT_GE(count, 4);
}

TEST(RandAugment, DrawsEachOperationAlikeInBothDirections) {
  const RandomKey key = random_key(3, Purpose::augment);
  std::array<int, image_operations> seen{}, negative{};
  constexpr int draws = 28000;
  for (std::uint64_t position = 0; position < draws / 2; ++position) {
    for (std::uint32_t number = 0; number < 2; ++number) {
      const OperationDraw draw = draw_operation(key, position, 7, number);
      const auto i = static_cast<std::size_t>(draw.operation);
      ++seen.at(i);
      negative.at(i) += draw.negative;
    }
  }
  for (std::size_t i = 0; i < seen.size(); ++i) {
    EXPECT_NEAR(seen[i], draws / image_operations, 200);  // 4.6 deviations
    EXPECT_NEAR(negative[i], seen[i] / 2, 110);
  }
}

TEST(RandAugment, MagnitudesAreTorchvisions) {
  const auto strength = [](ImageOperation operation, std::int64_t magnitude, bool negative = false) {
    return strength_of({operation, negative}, magnitude, 224, 331);
  };
  EXPECT_DOUBLE_EQ(strength(ImageOperation::shear_x, 9), 0.09);
  EXPECT_DOUBLE_EQ(strength(ImageOperation::translate_x, 9, true), -45);
  EXPECT_DOUBLE_EQ(strength(ImageOperation::rotate, 30), 30);
  EXPECT_DOUBLE_EQ(strength(ImageOperation::contrast, 9, true), -0.27);
  EXPECT_DOUBLE_EQ(strength(ImageOperation::posterize, 9), 7);
  EXPECT_DOUBLE_EQ(strength(ImageOperation::posterize, 30), 4);
  EXPECT_DOUBLE_EQ(strength(ImageOperation::solarize, 0), 255);
  EXPECT_DOUBLE_EQ(strength(ImageOperation::equalize, 9), 0);
}

TEST(RandAugment, APositionAlwaysGivesTheSame) {
  const RandomKey key = random_key(3, Purpose::augment);
  int changed = 0;
  for (std::uint64_t position = 0; position < 50; ++position) {
    const ByteImage plain = image_of(3);
    ByteImage one = plain, other = plain;
    rand_augment({2, 15}, key, position, 7, one);
    rand_augment({2, 15}, key, position, 7, other);
    ASSERT_EQ(one.values, other.values);
    changed += one.values != plain.values;
  }
  EXPECT_GT(changed, 40);
}

}  // namespace
}  // namespace dtrain::io
