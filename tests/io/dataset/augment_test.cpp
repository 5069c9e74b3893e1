#include "io/dataset/augment.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <map>
#include <numbers>
#include <random>

#include <nlohmann/json.hpp>

#include "io/dataset/stream.hpp"
#include "runtime/input/augment_math.hpp"
#include "tests/io/dataset/short_form.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"

namespace dtrain::io {
namespace {

using testing::Folder;
using testing::pixel;
using testing::ShortForm;
using testing::Spec;
using testing::write_images;
using Json = nlohmann::json;

constexpr int height = 11, width = 14;

Dataset open(const std::string& path) {
  return Dataset(std::vector<std::string>{path});
}

const Json& goldens() {
  static const Json json = Json::parse(std::ifstream("tests/golden/augment.json"));
  return json;
}

TEST(AugmentMath, ResamplesAsPillowDoes) {
  const auto pixels = goldens().at("pixels").get<std::vector<std::uint8_t>>();
  const StoredImage<std::uint8_t> image{pixels.data(), height, width, width * 3, 3, 1};
  for (const Json& golden : goldens().at("maps")) {
    const auto m = golden.at("map").get<std::vector<float>>();
    SCOPED_TRACE(golden.at("map").dump());
    const AffineMap map{m[0], m[1], m[2], m[3], m[4], m[5]};
    const int h = golden.at("height"), w = golden.at("width");
    std::size_t at = 0;
    for (int y = 0; y < h; ++y) {
      for (int x = 0; x < w; ++x) {
        const Neighbours n = neighbours(image, source_of(map, x, y));
        // Pillow keeps positions in double: 1e-6 of a pixel times 255, and its output was rounded to 1e-3.
        for (int c = 0; c < 3; ++c, ++at) ASSERT_NEAR(bilinear(image, n, c), golden.at("out")[at].get<float>(), 2e-3);
      }
    }
  }
}

TEST(AugmentMath, RecolorsAsTorchvisionDoes) {
  const auto pixels = goldens().at("pixels").get<std::vector<std::uint8_t>>();
  for (const Json& golden : goldens().at("colors")) {
    const auto c = golden.at("color").get<std::vector<float>>();
    SCOPED_TRACE(golden.at("color").dump());
    const ColorChange change{c[0], c[1], c[2], c[3]};
    std::vector<float> image(pixels.begin(), pixels.end());
    double sum = 0;
    for (std::size_t i = 0; i < image.size(); i += 3) {
      for (std::size_t k = 0; k < 3; ++k) image[i + k] = clamped(image[i + k] * change.brightness, 255.0f);
      sum += static_cast<double>(gray(image[i], image[i + 1], image[i + 2]));
    }
    const auto mean = static_cast<float>(sum / (height * width));
    for (std::size_t i = 0; i < image.size(); i += 3) {
      change_color(change, mean, 255.0f, image[i], image[i + 1], image[i + 2]);
      // Single against double precision; hue divides by the span of a pixel, which may be small.
      for (std::size_t k = 0; k < 3; ++k) ASSERT_NEAR(image[i + k], golden.at("out")[i + k].get<float>(), 5e-3);
    }
  }
}

class Augment : public ::testing::Test {
 protected:
  Augment() { write_images(folder_ / "a.h5", 40, {height, width, 3}); }
  Augmenter make(const std::vector<Augmentation>& list, std::uint64_t seed = 3) {
    if (!set_) set_.emplace(open(folder_ / "a.h5"));
    return {*set_, 0, Shape{3, height, width}, normalize_, StoredLayout::unknown, list, seed};
  }
  std::vector<float> run(const Augmenter& augmenter, std::uint64_t sample, std::uint64_t position) {
    std::vector<float> out(height * width * 3, -1000.0f);
    EXPECT_EQ(augmenter(set_->row(0, sample, nullptr).data, position, out.data()), -1);
    return out;
  }
  /// The normalized value of a stored pixel; 0 outside.
  float value(std::uint64_t sample, int y, int x, int c) const {
    const bool inside = y >= 0 && x >= 0 && y < height && x < width;
    const int stored = inside ? pixel(sample, static_cast<std::uint64_t>((y * width + x) * 3 + c)) : 0;
    const auto i = static_cast<std::size_t>(c);
    return static_cast<float>(stored * (normalize_.scale / normalize_.standard_deviation[i]) -
                              normalize_.mean[i] / normalize_.standard_deviation[i]);
  }
  Folder folder_;
  std::optional<Dataset> set_;
  Normalize normalize_{1.0 / 255, {0.1, 0.5, 0.3}, {0.2, 0.3, 0.25}};
};

TEST_F(Augment, CropAndFlipMoveWholePixels) {
  const auto augmenter = make({RandomCrop{4}, Flip{0.5, 0.25}});
  std::map<std::pair<int, int>, int> seen;
  int mirrored = 0, upside_down = 0;
  constexpr int draws = 2000;
  for (std::uint64_t position = 0; position < draws; ++position) {
    const auto d = augmenter.draw(position);
    ASSERT_TRUE(d.exact());
    const bool mirror = d.xx < 0, over = d.yy < 0;
    const int left = static_cast<int>(mirror ? d.x0 - width : d.x0),
              top = static_cast<int>(over ? d.y0 - height : d.y0);
    ++seen[{top, left}];
    mirrored += mirror;
    upside_down += over;
    const std::uint64_t sample = position % 40;
    const auto out = run(augmenter, sample, position);
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        const int from_y = top + (over ? height - 1 - y : y), from_x = left + (mirror ? width - 1 - x : x);
        for (int c = 0; c < 3; ++c) {
          ASSERT_EQ(out[static_cast<std::size_t>((y * width + x) * 3 + c)], value(sample, from_y, from_x, c));
        }
      }
    }
  }
  EXPECT_EQ(seen.size(), 81u);  // every shift of -4 ... 4
  for (const auto& [shift, count] : seen) EXPECT_LT(count, 60) << "25 are expected";
  EXPECT_NEAR(mirrored, draws / 2, 100);  // 4.5 deviations
  EXPECT_NEAR(upside_down, draws / 4, 90);
}

TEST_F(Augment, NothingDrawnIsPlainConversion) {
  normalize_ = {1.0 / 255, {0.5}, {0.2}};
  normalize_.mean.assign(3, 0.5);
  normalize_.standard_deviation.assign(3, 0.2);
  const auto augmenter = make({RandomCrop{0}, Flip{0, 0}});
  const auto out = run(augmenter, 5, 77);
  for (int i = 0; i < height * width * 3; ++i)
    ASSERT_EQ(out[static_cast<std::size_t>(i)], value(5, i / 3 / width, i / 3 % width, i % 3));
}

TEST_F(Augment, EachKindIsKeyedByItself) {
  const std::vector<Augmentation> list{RandomCrop{2}, Flip{}, Rotation{30}, Scaling{{0.7, 1.5}}, RandomResizedCrop{}};
  const auto all = make(list);
  std::vector<Augmenter> single;
  for (const auto& a : list) single.push_back(make({a}));
  for (std::uint64_t position = 0; position < 200; ++position) {
    const auto d = all.draw(position);
    for (const auto& [px, py] : {std::pair{0.5, 0.5}, {13.5, 2.0}, {3.25, 10.5}}) {
      double x = px, y = py;  // back through the stages, last first
      for (auto stage = single.rbegin(); stage != single.rend(); ++stage) {
        const auto s = stage->draw(position);
        const double to_x = s.xx * x + s.xy * y + s.x0, to_y = s.yx * x + s.yy * y + s.y0;
        x = to_x;
        y = to_y;
      }
      ASSERT_NEAR(d.xx * px + d.xy * py + d.x0, x, 1e-9);
      ASSERT_NEAR(d.yx * px + d.yy * py + d.y0, y, 1e-9);
    }
  }
}

TEST_F(Augment, WhatIsDrawnStaysInItsRange) {
  const auto rotate = make({Rotation{15}}), scale = make({Scaling{{0.5, 2}}}),
             crop = make({RandomResizedCrop{{0.2, 0.9}, {0.5, 2}}});
  const auto color = make({ColorJitter{0.4, 0.3, 1.2, 0.1}});
  double least = 10, most = 0;
  for (std::uint64_t p = 0; p < 1000; ++p) {
    const auto r = rotate.draw(p);
    EXPECT_NEAR(r.xx * r.yy - r.xy * r.yx, 1, 1e-12);
    EXPECT_GE(r.xx, std::cos(15 * std::numbers::pi / 180) - 1e-12);
    EXPECT_NEAR(r.xx * width / 2 + r.xy * height / 2 + r.x0, width / 2.0, 1e-12) << "the centre stays";
    EXPECT_NEAR(r.yx * width / 2 + r.yy * height / 2 + r.y0, height / 2.0, 1e-12);
    const auto s = scale.draw(p);
    EXPECT_EQ(s.xx, s.yy);
    EXPECT_TRUE(s.xx >= 0.5 && s.xx <= 2);
    const auto c = crop.draw(p);
    const double w = c.xx * width, h = c.yy * height;
    EXPECT_TRUE(c.x0 >= 0 && c.x0 + w <= width + 1e-9 && c.y0 >= 0 && c.y0 + h <= height + 1e-9);
    least = std::min(least, w * h / (width * height));
    most = std::max(most, w * h / (width * height));
    const auto k = color.draw(p).color;
    EXPECT_TRUE(k.brightness >= 0.6f && k.brightness <= 1.4f && k.contrast >= 0.7f && k.contrast <= 1.3f);
    EXPECT_TRUE(k.saturation >= 0 && k.saturation <= 2.2f && k.hue >= -0.1f && k.hue <= 0.1f);
  }
  EXPECT_LT(least, 0.25);  // whole pixels: windows are rounded
  EXPECT_GT(most, 0.8);
}

TEST_F(Augment, ColorsKeepTheirRangeAndNormalizeLast) {
  const auto augmenter = make({ColorJitter{0.9, 0.9, 0.9, 0.5}, Rotation{40}});
  for (std::uint64_t p = 0; p < 50; ++p) {
    const auto out = run(augmenter, p % 40, p);
    for (std::size_t i = 0; i < out.size(); ++i) {
      const std::size_t c = i % 3;
      const double stored = (static_cast<double>(out[i]) * normalize_.standard_deviation[c] + normalize_.mean[c]) * 255;
      ASSERT_GE(stored, -1e-3);
      ASSERT_LE(stored, 255.001);
    }
  }
}

TEST_F(Augment, ColorsInADrawnOrderAreTorchvisions) {
  const Json golden = Json::parse(std::ifstream("tests/golden/rand_augment.json"));
  const auto factors = golden.at("orders")[0].at("factors").get<std::vector<float>>();
  const auto pixels = golden.at("images")[0].at("values").get<std::vector<std::uint8_t>>();
  for (const Json& example : golden.at("orders")) {
    SCOPED_TRACE(example.at("order").dump());
    std::vector<float> image(pixels.begin(), pixels.end());
    recolor_in_order({factors[0], factors[1], factors[2], factors[3]}, example.at("order"), 255, image);
    for (std::size_t i = 0; i < image.size(); ++i)
      ASSERT_NEAR(image[i], example.at("out")[i].get<float>(), 5e-3);  // as RecolorsAsTorchvisionDoes
  }
  ColorJitter jitter{0.4, 0.4, 0.4, 0.1};
  const auto in_order = make({jitter});
  jitter.random_order = true;
  const auto augmenter = make({jitter});
  std::map<std::array<std::uint8_t, 4>, int> seen;
  constexpr int draws = 4800;
  for (std::uint64_t p = 0; p < draws; ++p) {
    const auto d = augmenter.draw(p);
    ++seen[d.order];
    EXPECT_EQ(d.color.hue, in_order.draw(p).color.hue) << "the order changes no other draw";
  }
  EXPECT_EQ(seen.size(), 24u);
  for (const auto& [order, count] : seen) EXPECT_NEAR(count, draws / 24, 63);  // 4.5 deviations
}

TEST_F(Augment, RandAugmentAndErasingComeAfterTheOthers) {
  const std::vector<Augmentation> first{RandomCrop{2}, Flip{}}, rand{RandomCrop{2}, Flip{}, RandAugment{2, 15}};
  RandomErasing always;
  always.probability = 1;
  std::vector<Augmentation> all = rand;
  all.insert(all.begin(), always);  // its place in the list does not matter
  const auto before = make(first), between = make(rand), after = make(all);
  int changed = 0;
  for (std::uint64_t p = 0; p < 60; ++p) {
    const auto d = after.draw(p);
    EXPECT_EQ(d.x0, before.draw(p).x0);
    ASSERT_GT(d.erased.width, 0);
    const auto plain = run(before, p % 40, p), moved = run(between, p % 40, p), erased = run(after, p % 40, p);
    changed += plain != moved;
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        const bool inside = x >= d.erased.left && x < d.erased.left + d.erased.width && y >= d.erased.top &&
                            y < d.erased.top + d.erased.height;
        for (int c = 0; c < 3; ++c) {
          const auto i = static_cast<std::size_t>((y * width + x) * 3 + c);
          ASSERT_EQ(erased[i], inside ? 0.0f : moved[i]);
          // Whole bytes, normalized.
          const auto n = static_cast<std::size_t>(c);
          const double stored =
              (static_cast<double>(moved[i]) * normalize_.standard_deviation[n] + normalize_.mean[n]) * 255;
          ASSERT_NEAR(stored, std::nearbyint(stored), 1e-3);
        }
      }
    }
  }
  EXPECT_GT(changed, 45);
}

TEST_F(Augment, FloatsAndChannelsFirstGiveTheSame) {
  // The same pixels as float32 [C, H, W].
  std::vector<float> planes(40 * 3 * height * width);
  for (std::uint64_t i = 0; i < 40; ++i)
    for (std::uint64_t p = 0; p < height * width; ++p)
      for (std::uint64_t c = 0; c < 3; ++c) planes[(i * 3 + c) * height * width + p] = pixel(i, p * 3 + c);
  Spec spec, labels;
  spec.dims = {40, 3, height, width};
  spec.file_type = H5T_IEEE_F32LE;
  spec.memory_type = H5T_NATIVE_FLOAT;
  labels.dims = {40};
  const std::vector<std::uint8_t> zeros(40);
  {
    testing::H5File file(folder_ / "f.h5");
    file.add("images", spec, planes.data());
    file.add("labels", labels, zeros.data());
  }
  const Dataset floats = open(folder_ / "f.h5");
  for (const std::vector<Augmentation>& list : {std::vector<Augmentation>{RandomCrop{3}, Flip{}},
                                                {Rotation{30}},
                                                {RandomResizedCrop{}, ColorJitter{0.3, 0.3, 0.3, 0.1}},
                                                {Flip{}, ColorJitter{0.3, 0.3, 0.3, 0.1, true}, RandomErasing{}}}) {
    const auto bytes = make(list);
    const Augmenter other(floats, 0, Shape{3, height, width}, normalize_, StoredLayout::unknown, list, 3);
    for (std::uint64_t p = 0; p < 40; ++p) {
      const auto expected = run(bytes, p, p);
      std::vector<float> out(expected.size());
      ASSERT_EQ(other(floats.row(0, p, nullptr).data, p, out.data()), -1);
      for (std::size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], expected[i], 2e-5);
    }
  }
}

TEST_F(Augment, NeitherRanksNorThreadsNorMicroBatchesMatter) {
  const Dataset set = open(folder_ / "a.h5");
  ShortForm options;
  options.input = Shape{3, height, width};
  options.normalize = normalize_;
  options.augment = {RandomCrop{4},   Flip{},       Rotation{10}, ColorJitter{0.2, 0.2, 0.2, 0.05, true},
                     RandomErasing{}, RandAugment{}};
  options.global_batch = 24;
  options.seed = 11;
  std::map<std::uint64_t, std::vector<float>> expected;  // by position
  const std::size_t elements = 3 * height * width;
  for (const auto& [ranks, micro, threads] : {std::tuple{1, 24, 1}, {1, 8, 3}, {2, 6, 2}, {4, 3, 1}, {3, 8, 2}}) {
    for (int rank = 0; rank < ranks; ++rank) {
      options.rank = rank;
      options.ranks = ranks;
      options.micro_batch = micro;
      options.threads = threads;
      const auto loader = testing::training(set, options);
      for (std::int64_t i = 0; i < 5 * loader->batches(); ++i) {
        const Batch& batch = loader->next();
        for (std::int64_t k = 0; k < micro; ++k) {
          const float* sample = batch.ports[0].as<float>() + static_cast<std::size_t>(k) * elements;
          const std::vector<float> values(sample, sample + elements);
          const auto [entry, first] = expected.try_emplace(batch.positions.as<std::uint64_t>()[k], values);
          ASSERT_TRUE(entry->second == values) << "position " << entry->first << " on " << ranks << " ranks";
        }
        loader->release();
      }
    }
  }
  EXPECT_EQ(expected.size(), 120u);
  // The same sample in another epoch is another picture; evaluation changes nothing.
  const SampleStream stream(40, 11, true, set.blocks());
  std::vector<std::uint64_t> indices(120);
  stream.indices(0, indices);
  const auto again = std::find(indices.begin() + 40, indices.end(), indices[0]) - indices.begin();
  EXPECT_NE(expected.at(0), expected.at(static_cast<std::uint64_t>(again)));
  options.rank = 0;
  options.ranks = 1;
  const auto evaluation = testing::evaluation(set, options);
  const Batch& plain = evaluation->next();
  for (int c = 0; c < 3; ++c) EXPECT_EQ(plain.ports[0].as<float>()[c], value(0, 0, 0, c));
}

TEST_F(Augment, RefusesWhatDoesNotSuit) {
  const Dataset set = open(folder_ / "a.h5");
  const std::vector<Augmentation> flip{Flip{}}, color{ColorJitter{}};
  const auto check = [](const Dataset& data, const Shape& input, const std::vector<Augmentation>& list) {
    ShortForm form;
    form.input = input;
    form.augment = list;
    const LoaderOptions options = testing::options_of(data, form, false);
    check_ports(data, options.layout, options.ports);
  };
  EXPECT_HAS(testing::message_of<ConfigError>([&] { check(set, Shape{3 * height * width}, flip); }),
             "flip needs images");
  check(set, Shape{3 * height * width}, {});
  write_images(folder_ / "gray.h5", 4, {1, 6, 5});
  EXPECT_HAS(testing::message_of<ConfigError>([&] {
               check(open(folder_ / "gray.h5"), Shape{1, 6, 5}, color);
             }),
             "color_jitter needs 3 channels");
  check(open(folder_ / "gray.h5"), Shape{1, 6, 5}, {RandAugment{}, RandomErasing{}});
  write_images(folder_ / "two.h5", 4, {2, 6, 5});
  EXPECT_HAS(testing::message_of<ConfigError>([&] {
               check(open(folder_ / "two.h5"), Shape{2, 6, 5}, {RandAugment{}});
             }),
             "rand_augment needs 1 or 3 channels");
}

}  // namespace
}  // namespace dtrain::io
