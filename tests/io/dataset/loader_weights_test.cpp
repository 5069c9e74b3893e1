// Batches against plain recomputation: samples of different lengths, weights and their sums, what travels.
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <vector>

#include <fmt/format.h>

#include "io/dataset/augment.hpp"
#include "io/dataset/loader.hpp"
#include "runtime/device/weight_sum.hpp"
#include "tests/io/dataset/port_batch.hpp"
#include "tests/io/dataset/port_files.hpp"
#include "tests/support/allocations.hpp"

namespace dtrain::io {
namespace {

using testing::add;
using testing::Folder;
using testing::H5File;
using testing::message_of;
using testing::PortBatch;
using testing::sample_of;

constexpr auto in = PortUse::input, label = PortUse::target, weight = PortUse::weight;

// ---- samples of different lengths -----------------------------------------------------------------------------------

struct Ragged {
  explicit Ragged(const Folder& folder) : path(folder / "a.h5") {
    starts.push_back(0);
    for (std::size_t i = 0; i < 25; ++i) {
      for (std::size_t j = 0; j < i % 8; ++j) {
        words.push_back(static_cast<std::uint16_t>(i * 8 + j));
        next.push_back(static_cast<std::uint8_t>((i + j) % 6));
        weights.push_back(static_cast<float>(j) * 0.25f);
        series.push_back(static_cast<float>(i));
        series.push_back(static_cast<float>(j));
      }
      starts.push_back(static_cast<std::int32_t>(words.size()));
    }
    H5File file(path);
    add(file, "words", {words.size()}, words);
    add(file, "next", {next.size()}, next);
    add(file, "weights", {weights.size()}, weights);
    add(file, "series", {words.size(), 2}, series);
    add(file, "starts", {starts.size()}, starts);
  }
  std::string path;
  std::vector<std::uint16_t> words;
  std::vector<std::uint8_t> next;
  std::vector<float> weights, series;
  std::vector<std::int32_t> starts;
};

TEST(LoaderWeights, ShortSamplesArePadded) {
  const Folder folder;
  const Ragged file(folder);
  PortBatch ports;
  ports.port(in, "words", DType::u16, {7}, "words", "starts").limit = 200;
  PortOptions& series = ports.port(in, "series", DType::f32, {7, 2}, "series", "starts");
  series.normalize = {2, {1}, {4}};
  PortOptions& next = ports.port(label, "next", DType::i32, {7}, "next", "starts");
  next.limit = 6;
  next.ignore = -100;
  PortOptions& weights = ports.port(weight, "weights", DType::f32, {7}, "weights", "starts");
  weights.target = 2;
  weights.class_weights = {1, 2, 3, 4, 5, 6};
  ports.port(weight, "ones", DType::f32, {7}, "-").target = 2;
  ports.port(weight, "samples", DType::f32, {}, "-").target = 2;
  for (const double cache : {0.0, 1.0}) {
    const Dataset set = ports.open({file.path}, cache);
    const auto loader = Loader::training(set, ports.of(5));
    for (int k = 0; k < 10; ++k) {
      const Batch& batch = loader->next();
      for (std::int64_t i = 0; i < 5; ++i) {
        const std::uint64_t row = batch.indices[static_cast<std::size_t>(i)];
        const auto begin = static_cast<std::size_t>(file.starts[row]);
        const auto words = sample_of<std::uint16_t>(batch, 0, i);
        const auto values = sample_of<float>(batch, 1, i), of_weight = sample_of<float>(batch, 3, i),
                   ones = sample_of<float>(batch, 4, i);
        const auto labels = sample_of<std::int32_t>(batch, 2, i);
        for (std::size_t p = 0; p < 7; ++p) {
          const bool held = p < row % 8;
          ASSERT_EQ(words[p], held ? file.words[begin + p] : 0);
          ASSERT_EQ(labels[p], held ? static_cast<std::int32_t>(file.next[begin + p]) : -100);
          for (std::size_t c = 0; c < 2; ++c) {
            ASSERT_EQ(
                values[p * 2 + c],
                held ? static_cast<float>(static_cast<double>(file.series[(begin + p) * 2 + c]) * 0.5 - 0.25) : 0.0f);
          }
          const float expected = held ? file.weights[begin + p] * static_cast<float>(file.next[begin + p] + 1) : 0.0f;
          ASSERT_EQ(of_weight[p], expected);
          ASSERT_EQ(ones[p], held ? 1.0f : 0.0f);
        }
        ASSERT_EQ(sample_of<float>(batch, 5, i)[0], 1.0f) << "one for the whole sample";
      }
      loader->release();
    }
  }
}

TEST(LoaderWeights, LongSamplesAndTargetsWithoutAMaskAreErrors) {
  const Folder folder;
  const Ragged file(folder);
  PortBatch ports;
  ports.port(in, "words", DType::u16, {6}, "words", "starts");
  const Dataset set = ports.open({file.path});
  EXPECT_HAS(message_of([&] { Loader::training(set, ports.of(5)); }),
             "a.h5: /words, row 7: it has 7 positions, but the model's words is planned for 6 at most");
  PortBatch bare;
  bare.port(label, "next", DType::i32, {7}, "next", "starts");
  const Dataset labels = bare.open({file.path});
  EXPECT_HAS(message_of<ConfigError>([&] { Loader::training(labels, bare.of(5)); }),
             "the target next has samples of different lengths; its loss needs ignore, or a weight a position");
  bare.options.ports[0].ignore = 255;
  Loader::training(labels, bare.of(5));
  PortBatch image;
  image.port(in, "words", DType::f32, {1, 7, 1}, "words", "starts");
  const Dataset pixels = image.open({file.path});
  EXPECT_HAS(
      message_of<ShapeError>([&] { Loader::training(pixels, image.of(5)); }),
      "/words has samples of different lengths, but model.inputs.words is [1, 7, 1]; expected [length, channels]");
}

// ---- weights
// ---------------------------------------------------------------------------------------------------------

struct Weighted {
  explicit Weighted(const Folder& folder) : path(folder / "a.h5"), images(60 * 36), maps(60 * 36), weights(60), y(60) {
    for (std::size_t i = 0; i < maps.size(); ++i) {
      images[i] = static_cast<std::uint8_t>(i * 3);
      maps[i] = static_cast<std::uint8_t>(i * i % 7 == 0 ? 255 : i * 7 % 4);
    }
    for (std::size_t i = 0; i < weights.size(); ++i) {
      weights[i] = 0.1f * static_cast<float>(i % 5);
      y[i] = static_cast<std::uint8_t>(i % 3);
    }
    write();
  }
  void write() const {
    H5File file(path);
    add(file, "image", {60, 1, 6, 6}, images);
    add(file, "map", {60, 6, 6}, maps);
    add(file, "weight", {60}, weights);
    add(file, "y", {60}, y);
  }
  /// Losses: map (per pixel, with class weights and ignore), y (of samples, with the file's weights), z (ignore alone).
  static PortBatch ports() {
    PortBatch made;
    made.port(in, "image", DType::f32, {1, 6, 6}).augment = {RandomCrop{2}};
    PortOptions& map = made.port(label, "map", DType::u8, {6, 6});
    map.limit = 4;
    map.ignore = 255;
    map.follow = 0;
    PortOptions& y = made.port(label, "y", DType::i32, {});
    y.limit = 3;
    PortOptions& of_map = made.port(weight, "of_map", DType::f32, {6, 6}, "-");
    of_map.target = 1;
    of_map.class_weights = {0.3, 1, 1.7, 2};
    made.port(weight, "weight", DType::f32, {}).target = 2;
    made.options.counts = {{1, 3, 255}, {2, 4, {}}, {2, -1, 1}, {1, 4, 255}};
    made.options.seed = 4;
    return made;
  }
  std::string path;
  std::vector<std::uint8_t> images, maps;
  std::vector<float> weights;
  std::vector<std::uint8_t> y;
};

/// What the counts of a batch come to, from its values alone.
std::vector<std::uint64_t> counted(const Batch& batch) {
  std::vector<std::uint64_t> sums(4);
  for (std::int64_t i = 0; i < batch.ports[0].desc.batch(); ++i) {
    const auto map = sample_of<std::uint8_t>(batch, 1, i);
    const auto of_map = sample_of<float>(batch, 3, i);
    const float of_sample = sample_of<float>(batch, 4, i)[0];
    for (std::size_t p = 0; p < map.size(); ++p) {
      if (map[p] == 255) EXPECT_EQ(of_map[p], 0.0f);
      sums[0] += weight_units(of_map[p]);
      sums[3] += map[p] == 255 ? 0 : weight_units(of_sample);
    }
    sums[1] += weight_units(of_sample);
    sums[2] += sample_of<std::int32_t>(batch, 2, i)[0] == 1 ? 0 : weight_units(1);
  }
  return sums;
}

TEST(LoaderWeights, WeightsOfTheNextStepAreKnownAndTheSameForEverySplit) {
  const Folder folder;
  const Weighted file(folder);
  const PortBatch ports = Weighted::ports();
  const Dataset set = ports.open({file.path});
  std::map<std::uint64_t, std::vector<std::uint64_t>> whole;  // by step, over all ranks
  for (const auto& [ranks, micro, threads] : {std::tuple{1, 24, 1}, {1, 3, 2}, {2, 12, 1}, {2, 4, 3}, {4, 3, 1}}) {
    std::map<std::uint64_t, std::vector<std::uint64_t>> sums;
    for (int rank = 0; rank < ranks; ++rank) {
      LoaderOptions options = ports.of(micro, 24, rank, ranks);
      options.threads = threads;
      const auto loader = Loader::training(set, options);
      std::vector<std::uint64_t> announced, found(4);
      std::vector<std::vector<std::uint64_t>> told(static_cast<std::size_t>(loader->batches()));
      for (std::uint64_t step = 0; step < 6; ++step) {
        std::fill(found.begin(), found.end(), 0);
        std::vector<std::uint64_t> next(4);
        for (std::int64_t j = 0; j < loader->batches(); ++j) {
          const Batch& batch = loader->next();
          const auto of_batch = counted(batch);
          for (std::size_t k = 0; k < 4; ++k) found[k] += of_batch[k];
          ASSERT_EQ(batch.next_weights.size(), 4u) << "each micro batch tells of its like";
          if (step > 0) ASSERT_EQ(of_batch, told[static_cast<std::size_t>(j)]) << "as the step before said";
          told[static_cast<std::size_t>(j)].assign(batch.next_weights.begin(), batch.next_weights.end());
          loader->add_weights(batch.next_weights, next);
          loader->release();
        }
        ASSERT_EQ(found, loader->loss_weights(step));
        if (step > 0) ASSERT_EQ(found, announced) << "as the step before said";
        announced = next;
        auto& sum = sums[step];
        sum.resize(4);
        for (std::size_t k = 0; k < 4; ++k) sum[k] += found[k];
      }
      // After a resume, too.
      loader->seek(100);
      std::vector<std::uint64_t> next(4);
      for (std::int64_t j = 0; j < loader->batches(); ++j) {
        loader->add_weights(loader->next().next_weights, next);
        loader->release();
      }
      ASSERT_EQ(next, loader->loss_weights(101));
    }
    if (whole.empty()) whole = sums;
    EXPECT_EQ(sums, whole) << ranks << " ranks";
  }
  EXPECT_GT(whole[0][0], 0u);
  const auto evaluation = Loader::evaluation(set, ports.of(24));
  EXPECT_TRUE(evaluation->next().next_weights.empty());
}

TEST(LoaderWeights, OfALargerNextStepAreKnownToo) {
  const Folder folder;
  const Weighted file(folder);
  const PortBatch ports = Weighted::ports();
  const Dataset set = ports.open({file.path});
  for (const int micro : {1, 3}) {
    LoaderOptions options = ports.of(micro, 24);
    options.warmup = {.from = 6, .increment = 9, .samples = 40};  // 6 four times, 15 twice, then 24
    const BatchSchedule schedule(24, options.warmup);
    const auto loader = Loader::training(set, options);
    for (std::uint64_t step = 0; step < 8; ++step) {
      std::vector<std::uint64_t> next(4), now(4);
      for (std::int64_t j = 0; j < schedule.batch(static_cast<std::int64_t>(step)) / micro; ++j) {
        const Batch& batch = loader->next();
        const auto of_batch = counted(batch);
        for (std::size_t k = 0; k < 4; ++k) now[k] += of_batch[k];
        loader->add_weights(batch.next_weights, next);
        loader->release();
      }
      ASSERT_EQ(std::pair(now, next), std::pair(loader->loss_weights(step), loader->loss_weights(step + 1))) << step;
    }
  }
}

TEST(LoaderWeights, PaddingOfEvaluationWeighsNothing) {
  const Folder folder;
  const Weighted file(folder);
  const PortBatch ports = Weighted::ports();
  const Dataset set = ports.open({file.path});
  const auto loader = Loader::evaluation(set, ports.of(25));
  for (int k = 0; k < 2; ++k) {
    loader->next();
    loader->release();
  }
  const Batch& last = loader->next();
  ASSERT_EQ(last.valid, 10);
  EXPECT_EQ(sample_of<float>(last, 4, 9)[0], file.weights[59]);
  for (std::int64_t i = 10; i < 25; ++i) {
    EXPECT_EQ(sample_of<float>(last, 4, i)[0], 0.0f);
    for (const float w : sample_of<float>(last, 3, i)) ASSERT_EQ(w, 0.0f);
    for (const float v : sample_of<float>(last, 0, i)) ASSERT_EQ(v, 0.0f);
    for (const std::uint8_t v : sample_of<std::uint8_t>(last, 1, i)) ASSERT_EQ(v, 255);
    EXPECT_EQ(sample_of<std::int32_t>(last, 2, i)[0], 0);
  }
}

TEST(LoaderWeights, WeightsThatAreNoneAreNamed) {
  const Folder folder;
  Weighted file(folder);
  PortBatch ports = Weighted::ports();
  ports.options.shuffle = false;
  const std::pair<float, const char*> cases[]{
      {-1.0f, "-1"}, {std::numeric_limits<float>::infinity(), "inf"}, {std::nanf(""), "nan"}};
  for (const auto& [bad, shown] : cases) {
    file.weights[17] = bad;
    file.write();
    const Dataset set = ports.open({file.path});
    const auto loader = Loader::evaluation(set, ports.of(60));
    EXPECT_HAS(message_of([&] { loader->next(); }),
               fmt::format("a.h5: /weight, row 17: the weight is {}; weights must be finite and at least 0", shown));
  }
  std::vector<double> map(60 * 36, 1);
  map[4 * 36 + 8] = -0.5;
  {
    H5File out(folder / "b.h5");
    add(out, "map", {60, 6, 6}, file.maps);
    add(out, "w", {60, 6, 6}, map);
    add(out, "five", {60, 5}, std::vector<float>(300));
  }
  PortBatch pixels;
  pixels.port(label, "map", DType::u8, {6, 6});
  pixels.port(weight, "w", DType::f32, {6, 6}).target = 0;
  const Dataset set = pixels.open({folder / "b.h5"});
  const auto loader = Loader::evaluation(set, pixels.of(60));
  EXPECT_HAS(message_of([&] { loader->next(); }), "b.h5: /w, row 4, position [1, 2]: the weight is -0.5");
  PortBatch other;
  other.port(label, "map", DType::u8, {6, 6});
  other.port(weight, "five", DType::f32, {6, 6}).target = 0;
  const Dataset fives = other.open({folder / "b.h5"});
  EXPECT_HAS(message_of<ShapeError>([&] { Loader::training(fives, other.of(2)); }),
             "/five holds weights of shape [5], but the weight five has [6, 6] a sample");
  PortBatch samples;
  samples.port(weight, "five", DType::f32, {});
  const Dataset again = samples.open({folder / "b.h5"});
  EXPECT_HAS(message_of<ShapeError>([&] { Loader::training(again, samples.of(2)); }),
             "/five holds weights of shape [5], but the weight five has one number a sample");
  // Class weights are one a class.
  PortBatch classes;
  classes.port(label, "map", DType::u8, {6, 6}).limit = 256;
  PortOptions& by_class = classes.port(weight, "w", DType::f32, {6, 6}, "-");
  by_class.target = 0;
  by_class.class_weights = {1, 2};
  const Dataset maps = classes.open({folder / "b.h5"});
  EXPECT_HAS(message_of<ConfigError>([&] { Loader::training(maps, classes.of(2)); }),
             "class_weights: 2 numbers; expected one for each of 256 classes");
}

TEST(LoaderWeights, WeightsThatSumsCannotHoldAreRefused) {
  const Folder folder;
  Weighted file(folder);
  PortBatch ports = Weighted::ports();
  ports.options.counts.resize(2);
  ports.options.counts[1].name = "prices";
  ports.options.shuffle = false;
  const char* const advice =
      "the weights of loss prices add up to more than 2^31 a step; divide them all by a number: only their ratios "
      "matter";
  // Of one sample, of a micro batch, of several of a step; 2^33 wrapped to 0.
  for (const std::vector<float>& large :
       {std::vector<float>{0x1p33f}, {0x1p31f}, {0x1p30f, 0x1p30f}, {0x1p30f, 0, 0, 0, 0, 0, 0, 0x1p30f}}) {
    std::fill(file.weights.begin(), file.weights.end(), 0.0f);
    std::copy(large.begin(), large.end(), file.weights.begin() + 30);
    file.write();
    const Dataset set = ports.open({file.path});
    const auto loader = Loader::training(set, ports.of(5, 30));
    EXPECT_EQ(loader->loss_weights(0)[1], 0u);
    EXPECT_HAS(message_of([&] { loader->loss_weights(1); }), advice);
    EXPECT_HAS(message_of([&] {
                 std::vector<std::uint64_t> sums(2);
                 for (std::int64_t j = 0; j < loader->batches(); ++j) {
                   loader->add_weights(loader->next().next_weights, sums);
                   loader->release();
                 }
               }),
               advice);
  }
  std::fill(file.weights.begin(), file.weights.end(), 0.0f);
  file.weights[30] = file.weights[31] = 0x1p29f;
  file.write();
  ports.options.counts[1].name.clear();
  const Dataset set = ports.open({file.path});
  const auto loader = Loader::training(set, ports.of(5, 30));
  EXPECT_EQ(loader->loss_weights(1)[1], std::uint64_t{1} << 62);
  std::vector<std::uint64_t> sums(2);
  EXPECT_HAS(message_of([&] {
               for (int i = 0; i < 2; ++i) loader->add_weights(loader->loss_weights(1), sums);
             }),
             "the weights of loss 1 add up");
}

TEST(LoaderWeights, WeightsThatAreTooSmallForSumsAreRefused) {
  const Folder folder;
  Weighted file(folder);
  PortBatch ports = Weighted::ports();
  const auto message = [&] {
    file.write();
    const Dataset set = ports.open({file.path});
    const auto loader = Loader::evaluation(set, ports.of(60));
    return message_of([&] { loader->next(); });
  };
  file.weights[17] = 0x1p-21f;
  EXPECT_HAS(
      message(),
      "a.h5: /weight, row 17: the weight is 4.76837158203125e-07; weights that are not 0 must be at least 2^-20; "
      "multiply them all by a number: only their ratios matter");
  file.weights[17] = 0x1p-20f;
  file.write();
  const Dataset set = ports.open({file.path});
  EXPECT_EQ(sample_of<float>(Loader::evaluation(set, ports.of(60))->next(), 4, 17)[0], 0x1p-20f);
  ports.options.ports[3].class_weights[2] = 1e-7;
  EXPECT_HAS(message_of<ConfigError>([&] { Loader::training(set, ports.of(5)); }),
             "class_weights: 1e-07; weights that are not 0 must be at least 2^-20");
  ports.options.ports[3].class_weights[2] = 1e300;
  EXPECT_THROW(Loader::training(set, ports.of(5)), ConfigError);
  // Neither is too small, but what comes of them.
  PortBatch both;
  both.port(label, "map", DType::u8, {6, 6}).limit = 4;
  both.options.ports[0].ignore = 255;
  PortOptions& weights = both.port(weight, "weight", DType::f32, {6, 6});
  weights.target = 0;
  weights.class_weights = {0, 0x1p-10, 0x1p-10, 0x1p-10};
  file.weights.assign(60, 1);
  file.weights[9] = 0x1p-11f;
  file.write();
  const Dataset maps = both.open({file.path});
  const auto loader = Loader::evaluation(maps, both.of(60));
  EXPECT_HAS(message_of([&] { loader->next(); }), "a.h5: /weight, row 9, position [0, ");
}

TEST(LoaderWeights, AFilesWeightOfSamplesHoldsForTheirPositions) {
  const Folder folder;
  const Weighted file(folder);
  PortBatch ports;
  PortOptions& map = ports.port(label, "map", DType::u8, {6, 6});
  map.ignore = 255;
  ports.port(weight, "weight", DType::f32, {6, 6}).target = 0;
  const Dataset set = ports.open({file.path});
  const auto loader = Loader::evaluation(set, ports.of(60));
  const Batch& batch = loader->next();
  for (std::int64_t i = 0; i < 60; ++i) {
    const auto labels = sample_of<std::uint8_t>(batch, 0, i);
    const auto weights = sample_of<float>(batch, 1, i);
    for (std::size_t p = 0; p < 36; ++p)
      ASSERT_EQ(weights[p], labels[p] == 255 ? 0.0f : file.weights[static_cast<std::size_t>(i)]);
  }
}

// ---- what travels
// -----------------------------------------------------------------------------------------------------

TEST(LoaderWeights, APortOfBytesTravelsAsItIsBesideOthers) {
  const Folder folder;
  const Weighted file(folder);
  PortBatch ports = Weighted::ports();
  ports.options.counts.clear();
  const Dataset set = ports.open({file.path});
  ports.options.ports[0].carry = Carry::bytes;
  const std::size_t raw = raw_layout(Carry::bytes, 36, 5, true).bytes;
  ports.carry = {{true, raw}, {}, {}, {}, {}};
  const LoaderOptions options = ports.of(5);
  const auto loader = Loader::training(set, options);
  const Batch& batch = loader->next();
  EXPECT_EQ(batch.memory.size(), options.layout.bytes - options.layout.copied);
  EXPECT_FALSE(batch.ports[0]) << "the device makes it";
  const RawLayout at = raw_layout(Carry::bytes, 36, 5, true);
  const std::byte* carried = options.layout.raw_in(0, batch.memory.data());
  const Augmenter augmenter(set, 0, Shape{1, 6, 6}, {}, StoredLayout::unknown, ports.options.ports[0].augment, 4);
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(std::memcmp(carried + at.stored + i * 36, file.images.data() + batch.indices[i] * 36, 36), 0);
    const auto& draw = reinterpret_cast<const ImageDraw*>(carried + at.draws)[i];
    EXPECT_EQ(draw.map.x0, augmenter.draw(batch.positions.as<std::uint64_t>()[i]).map().x0);
  }
  PortBatch wrong = ports;
  wrong.carry[0].raw_bytes += 256;
  EXPECT_THROW(Loader::training(set, wrong.of(5)), BugError);
}

TEST(LoaderWeights, ABatchAllocatesNothing) {
  const Folder pixels, texts;
  const Weighted of_pixels(pixels);
  const Ragged of_texts(texts);
  PortBatch words;
  words.port(in, "words", DType::u16, {7}, "words", "starts");
  words.port(label, "next", DType::i32, {7}, "next", "starts").ignore = -1;
  words.port(weight, "w", DType::f32, {7}, "weights", "starts").target = 1;
  words.options.counts = {{1, 2, -1}};
  for (const auto& [path, ports] : {std::pair{of_pixels.path, Weighted::ports()}, {of_texts.path, words}}) {
    for (const double cache : {0.0, 10.0}) {
      const Dataset set = ports.open({path}, cache);
      LoaderOptions options = ports.of(4, 8);
      options.threads = 2;
      const auto loader = Loader::training(set, options);
      const auto rounds = [&](int count) {
        for (int k = 0; k < count; ++k) {
          loader->next();
          loader->release();
        }
      };
      rounds(100);
      const std::uint64_t before = test::allocation_count();
      rounds(500);
      EXPECT_EQ(test::allocation_count(), before) << path << " " << cache;
    }
  }
}

}  // namespace
}  // namespace dtrain::io
