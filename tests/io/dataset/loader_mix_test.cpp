// Batches of mixed samples against plain recomputation from unmixed ones: on any number of ranks and any micro batch.
#include <cmath>
#include <map>
#include <vector>

#include "io/augment/mixer.hpp"
#include "io/dataset/loader.hpp"
#include "runtime/device/weight_sum.hpp"
#include "tests/io/dataset/port_batch.hpp"
#include "tests/io/dataset/port_files.hpp"

namespace dtrain::io {
namespace {

using testing::add;
using testing::Folder;
using testing::H5File;
using testing::PortBatch;
using testing::sample_of;

constexpr std::int64_t samples = 40, height = 6, width = 5, classes = 7;
constexpr std::size_t pixels = 3 * height * width;

struct MixFile {
  explicit MixFile(const Folder& folder) : path(folder / "a.h5") {
    std::vector<std::uint8_t> images, labels;
    for (std::size_t i = 0; i < samples * pixels; ++i) images.push_back(static_cast<std::uint8_t>(i * 37 % 251));
    for (std::size_t i = 0; i < samples; ++i) labels.push_back(static_cast<std::uint8_t>(i * 5 % classes));
    H5File file(path);
    add(file, "x", {samples, 3, height, width}, images);
    add(file, "y", {samples}, labels);
  }
  std::string path;
};

/// Image, label and weight; of pairs where they are mixed.
PortBatch ports_of(bool pairs, const Mix& mix) {
  PortBatch ports;
  const std::vector<std::int64_t> extents = pairs ? std::vector<std::int64_t>{2} : std::vector<std::int64_t>{};
  PortOptions& x = ports.port(PortUse::input, "x", DType::f32, {3, height, width}, "x");
  x.normalize = {0.01, {0.5}, {2}};
  x.augment = {RandomCrop{2}, Flip{}, RandAugment{}, RandomErasing{}};
  PortOptions& y = ports.port(PortUse::target, "y", DType::u8, extents, "y");
  y.limit = classes;
  y.ignore = 3;
  PortOptions& weight = ports.port(PortUse::weight, "w", DType::f32, extents, "-");
  weight.target = 1;
  weight.class_weights = {1, 0.5, 2, 1, 1, 1, 1};
  ports.options.counts = {{1, 2, 3, "loss"}};
  for (PortOptions& port : ports.options.ports) port.pairs = pairs && port.use != PortUse::input;
  if (pairs) ports.options.mix = mix;
  return ports;
}

struct Sample {
  std::vector<float> x, weight;
  std::vector<std::uint8_t> label;
  friend bool operator==(const Sample&, const Sample&) = default;
};

/// By position, of three steps of a warm-up (6, then 12 samples), and the sums of their weights.
struct Steps {
  std::map<std::uint64_t, Sample> samples;
  std::vector<std::uint64_t> sums = std::vector<std::uint64_t>(4);
};

void read(const Dataset& set, const PortBatch& ports, std::int64_t micro, int ranks, Steps& run) {
  std::vector<std::uint64_t> sums(4);
  for (int rank = 0; rank < ranks; ++rank) {
    LoaderOptions options = ports.of(micro, 12, rank, ranks);
    options.seed = 4;
    options.warmup = {6, 6, 12};
    const auto loader = Loader::training(set, options);
    for (std::size_t step = 0; step < 3; ++step) {
      sums[step] += loader->loss_weights(step).at(0);
      std::uint64_t next = 0;
      const std::int64_t batches = (step < 2 ? 6 : 12) / (micro * ranks);
      for (std::int64_t j = 0; j < batches; ++j) {
        const Batch& batch = loader->next();
        ASSERT_EQ(batch.step, step);
        next += batch.next_weights[0];
        for (std::int64_t i = 0; i < micro; ++i) {
          const Sample sample{sample_of<float>(batch, 0, i), sample_of<float>(batch, 2, i),
                              sample_of<std::uint8_t>(batch, 1, i)};
          const std::uint64_t position = batch.positions.as<std::uint64_t>()[i];
          const auto [entry, first] = run.samples.try_emplace(position, sample);
          ASSERT_TRUE(entry->second == sample) << "position " << position << " on " << ranks << " ranks";
        }
        loader->release();
      }
      EXPECT_EQ(next, loader->loss_weights(step + 1).at(0));
    }
  }
  for (std::size_t step = 0; step < 3; ++step) {
    if (run.sums[step] == 0) run.sums[step] = sums[step];
    EXPECT_EQ(run.sums[step], sums[step]);
  }
}

TEST(LoaderMix, MixesWithTheSampleBeforeOnAnyRanks) {
  const Folder folder;
  const MixFile file(folder);
  for (const Mix& mix : {Mix{0.4, 0, 1, 0.5}, Mix{0, 1, 1, 0.5}, Mix{0.8, 1, 0.7, 0.5}}) {
    const PortBatch mixed = ports_of(true, mix), plain = ports_of(false, mix);
    const Dataset set = plain.open({file.path});
    Steps run, unmixed;
    read(set, plain, 6, 1, unmixed);
    for (const auto& [micro, ranks] : {std::pair{6, 1}, {2, 1}, {3, 2}, {1, 3}, {1, 6}})
      ASSERT_NO_FATAL_FAILURE(read(set, mixed, micro, ranks, run));
    ASSERT_EQ(run.samples.size(), 24u);
    const Mixer mixer(mix, {DType::f32, Shape{1, height, width, 3}}, 4);
    int changed = 0;
    double sum = 0;
    for (const auto& [position, sample] : run.samples) {
      const std::uint64_t begin = position < 12 ? position / 6 * 6 : 12, size = position < 12 ? 6 : 12;
      const std::uint64_t before = position > begin ? position - 1 : begin + size - 1;
      const Sample &own = unmixed.samples.at(position), &other = unmixed.samples.at(before);
      const Mixer::Draw draw = mixer.draw(position);
      std::vector<float> expected = own.x;
      mixer.mix(draw, other.x.data(), expected.data());
      ASSERT_EQ(sample.x, expected);
      ASSERT_EQ(sample.label, (std::vector<std::uint8_t>{own.label[0], other.label[0]}));
      ASSERT_EQ(sample.weight, (std::vector<float>{own.weight[0] * draw.own, other.weight[0] * (1 - draw.own)}));
      EXPECT_EQ(own.weight[0] == 0, own.label[0] == 3);
      changed += draw.own != 1;
      if (position >= 12) sum += static_cast<double>(sample.weight[0]) + static_cast<double>(sample.weight[1]);
    }
    EXPECT_GT(changed, 8);
    EXPECT_NEAR(weight_of(run.sums[2]), sum, 1e-6);
  }
}

TEST(LoaderMix, EvaluationMixesNothing) {
  const Folder folder;
  const MixFile file(folder);
  const Mix mix{0.8, 1, 1, 0.5};
  const PortBatch pairs = ports_of(true, mix), plain = ports_of(false, mix);
  const Dataset set = plain.open({file.path});
  const auto mixed = Loader::evaluation(set, pairs.of(7)), one = Loader::evaluation(set, plain.of(7));
  ASSERT_EQ(mixed->batches(), one->batches());
  for (std::int64_t k = 0; k < one->batches(); ++k) {
    const Batch &batch = mixed->next(), &expected = one->next();
    ASSERT_EQ(batch.valid, expected.valid);
    for (std::int64_t i = 0; i < 7; ++i) {
      ASSERT_EQ(sample_of<float>(batch, 0, i), sample_of<float>(expected, 0, i));
      ASSERT_EQ(sample_of<float>(batch, 2, i), (std::vector<float>{sample_of<float>(expected, 2, i)[0], 0}));
      ASSERT_EQ(sample_of<std::uint8_t>(batch, 1, i)[0], sample_of<std::uint8_t>(expected, 1, i)[0]);
    }
    mixed->release();
    one->release();
  }
}

}  // namespace
}  // namespace dtrain::io
