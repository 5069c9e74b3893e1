#include "io/dataset/loader.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <thread>

#include "io/dataset/stream.hpp"
#include "tests/io/dataset/short_form.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"

namespace dtrain::io {
namespace {

using testing::Folder;
using testing::H5File;
using testing::message_of;
using testing::pixel;
using testing::ShortForm;
using testing::Spec;
using testing::write_images;

Dataset open(const std::string& path, double cache_mib = 1024) {
  DatasetOptions options;
  options.cache_mib = cache_mib;
  return Dataset(std::vector<std::string>{path}, options);
}

ShortForm images(std::int64_t global, std::int64_t micro, int rank = 0, int ranks = 1) {
  ShortForm o;
  o.input = Shape{1, 6, 5};
  o.normalize.scale = 1.0 / 255;
  o.global_batch = global;
  o.micro_batch = micro;
  o.rank = rank;
  o.ranks = ranks;
  o.seed = 17;
  return o;
}

TEST(Loader, EqualsANaiveReferenceOnAnyNumberOfRanks) {
  const Folder folder;
  constexpr std::uint64_t n = 101, global = 24, steps = 12;  // steps span epochs
  Spec gzip;
  gzip.chunk = {8, 1, 6, 5};
  gzip.gzip = 1;
  for (const auto& [spec, cache] : {std::pair{Spec{}, 1024.0}, {Spec{}, 0.0}, {gzip, 0.0}}) {
    write_images(folder / "a.h5", n, {1, 6, 5}, spec);
    const Dataset set = open(folder / "a.h5", cache);
    const SampleStream stream(n, 17, true, set.blocks());
    for (const auto& [ranks, micro] : {std::pair{1, 24}, {1, 4}, {2, 6}, {3, 8}, {4, 3}}) {
      std::vector<std::set<std::uint64_t>> seen(steps);
      for (int rank = 0; rank < ranks; ++rank) {
        auto options = images(global, micro, rank, ranks);
        options.threads = 1 + rank;
        options.ring = 2 + rank;
        const auto loader = testing::training(set, options);
        const std::int64_t a = static_cast<std::int64_t>(global) / (ranks * micro);
        ASSERT_EQ(loader->batches(), a);
        for (std::uint64_t s = 0; s < steps; ++s) {
          for (std::int64_t j = 0; j < a; ++j) {
            const Batch& batch = loader->next();
            ASSERT_EQ(batch.step, s);
            ASSERT_EQ(batch.micro, j);
            ASSERT_EQ(batch.valid, micro);
            ASSERT_EQ(batch.ports[0].desc.shape, (Shape{micro, 6, 5, 1}));
            for (int i = 0; i < micro; ++i) {
              const std::uint64_t p = s * global + static_cast<std::uint64_t>((rank * a + j) * micro + i);
              ASSERT_EQ(batch.positions.as<std::uint64_t>()[i], p);
              std::uint64_t index = 0;
              stream.indices(p, std::span(&index, 1));
              ASSERT_EQ(batch.indices[static_cast<std::size_t>(i)], index);
              ASSERT_EQ(batch.ports[1].as<std::int32_t>()[i], testing::label_of(index));
              ASSERT_EQ(batch.ports.back().as<float>()[i], 1.0f);
              for (std::uint64_t k = 0; k < 30; ++k) {
                ASSERT_EQ(batch.ports[0].as<float>()[static_cast<std::uint64_t>(i) * 30 + k],
                          static_cast<float>(pixel(index, k) * (1.0 / 255)));
              }
              seen[s].insert(p);
            }
            loader->release();
          }
        }
      }
      for (std::uint64_t s = 0; s < steps; ++s) {
        ASSERT_EQ(seen[s].size(), global);
        ASSERT_EQ(*seen[s].begin(), s * global);
        ASSERT_EQ(*seen[s].rbegin(), s * global + global - 1);
      }
    }
  }
}

TEST(Loader, ABatchThatGrowsTakesTheSameStream) {
  const Folder folder;
  write_images(folder / "a.h5", 50);
  const Dataset set = open(folder / "a.h5");
  const BatchSchedule schedule(32, {.from = 8, .samples = 120});  // 8 five times, 16 three times, 24 twice
  constexpr std::uint64_t steps = 14, resumed = 6;
  for (const auto& [ranks, micro] : {std::pair{1, 8}, {1, 2}, {2, 4}, {2, 1}, {4, 2}}) {
    std::map<std::uint64_t, std::uint64_t> taken;  // position -> step
    for (int rank = 0; rank < ranks; ++rank) {
      auto options = images(32, micro, rank, ranks);
      options.warmup = {.from = 8, .samples = 120};
      options.threads = 2;
      const auto loader = testing::training(set, options);
      std::vector<std::uint64_t> again;
      for (const std::uint64_t first : {std::uint64_t{0}, resumed}) {
        loader->seek(first);
        for (std::uint64_t step = first; step < steps; ++step) {
          const std::int64_t batches = schedule.batch(static_cast<std::int64_t>(step)) / (micro * ranks);
          for (std::int64_t j = 0; j < batches; ++j) {
            const Batch& batch = loader->next();
            ASSERT_EQ(batch.step, step);
            ASSERT_EQ(batch.micro, j);
            const auto* const positions = batch.positions.as<std::uint64_t>();
            if (first == 0) {
              for (int i = 0; i < micro; ++i) ASSERT_TRUE(taken.emplace(positions[i], step).second);
              if (step >= resumed) again.push_back(positions[0]);
            } else {
              ASSERT_EQ(positions[0], again.front());
              again.erase(again.begin());
            }
            loader->release();
          }
        }
      }
      EXPECT_TRUE(again.empty());
    }
    ASSERT_EQ(taken.size(), static_cast<std::size_t>(schedule.samples_before(steps)));
    ASSERT_EQ(taken.rbegin()->first + 1, taken.size());
    for (const auto& [position, step] : taken)
      ASSERT_EQ(schedule.step_at(static_cast<std::int64_t>(position)), static_cast<std::int64_t>(step));
  }
  auto options = images(32, 16, 0, 1);
  options.warmup = {.from = 8, .samples = 120};
  EXPECT_THROW(testing::training(set, options), ConfigError);
}

TEST(Loader, SeekContinuesWhereAnotherRunStopped) {
  const Folder folder;
  write_images(folder / "a.h5", 50);
  const Dataset set = open(folder / "a.h5");
  auto options = images(20, 5, 1, 2);
  options.threads = 3;
  const auto loader = testing::training(set, options);
  for (const std::uint64_t step : {7, 0, 1000000, 3, 3}) {
    loader->seek(step);
    for (int k = 0; k < 6; ++k) {
      const Batch& batch = loader->next();
      ASSERT_EQ(batch.step, step + static_cast<std::uint64_t>(k / 2));
      ASSERT_EQ(batch.positions.as<std::uint64_t>()[0], batch.step * 20 + 10 + static_cast<std::uint64_t>(k % 2) * 5);
      loader->release();
    }
  }
}

TEST(Loader, EvaluationIsExactlyTheSet) {
  const Folder folder;
  for (const auto& [n, ranks, micro] :
       {std::tuple{10000, 3, 128}, {10, 4, 3}, {2, 3, 8}, {7, 1, 7}, {1, 4, 1}, {9, 2, 4}}) {
    write_images(folder / "a.h5", static_cast<std::uint64_t>(n));
    const Dataset set = open(folder / "a.h5");
    for (int pass = 0; pass < 2; ++pass) {
      double weights = 0;
      std::map<std::uint64_t, int> seen;
      std::set<std::int64_t> batches;
      std::set<std::uint64_t> firsts;  // of a batch
      for (int rank = 0; rank < ranks; ++rank) {
        const auto loader = testing::evaluation(set, images(1, micro, rank, ranks));
        batches.insert(loader->batches());
        if (pass > 0) loader->seek(5);
        for (int round = 0; round < 2; ++round) {  // the next pass is the same again
          for (std::int64_t j = 0; j < loader->batches(); ++j) {
            const Batch& batch = loader->next();
            ASSERT_EQ(batch.micro, j);
            for (int i = 0; i < micro; ++i) {
              const float weight = batch.ports.back().as<float>()[i];
              ASSERT_EQ(weight, i < batch.valid ? 1.0f : 0.0f);
              if (round == 0) weights += static_cast<double>(weight);
              const std::uint64_t index = batch.indices[static_cast<std::size_t>(i)];
              if (weight == 0) {
                ASSERT_EQ(index, Batch::no_sample);
                ASSERT_EQ(batch.ports[1].as<std::int32_t>()[i], 0);
                for (int k = 0; k < 30; ++k) ASSERT_EQ(batch.ports[0].as<float>()[i * 30 + k], 0.0f);
                continue;
              }
              if (round == 0) ++seen[index];
              if (i == 0) firsts.insert(index);
              ASSERT_EQ(index, batch.indices[0] + static_cast<std::uint64_t>(i));
              ASSERT_EQ(batch.ports[1].as<std::int32_t>()[i], testing::label_of(index));
            }
            loader->release();
          }
        }
      }
      EXPECT_EQ(weights, n);
      EXPECT_EQ(batches.size(), 1u) << "every rank runs the same number of batches";
      EXPECT_EQ(firsts.size(), static_cast<std::size_t>((n + micro - 1) / micro));
      for (const std::uint64_t first : firsts)
        EXPECT_EQ(first % static_cast<std::uint64_t>(micro), 0u)
            << "a batch is the same samples on any number of ranks";
      ASSERT_EQ(seen.size(), static_cast<std::size_t>(n));
      for (const auto& [index, times] : seen) ASSERT_EQ(times, 1) << index;
    }
  }
}

TEST(Loader, LaysImagesOutChannelsLastAndNormalizesByChannel) {
  const Folder folder;
  write_images(folder / "chw.h5", 20, {3, 4, 5});
  write_images(folder / "hwc.h5", 20, {4, 5, 3});
  for (const bool hwc : {false, true}) {
    const Dataset set = open(folder / (hwc ? "hwc.h5" : "chw.h5"));
    for (const bool flat : {false, true}) {
      auto options = images(4, 4);
      options.shuffle = false;
      options.input = flat ? Shape{60} : Shape{3, 4, 5};
      options.normalize = {1.0 / 255, {0.1, 0.2, 0.3}, {0.5, 0.25, 2}};
      if (flat && hwc) options.normalize = {1.0 / 255, {0.1}, {0.5}};  // four rows are no three channels
      EXPECT_EQ(fit_input(set, 0, options.input), flat  ? SampleOrder::plain
                                                  : hwc ? SampleOrder::channels_last
                                                        : SampleOrder::channels_first);
      const auto loader = testing::training(set, options);
      const Batch& batch = loader->next();
      const auto* out = batch.ports[0].as<float>();
      for (std::uint64_t i = 0; i < 4; ++i) {
        for (std::uint64_t c = 0; c < 3; ++c) {
          for (std::uint64_t p = 0; p < 20; ++p) {
            const std::uint64_t stored = hwc ? p * 3 + c : c * 20 + p;
            const std::uint64_t at = flat ? stored : p * 3 + c;
            const bool one = flat && hwc;
            const double mean = one ? 0.1 : options.normalize.mean[c],
                         deviation = one ? 0.5 : options.normalize.standard_deviation[c];
            ASSERT_NEAR(out[i * 60 + at], (pixel(i, stored) / 255.0 - mean) / deviation, 1e-6) << hwc << flat;
          }
        }
      }
    }
  }
}

TEST(Loader, FloatsAndTheirTargets) {
  const Folder folder;
  std::vector<double> x(12 * 3);
  std::vector<float> y(12 * 2);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<double>(i) * 0.25;
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = static_cast<float>(i);
  const auto write = [&] {
    H5File file(folder / "a.h5");
    file.add("x", {{12, 3}, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, {}, -1, false, false, false, ""}, x.data());
    file.add("y", {{12, 2}, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, {}, -1, false, false, false, ""}, y.data());
  };
  write();
  ShortForm options;
  options.input = Shape{3};
  options.global_batch = options.micro_batch = 5;
  for (const double cache : {0.0, 10.0}) {
    const Dataset set = open(folder / "a.h5", cache);
    const auto loader = testing::training(set, options);
    for (int k = 0; k < 10; ++k) {
      const Batch& batch = loader->next();
      ASSERT_EQ(batch.ports[0].desc.shape, (Shape{5, 3}));
      ASSERT_EQ(batch.ports[1].desc.shape, (Shape{5, 2}));
      ASSERT_EQ(batch.ports[1].desc.dtype, DType::f32);
      for (std::size_t i = 0; i < 5; ++i) {
        const std::size_t index = batch.indices[i];
        for (std::size_t j = 0; j < 3; ++j)
          ASSERT_EQ(batch.ports[0].as<float>()[i * 3 + j], static_cast<float>(x[index * 3 + j]));
        for (std::size_t j = 0; j < 2; ++j) ASSERT_EQ(batch.ports[1].as<float>()[i * 2 + j], y[index * 2 + j]);
      }
      loader->release();
    }
  }
  // Not a number, infinite, and finite in double but not in float; the first offender is named, at every call.
  for (const double bad : {std::nan(""), -HUGE_VAL, 1e300}) {
    x[17] = bad;
    write();
    const Dataset set = open(folder / "a.h5");
    options.shuffle = false;
    const auto loader = testing::training(set, options);
    loader->next();
    loader->release();
    for (int k = 0; k < 2; ++k) {
      const auto text = message_of([&] { loader->next(); });
      EXPECT_HAS(text, "a.h5: /x, row 5: value 2 is ");
      EXPECT_HAS(text, "samples must be finite");
    }
    x[17] = 0;
  }
  y[9] = std::numeric_limits<float>::infinity();
  write();
  const Dataset set = open(folder / "a.h5");
  const auto loader = testing::training(set, options);
  EXPECT_HAS(message_of([&] { loader->next(); }), "a.h5: /y, row 4: value 1 is inf");
}

TEST(Loader, FloatImagesKeepTheirBits) {
  const Folder folder;
  std::vector<float> x(6 * 2 * 4 * 3);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i)) * 1e-3f;
  {
    H5File file(folder / "a.h5");
    file.add("images", {{6, 2, 4, 3}, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, {}, -1, false, false, false, ""}, x.data());
  }
  const Dataset set = open(folder / "a.h5");
  auto options = images(3, 3);
  options.normalize = {};
  for (const bool flat : {false, true}) {
    options.input = flat ? Shape{24} : Shape{2, 4, 3};
    const auto loader = testing::training(set, options);
    const Batch& batch = loader->next();
    for (std::size_t i = 0; i < 3; ++i) {
      for (std::size_t c = 0; c < 2; ++c) {
        for (std::size_t p = 0; p < 12; ++p) {
          const float* row = batch.ports[0].as<float>() + i * 24;
          ASSERT_EQ(flat ? row[c * 12 + p] : row[p * 2 + c], x[batch.indices[i] * 24 + c * 12 + p]);
        }
      }
    }
  }
}

TEST(Loader, WrongSettingsAreClearErrors) {
  const Folder folder;
  write_images(folder / "a.h5", 50);
  const Dataset set = open(folder / "a.h5");
  auto options = images(20, 8);
  EXPECT_HAS(message_of<ConfigError>([&] { testing::training(set, options); }),
             "batch.global 20 is not a multiple of batch.micro 8");
  options = images(20, 10);
  options.input = Shape{3, 32, 32};
  const auto text = message_of<ShapeError>([&] { testing::training(set, options); });
  EXPECT_HAS(text, "/images holds samples of shape [1, 6, 5], but model.input is [3, 32, 32]");
  options = images(20, 10);
  options.classes = 9;
  EXPECT_HAS(message_of([&] { testing::training(set, options); }), "the label is 9, but the model has 9 classes");
  options = images(20, 10);
  options.normalize.mean = {1, 2, 3};
  EXPECT_HAS(message_of<ConfigError>([&] { testing::training(set, options); }), "data.normalize");
  options.normalize = {};
  options.normalize.standard_deviation = {0};
  EXPECT_HAS(message_of<ConfigError>([&] { testing::training(set, options); }), "deviation above 0");
}

TEST(Loader, SeveralBatchesMayBeHeld) {
  const Folder folder;
  write_images(folder / "a.h5", 50);
  const Dataset set = open(folder / "a.h5");
  auto options = images(10, 5);
  options.ring = 3;
  const auto loader = testing::training(set, options);
  const Batch* before = &loader->next();
  for (int k = 1; k < 50; ++k) {
    const Batch* now = &loader->next();
    ASSERT_NE(before->ports[0].data, now->ports[0].data);
    ASSERT_EQ(before->positions.as<std::uint64_t>()[0] + 5, now->positions.as<std::uint64_t>()[0]);
    EXPECT_THROW(loader->next(), BugError) << "the ring is full";
    loader->release();
    before = now;
  }
  EXPECT_THROW(loader->seek(0), BugError);
  loader->release();
  EXPECT_THROW(loader->release(), BugError);
}

TEST(Loader, StopsAtAnyMoment) {
  const Folder folder;
  Spec gzip;
  gzip.chunk = {8, 1, 6, 5};
  gzip.gzip = 1;
  write_images(folder / "a.h5", 500, {1, 6, 5}, gzip);
  const Dataset set = open(folder / "a.h5", 0);
  for (int k = 0; k < 60; ++k) {
    auto options = images(64, 32);
    options.threads = 1 + k % 5;
    options.ring = 2 + k % 7;
    const auto loader = testing::training(set, options);
    for (int j = 0; j < k % 9; ++j) {
      loader->next();
      if (j % 2 == 0) std::this_thread::sleep_for(std::chrono::microseconds(50 * (k % 3)));
      loader->release();
    }
    if (k % 3 == 0) loader->seek(static_cast<std::uint64_t>(k));
    EXPECT_GE(loader->waited_seconds(), 0);
  }
}

TEST(Loader, ManyThreadsKeepTheOrder) {
  const Folder folder;
  write_images(folder / "a.h5", 997);
  const Dataset set = open(folder / "a.h5");
  auto one = images(16, 4), many = images(16, 4);
  many.threads = 8;
  many.ring = 16;
  const auto a = testing::training(set, one), b = testing::training(set, many);
  for (int k = 0; k < 2000; ++k) {
    const Batch &x = a->next(), &y = b->next();
    ASSERT_TRUE(std::equal(x.indices.begin(), x.indices.end(), y.indices.begin()));
    ASSERT_TRUE(
        std::equal(x.ports[0].as<float>(), x.ports[0].as<float>() + x.ports[0].elements(), y.ports[0].as<float>()));
    a->release();
    b->release();
  }
}

}  // namespace
}  // namespace dtrain::io
