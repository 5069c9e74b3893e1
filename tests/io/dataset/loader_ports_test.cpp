// Batches of several ports against plain recomputation: index values, label maps that follow an image, the order in
// which a file stores its channels.
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include <fmt/format.h>

#include "io/dataset/augment.hpp"
#include "io/dataset/loader.hpp"
#include "tests/io/dataset/port_batch.hpp"
#include "tests/io/dataset/port_files.hpp"

namespace dtrain::io {
namespace {

using testing::add;
using testing::Folder;
using testing::H5File;
using testing::message_of;
using testing::PortBatch;
using testing::sample_of;

constexpr auto in = PortUse::input, label = PortUse::target, weight = PortUse::weight;

template <class Stored, class Value>
void check_index(DType type) {
  const Folder folder;
  std::vector<Stored> words(30 * 4);
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = static_cast<Stored>(i * 5 % 120);
  {
    H5File file(folder / "a.h5");
    add(file, "words", {30, 4}, words);
  }
  PortBatch ports;
  ports.port(in, "words", type, {4}).limit = 120;
  for (const double cache : {0.0, 1.0}) {
    const Dataset set = ports.open({folder / "a.h5"}, cache);
    const auto loader = Loader::training(set, ports.of(6));
    for (int k = 0; k < 10; ++k) {
      const Batch& batch = loader->next();
      for (std::int64_t i = 0; i < 6; ++i) {
        const auto got = sample_of<Value>(batch, 0, i);
        const std::uint64_t row = batch.indices[static_cast<std::size_t>(i)];
        for (std::size_t j = 0; j < 4; ++j) ASSERT_EQ(got[j], static_cast<Value>(words[row * 4 + j]));
      }
      loader->release();
    }
  }
}

TEST(LoaderPorts, IndexValuesAreInTheTypeOfThePort) {
  check_index<std::uint8_t, std::uint8_t>(DType::u8);
  check_index<std::uint8_t, std::int32_t>(DType::i32);
  check_index<std::uint16_t, std::uint16_t>(DType::u16);
  check_index<std::uint16_t, std::int32_t>(DType::i32);
  check_index<std::int8_t, std::int32_t>(DType::i32);
  check_index<std::int32_t, std::int32_t>(DType::i32);
  check_index<std::int64_t, std::int32_t>(DType::i32);
  check_index<std::int64_t, std::uint8_t>(DType::u8);
}

TEST(LoaderPorts, IndexValuesOutsideTheirRangeAreNamed) {
  const Folder folder;
  std::vector<std::int64_t> words(10 * 4, 3);
  std::vector<std::uint8_t> maps(10 * 2 * 3, 1);
  std::vector<std::int32_t> one(10, 2);
  const auto message = [&](PortBatch& ports) {
    {
      H5File file(folder / "a.h5");
      add(file, "words", {10, 4}, words);
      add(file, "map", {10, 1, 2, 3}, maps);
      add(file, "one", {10}, one);
    }
    ports.options.shuffle = false;
    const Dataset set = ports.open({folder / "a.h5"});
    const auto loader = Loader::training(set, ports.of(10));
    return message_of([&] { loader->next(); });
  };
  PortBatch text;
  text.port(in, "words", DType::i32, {4}).limit = 256;
  for (const std::int64_t bad : {std::int64_t{300}, std::int64_t{-1}, std::numeric_limits<std::int64_t>::min()}) {
    words[7 * 4 + 3] = bad;
    EXPECT_HAS(message(text),
               fmt::format("a.h5: /words, row 7, position 3: the value is {}, but the vocabulary has 256 "
                           "(0 to 255)",
                           bad));
  }
  words[7 * 4 + 3] = 65536;  // 0, if only its lower bytes were looked at
  PortBatch free;
  free.port(in, "words", DType::u16, {4});
  EXPECT_HAS(message(free), "/words, row 7, position 3: the value is 65536; expected 0 to 65535");
  maps[5 * 6 + 4] = 9;
  PortBatch map;
  PortOptions& o = map.port(label, "map", DType::u8, {2, 3});
  o.limit = 4;
  EXPECT_HAS(message(map), "a.h5: /map, row 5, position [1, 1]: the value is 9, but the model has 4 classes (0 to 3)");
  map.options.ports[0].ignore = 255;
  maps[0] = 255;
  EXPECT_HAS(message(map), "the value is 9, but the model has 4 classes (0 to 3), or 255, which is ignored");
  PortBatch category;
  category.port(in, "one", DType::i32, {}).limit = 2;
  EXPECT_HAS(message(category), "a.h5: /one, row 0: the value is 2, but the vocabulary has 2 (0 to 1)");
}

TEST(LoaderPorts, IndexValuesOfOtherShapesAreRefused) {
  const Folder folder;
  {
    H5File file(folder / "a.h5");
    add(file, "words", {10, 4}, std::vector<std::uint8_t>(40));
    add(file, "label", {10}, std::vector<std::uint8_t>(10, 7));
  }
  PortBatch longer;
  longer.port(in, "words", DType::u8, {5});
  const Dataset set = longer.open({folder / "a.h5"});
  EXPECT_HAS(message_of<ShapeError>([&] { Loader::training(set, longer.of(2)); }),
             "a.h5: /words holds samples of shape [4], but model.inputs.words has [5] a sample");
  PortBatch labels;
  labels.port(label, "words", DType::u8, {});
  const Dataset hot = labels.open({folder / "a.h5"});
  EXPECT_HAS(message_of([&] { Loader::training(hot, labels.of(2)); }),
             "/words uint8 [10, 4]: labels must be one integer a sample, [10], or one-hot rows of 256 values");
  PortBatch ignoring;
  PortOptions& o = ignoring.port(label, "words", DType::u8, {4});
  o.ignore = -1;
  const Dataset maps = ignoring.open({folder / "a.h5"});
  EXPECT_HAS(message_of<ConfigError>([&] { Loader::training(maps, ignoring.of(2)); }),
             "ignore: -1 is no uint8, which the labels are");
  // Labels of one integer a sample are looked at before anything is trained; what is ignored may be beyond.
  PortBatch few;
  few.port(label, "label", DType::i32, {}).limit = 5;
  const Dataset sevens = few.open({folder / "a.h5"});
  EXPECT_HAS(message_of([&] { Loader::training(sevens, few.of(2)); }),
             "/label, row 0: the label is 7, but the model has 5 classes");
  few.options.ports[0].ignore = 7;
  Loader::training(sevens, few.of(2));
}

// ---- hashes of rows ----------------------------------------------------------------------------------------------

TEST(LoaderPorts, HashesAreOfAllStoredRowsOnceWhateverIsMadeOfThem) {
  const Folder folder;
  constexpr std::size_t n = 12;
  std::vector<std::uint8_t> images(n * 8 * 8 * 3), labels(n);
  std::vector<float> prices(n), weights(n);
  std::vector<std::uint16_t> text;
  std::vector<std::int64_t> starts{0};
  for (std::size_t i = 0; i < images.size(); ++i) images[i] = static_cast<std::uint8_t>(i * 7);
  for (std::size_t i = 0; i < n; ++i) {
    labels[i] = static_cast<std::uint8_t>(i % 3);
    prices[i] = static_cast<float>(i) / 3;
    weights[i] = static_cast<float>(1 + i % 2);
    for (std::size_t j = 0; j < i % 4; ++j) text.push_back(static_cast<std::uint16_t>(i + j));
    starts.push_back(static_cast<std::int64_t>(text.size()));
  }
  {
    H5File file(folder / "a.h5");
    add(file, "image", {n, 8, 8, 3}, images);
    add(file, "text", {text.size()}, text);
    add(file, "starts", {n + 1}, starts);
    add(file, "label", {n}, labels);
    add(file, "price", {n, 1}, prices);
    add(file, "w", {n}, weights);
  }
  PortBatch ports;
  ports.port(in, "image", DType::f32, {3, 8, 8}).augment = {Flip{0.5, 0.5}, RandomCrop{2}};
  ports.port(in, "text", DType::i32, {4}, "", "/starts");
  ports.port(label, "label", DType::u8, {}).limit = 3;
  ports.port(label, "price", DType::f32, {1});
  ports.port(weight, "w", DType::f32, {});
  // The weights of another loss: the same data set again, and both are counted a step ahead.
  PortOptions& again = ports.port(weight, "again", DType::f32, {}, "-");
  again.source = 4;
  ports.options.counts = {{2, 4, {}, "a"}, {3, 5, {}, "b"}};
  ports.options.hash_rows = true;
  ports.options.threads = 2;
  for (const double cache : {0.0, 1024.0}) {
    const Dataset set = ports.open({folder / "a.h5"}, cache);
    const auto loader = Loader::training(set, ports.of(4));
    std::vector<std::byte> scratch(1024);
    for (int k = 0; k < 9; ++k) {
      const Batch& batch = loader->next();
      ASSERT_EQ(batch.hashes.size(), 4u);
      for (std::size_t i = 0; i < 4; ++i) {
        std::uint64_t sum = 0;
        for (const std::size_t p : {0u, 1u, 3u, 4u})
          sum += set.row_hash(p, batch.indices[i], set.row(p, batch.indices[i], scratch.data()));
        ASSERT_EQ(batch.hashes[i], sum) << batch.indices[i];
      }
      loader->release();
    }
  }
  ports.options.hash_rows = false;
  const Dataset set = ports.open({folder / "a.h5"});
  EXPECT_TRUE(Loader::training(set, ports.of(4))->next().hashes.empty());
}

// ---- label maps that follow an image --------------------------------------------------------------------------------

TEST(LoaderPorts, LabelMapsAndTheirWeightsFollowTheImage) {
  const Folder folder;
  constexpr std::size_t n = 12, h = 9, w = 11;
  std::vector<std::uint8_t> images(n * h * w * 3), maps(n * h * w);
  std::vector<float> weights(n * h * w), depth(n * 2 * h * w);
  for (std::size_t i = 0; i < images.size(); ++i) images[i] = static_cast<std::uint8_t>(i * 7);
  for (std::size_t i = 0; i < maps.size(); ++i) {
    maps[i] = static_cast<std::uint8_t>(i * 13 % 5);
    weights[i] = static_cast<float>(i % 17) * 0.5f;
  }
  for (std::size_t i = 0; i < depth.size(); ++i) depth[i] = static_cast<float>(i % 101);
  {
    H5File file(folder / "a.h5");
    add(file, "image", {n, h, w, 3}, images);
    add(file, "map", {n, h, w}, maps);
    add(file, "weight", {n, h, w}, weights);
    add(file, "depth", {n, 2, h, w}, depth);
  }
  for (const std::vector<Augmentation>& list :
       {std::vector<Augmentation>{RandomCrop{3}, Flip{0.5, 0.5}}, {Rotation{40}, Scaling{}}, {RandomResizedCrop{}}}) {
    PortBatch ports;
    ports.port(in, "image", DType::f32, {3, h, w}).augment = list;
    PortOptions& map = ports.port(label, "map", DType::u8, {h, w});
    map.limit = 5;
    map.ignore = 255;
    map.follow = 0;
    ports.port(label, "depth", DType::f32, {2, h, w}).follow = 0;
    PortOptions& per_pixel = ports.port(weight, "weight", DType::f32, {h, w}, "weight");
    per_pixel.target = 1;
    per_pixel.class_weights = {1, 2, 0.5, 4, 1};
    ports.options.seed = 9;
    const Dataset set = ports.open({folder / "a.h5"});
    const Augmenter augmenter(set, 0, Shape{3, h, w}, {}, StoredLayout::unknown, list, 9);
    const auto loader = Loader::training(set, ports.of(4));
    std::size_t outside = 0;
    for (int k = 0; k < 12; ++k) {
      const Batch& batch = loader->next();
      for (std::int64_t i = 0; i < 4; ++i) {
        const auto got = sample_of<std::uint8_t>(batch, 1, i);
        const auto of_depth = sample_of<float>(batch, 2, i), of_weight = sample_of<float>(batch, 3, i);
        const std::uint64_t row = batch.indices[static_cast<std::size_t>(i)];
        const AffineMap m = augmenter.draw(batch.positions.as<std::uint64_t>()[i]).map();
        for (std::size_t y = 0; y < h; ++y) {
          for (std::size_t x = 0; x < w; ++x) {
            const std::size_t at = y * w + x;
            const float px = static_cast<float>(x) + 0.5f, py = static_cast<float>(y) + 0.5f;
            const float from_x = std::floor(m.xx * px + m.xy * py + m.x0),
                        from_y = std::floor(m.yx * px + m.yy * py + m.y0);
            const bool inside = from_x >= 0 && from_x < float{w} && from_y >= 0 && from_y < float{h};
            outside += inside ? 0 : 1;
            if (!inside) {
              ASSERT_EQ(got[at], 255);
              ASSERT_EQ(of_weight[at], 0.0f);
              ASSERT_EQ(of_depth[at * 2 + 1], 0.0f);
              continue;
            }
            const std::size_t from = static_cast<std::size_t>(from_y) * w + static_cast<std::size_t>(from_x);
            const std::uint8_t of_class = maps[row * h * w + from];
            ASSERT_EQ(got[at], of_class);
            const double factor = per_pixel.class_weights[of_class];
            ASSERT_EQ(of_weight[at], static_cast<float>(static_cast<double>(weights[row * h * w + from]) * factor));
            for (std::size_t c = 0; c < 2; ++c) ASSERT_EQ(of_depth[at * 2 + c], depth[(row * 2 + c) * h * w + from]);
          }
        }
      }
      loader->release();
    }
    EXPECT_EQ(outside > 0, !std::holds_alternative<RandomResizedCrop>(list[0]));
    // Evaluation changes neither.
    const auto evaluation = Loader::evaluation(set, ports.of(4));
    const auto plain = sample_of<std::uint8_t>(evaluation->next(), 1, 2);
    EXPECT_TRUE(std::equal(plain.begin(), plain.end(), maps.begin() + 2 * h * w));
  }
}

// An image whose pixels are its labels: both must move alike where nothing is interpolated.
TEST(LoaderPorts, AnImageAndItsCopyAsALabelMapStayAlike) {
  const Folder folder;
  std::vector<std::uint8_t> pixels(20 * 8 * 6);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i * 31);
  {
    H5File file(folder / "a.h5");
    add(file, "image", {20, 1, 8, 6}, pixels);
    add(file, "map", {20, 1, 8, 6}, pixels);
  }
  PortBatch ports;
  ports.port(in, "image", DType::f32, {1, 8, 6}).augment = {RandomCrop{2}, Flip{0.5, 0.5}};
  ports.port(label, "map", DType::u8, {8, 6}).follow = 0;
  const Dataset set = ports.open({folder / "a.h5"});
  const auto loader = Loader::training(set, ports.of(5));
  for (int k = 0; k < 40; ++k) {
    const Batch& batch = loader->next();
    for (std::int64_t i = 0; i < 5; ++i) {
      const auto image = sample_of<float>(batch, 0, i);
      const auto map = sample_of<std::uint8_t>(batch, 1, i);
      for (std::size_t p = 0; p < 48; ++p) ASSERT_EQ(image[p], static_cast<float>(map[p]));
    }
    loader->release();
  }
  PortBatch small;
  small.port(in, "image", DType::f32, {1, 8, 6});
  small.port(label, "map", DType::u8, {48}).follow = 0;
  EXPECT_HAS(message_of<ConfigError>([&] { Loader::training(set, small.of(5)); }),
             "map follows image, so both need the same height and width; they are [48] and [1, 8, 6]");
}

TEST(LoaderPorts, WhatLiesOverAnImageThatMovesMustFollowIt) {
  const Folder folder;
  {
    H5File file(folder / "a.h5");
    add(file, "image", {4, 3, 8, 6}, std::vector<std::uint8_t>(4 * 144));
    add(file, "maps", {4, 8, 6}, std::vector<std::uint8_t>(4 * 48));
    add(file, "depth", {4, 2, 8, 6}, std::vector<float>(4 * 96));
    add(file, "w", {4, 8, 6}, std::vector<float>(4 * 48, 1));
    add(file, "one", {4}, std::vector<float>(4, 1));
    add(file, "small", {4, 6, 8}, std::vector<std::uint8_t>(4 * 48));
  }
  struct Over {
    PortUse use;
    std::string name;
    DType type;
    std::vector<std::int64_t> sample;
    std::string key;
  };
  const auto open = [&](const Over& over, const std::vector<Augmentation>& list, int follow) {
    PortBatch ports;
    ports.port(in, "image", DType::f32, {3, 8, 6}).augment = list;
    ports.port(over.use, over.name, over.type, over.sample, over.key).follow = follow;
    const Dataset set = ports.open({folder / "a.h5"});
    const LoaderOptions options = ports.of(2);
    check_ports(set, options.layout, options.ports);
    Loader::evaluation(set, options);
  };
  const Over map{label, "map", DType::u8, {8, 6}, "/maps"}, depth{label, "depth", DType::f32, {2, 8, 6}, "/depth"},
      weights{weight, "w", DType::f32, {8, 6}, "/w"};
  const std::pair<const Over*, const char*> cases[]{{&map, "data.targets.map: {key: /maps, follow: image}"},
                                                    {&depth, "data.targets.depth: {key: /depth, follow: image}"},
                                                    {&weights, "data.weights.w: {key: /w, follow: image}"}};
  for (const auto& [over, advice] : cases) {
    for (const std::vector<Augmentation>& list : {std::vector<Augmentation>{RandomCrop{}},
                                                  {ColorJitter{}, Flip{}},
                                                  {RandomResizedCrop{}},
                                                  {Rotation{}},
                                                  {Scaling{}}}) {
      EXPECT_HAS(message_of<ConfigError>([&] { open(*over, list, -1); }), advice);
      open(*over, list, 0);
    }
    open(*over, {ColorJitter{0.5}}, -1);
    open(*over, {}, -1);
  }
  EXPECT_HAS(message_of<ConfigError>([&] { open(map, {Flip{}}, -1); }),
             "data.targets.map: it has a value for each pixel of image, whose augment moves pixels; expected follow: "
             "image, as in data.targets.map: {");
  open({weight, "one", DType::f32, {8, 6}, "/one"}, {Flip{}}, -1);
  open({label, "small", DType::u8, {6, 8}, "/small"}, {Flip{}}, -1);
}

// ---- the order in which a file stores
// ---------------------------------------------------------------------------------

TEST(LoaderPorts, SeriesAreTurnedWhereTheLayoutSaysSo) {
  const Folder folder;
  std::vector<float> first(10 * 3 * 8), last(10 * 8 * 3);
  for (std::size_t i = 0; i < 10; ++i)
    for (std::size_t c = 0; c < 3; ++c)
      for (std::size_t t = 0; t < 8; ++t) {
        const auto v = static_cast<float>(i * 100 + c * 10 + t);
        first[(i * 3 + c) * 8 + t] = last[(i * 8 + t) * 3 + c] = v;
      }
  {
    H5File file(folder / "a.h5");
    add(file, "first", {10, 3, 8}, first);
    add(file, "last", {10, 8, 3}, last);
    add(file, "square", {10, 4, 4}, std::vector<float>(160, 1));
    add(file, "bytes", {10, 3, 8}, std::vector<std::uint8_t>(240, 1));
  }
  const auto values = [&](const std::string& key, StoredLayout layout) {
    PortBatch ports;
    PortOptions& o = ports.port(in, "series", DType::f32, {8, 3}, key);
    o.layout = layout;
    o.normalize = {1, {1, 2, 3}, {1, 2, 4}};
    const Dataset set = ports.open({folder / "a.h5"});
    const auto loader = Loader::evaluation(set, ports.of(10));
    const float* v = loader->next().ports[0].as<float>();
    return std::vector<float>(v, v + 240);
  };
  std::vector<float> expected(240);
  for (std::size_t i = 0; i < 240; ++i) {
    const std::size_t c = i % 3;
    expected[i] = (last[i] - static_cast<float>(c + 1)) / std::array{1.0f, 2.0f, 4.0f}[c];
  }
  EXPECT_EQ(values("first", StoredLayout::channels_first), expected);
  EXPECT_EQ(values("last", StoredLayout::unknown), expected);
  EXPECT_EQ(values("last", StoredLayout::channels_last), expected);
  EXPECT_HAS(message_of<ShapeError>([&] { values("first", StoredLayout::unknown); }),
             "/first holds samples of shape [3, 8], but model.inputs.series is [8, 3], which is [length, channels]; if "
             "the file holds [channels, length], say data.inputs.series.layout: channels_first");
  EXPECT_HAS(message_of<ShapeError>([&] { values("first", StoredLayout::channels_last); }),
             "which is said to be stored channels_last");
  EXPECT_HAS(message_of<ShapeError>([&] { values("last", StoredLayout::channels_first); }),
             "which is said to be stored channels_first");
  PortBatch square;
  square.port(in, "s", DType::f32, {4, 4}, "square");
  const Dataset set = square.open({folder / "a.h5"});
  EXPECT_HAS(message_of<ShapeError>([&] { Loader::training(set, square.of(2)); }),
             "/square holds samples of shape [4, 4], which may be 4 positions of 4 channels or 4 channels of 4 "
             "positions; say data.inputs.s.layout: channels_last, or channels_first");
  EXPECT_EQ(fit_input(set, 0, Shape{4, 4}, StoredLayout::channels_last), SampleOrder::plain);
  EXPECT_EQ(fit_input(set, 0, Shape{4, 4}, StoredLayout::channels_first), SampleOrder::channels_first);
  // A device's conversion knows images alone.
  PortBatch bytes;
  bytes.port(in, "series", DType::f32, {8, 3}, "bytes");
  EXPECT_FALSE(image_format(bytes.open({folder / "a.h5"}), 0, Shape{8, 3}, {}, StoredLayout::channels_first));
}

TEST(LoaderPorts, ImagesAreReadAsTheLayoutSays) {
  const Folder folder;
  {
    H5File file(folder / "a.h5");
    add(file, "cube", {4, 3, 3, 3}, std::vector<std::uint8_t>(108));
    add(file, "last", {4, 5, 6, 3}, std::vector<std::uint8_t>(360));
    add(file, "gray", {1, 28, 28}, std::vector<std::uint8_t>(784));
    add(file, "flat", {4, 1, 3, 3}, std::vector<std::uint8_t>(36));
    add(file, "flat_first", {4, 3, 1, 3}, std::vector<std::uint8_t>(36));
    add(file, "square", {4, 3, 3}, std::vector<std::uint8_t>(36));
    add(file, "points", {4, 3}, std::vector<std::uint8_t>(12));
    add(file, "wide", {4, 32, 32, 3}, std::vector<std::uint8_t>(4 * 32 * 32 * 3));
  }
  const auto order = [&](const std::string& key, const Shape& shape, StoredLayout layout) {
    PortBatch ports;
    ports.port(in, "x", DType::f32, {3, 3, 3}, key);
    return fit_input(ports.open({folder / "a.h5"}), 0, shape, layout);
  };
  const Shape cube{3, 3, 3};
  const auto refused = [&](const std::string& key, const Shape& shape) {
    return message_of<ShapeError>([&] { order(key, shape, StoredLayout::unknown); });
  };
  EXPECT_HAS(refused("cube", cube),
             "a.h5: /cube holds samples of shape [3, 3, 3], which may be [3, 3, 3] stored channels "
             "first or channels last; say data.inputs.x.layout: channels_first, or channels_last");
  EXPECT_EQ(order("cube", cube, StoredLayout::channels_first), SampleOrder::channels_first);
  EXPECT_EQ(order("cube", cube, StoredLayout::channels_last), SampleOrder::channels_last);
  EXPECT_EQ(order("last", Shape{3, 5, 6}, StoredLayout::channels_last), SampleOrder::channels_last);
  EXPECT_THROW(order("last", Shape{3, 5, 6}, StoredLayout::channels_first), ShapeError);
  EXPECT_HAS(refused("wide", Shape{32, 32, 3}),
             "model.inputs.x is [32, 32, 3], which dtrain reads as 32 channels of 32 x 3; "
             "if it is meant as [height, width, channels], write [3, 32, 32]");
  EXPECT_HAS(refused("gray", Shape{28, 28, 1}), "write [1, 28, 28]");
  EXPECT_EQ(order("wide", Shape{32, 32, 3}, StoredLayout::channels_first), SampleOrder::channels_first)
      << "32 channels";
  EXPECT_EQ(order("gray", Shape{1, 28, 28}, StoredLayout::unknown), SampleOrder::channels_last) << "the same bytes";
  // [height 1, width 3, channels 3] for 3 channels of 1 x 3, and not the other way.
  EXPECT_EQ(order("flat", Shape{3, 1, 3}, StoredLayout::unknown), SampleOrder::channels_last);
  EXPECT_EQ(order("flat_first", Shape{3, 1, 3}, StoredLayout::unknown), SampleOrder::channels_first);
  EXPECT_HAS(refused("square", Shape{3, 1, 3}),
             "[3, 3], which may be [3, 1, 3] stored channels first or channels last");
  EXPECT_EQ(order("square", Shape{3, 1, 3}, StoredLayout::channels_last), SampleOrder::channels_last);
  EXPECT_EQ(order("points", Shape{3, 1, 1}, StoredLayout::unknown), SampleOrder::channels_first);
  EXPECT_THROW(order("wide", Shape{32, 32, 3}, StoredLayout::channels_last), ShapeError);
}

}  // namespace
}  // namespace dtrain::io
