// The families against PyTorch (tests/golden/families.json, made by make_family_goldens.py in float64): loss, every
// gradient and the statistics of batch norms, at independent points. A program of its own, because a sanitizer build
// would take minutes for it.
#include <cmath>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "runtime/random/rng.hpp"
#include "tests/models/layers/golden_net.hpp"

namespace dtrain::models {
namespace {

using Json = nlohmann::json;

constexpr std::size_t batch_size = 4;
constexpr double tolerance = 1e-4;
// A gradient that is zero in exact arithmetic, and what PyTorch's float64 leaves of it.
constexpr double zero = 1e-12;

const Json& goldens() {
  static const Json all = Json::parse(std::ifstream("tests/golden/families.json"));
  return all;
}

/// The first `count` elements of the stream D(seed, item, sub), signed.
std::vector<float> stream(std::uint64_t seed, std::uint64_t item, std::uint32_t sub, std::size_t count) {
  const RandomKey key = random_key(seed, Purpose::test);
  std::vector<float> values(count);
  Random4 block{};
  for (std::size_t e = 0; e < count; ++e) {
    if (e % 4 == 0) block = draw4(key, item, sub, static_cast<std::uint32_t>(e / 4));
    values[e] = 2.0f * to_unit(block.v[e % 4]) - 1.0f;
  }
  return values;
}

struct Network {
  const char* name;
  std::vector<std::int64_t> input;
  Family family;
  std::uint32_t classes;
  double label_smoothing;
};
std::vector<Network> networks() {
  return {{"resnet18", {3, 16, 16}, ResNet{18, ResNet::Stem::cifar, false, 10}, 10, 0},
          {"resnet50", {3, 33, 33}, ResNet{.depth = 50}, 1000, 0},
          {"efficientnet", {3, 33, 33}, EfficientNetB0{.dropout = 0, .drop_path = 0}, 1000, 0.1}};
}

class Net : public test::GoldenNet {
 public:
  Net(const Network& network, bool sync)
      : GoldenNet(config(network, sync), batch_size, {Sgd{}}), network_(network), golden_(goldens().at(network.name)) {}

  void fill(std::uint64_t seed) {
    for (std::size_t p = 0; p < graph().params().size(); ++p) {
      const GraphParam& param = graph().params()[p];
      std::vector<float> values = stream(seed, p, 3, static_cast<std::size_t>(param.shape.elements()));
      if (param.shape.rank() > 1) {
        const std::int64_t fan_in = param.shape.elements() / param.shape[0];
        for (float& v : values) v *= static_cast<float>(std::sqrt(3.0 / static_cast<double>(fan_in)));
      } else if (param.name.ends_with(".weight")) {
        for (float& v : values) v = 1.0f + v / 4.0f;
      } else {
        const Json& offsets = golden_.at("offsets");
        const auto offset = offsets.find(std::to_string(p));
        for (std::size_t e = 0; e < values.size(); ++e) {
          values[e] /= 4.0f;
          if (offset != offsets.end()) values[e] += (*offset)[e % 2].get<float>();
        }
      }
      std::copy(values.begin(), values.end(), store().param(static_cast<ParamId>(p)).as<float>());
    }
    pack();
  }

  double run(std::uint64_t seed) {
    std::vector<float> samples;
    std::vector<std::int32_t> labels;
    for (std::size_t n = 0; n < batch_size; ++n) {
      const auto sample = stream(seed, n, 0, static_cast<std::size_t>(Shape(network_.input).elements()));
      samples.insert(samples.end(), sample.begin(), sample.end());
      labels.push_back(static_cast<std::int32_t>(test::raw_draw(seed, n, 1, 0) % network_.classes));
    }
    return GoldenNet::run(samples, labels);
  }

  /// Compares the loss and every gradient with the point.
  void check(const Json& point) {
    const std::uint64_t seed = point.at("seed");
    const double loss = point.at("loss");
    fill(seed);
    EXPECT_NEAR(run(seed), loss, tolerance * loss) << "seed " << seed;
    ASSERT_EQ(point.at("norms").size(), graph().params().size());
    double before = 0;
    for (std::size_t p = 0; p < graph().params().size(); ++p) {
      const Tensor g = store().gradient(static_cast<ParamId>(p));
      const std::vector<float> direction = stream(seed, p, 2, static_cast<std::size_t>(g.elements()));
      double square = 0, projection = 0;
      for (std::size_t e = 0; e < direction.size(); ++e) {
        const double v = static_cast<double>(g.as<float>()[e]) / static_cast<double>(batch_size);
        square += v * v;
        projection += v * static_cast<double>(direction[e]);
      }
      const double norm = point.at("norms")[p], expected = point.at("projections")[p];
      const std::string where = "seed " + std::to_string(seed) + ", " + graph().params()[p].name;
      if (norm < zero) {
        EXPECT_LT(std::sqrt(square), tolerance * before) << where;
        continue;
      }
      EXPECT_NEAR(std::sqrt(square), norm, tolerance * norm) << where;
      // A projection on a uniform vector is about norm / sqrt(3) large, but may happen to be near zero.
      EXPECT_NEAR(projection, expected, tolerance * norm / std::sqrt(3.0)) << where;
      worst_ = std::max(
          {worst_, std::abs(std::sqrt(square) - norm) / norm, std::abs(projection - expected) / norm * std::sqrt(3.0)});
      before = norm;
    }
  }

  /// After check() of the first point: what the step found for the running statistics.
  void check_statistics() {
    const Json& expected = golden_.at("statistics");
    ASSERT_EQ(2 * expected.at("means").size(), graph().states().size());
    for (std::size_t s = 0; s < graph().states().size(); ++s) {
      const Tensor sums = store().state_sums(static_cast<StateId>(s));
      double square = 0;
      for (std::size_t e = 0; e < static_cast<std::size_t>(sums.elements()); ++e)
        square += static_cast<double>(sums.as<float>()[e]) * static_cast<double>(sums.as<float>()[e]);
      const double norm = expected.at(s % 2 == 0 ? "means" : "variances")[s / 2];
      EXPECT_NEAR(std::sqrt(square), norm, tolerance * norm) << graph().states()[s].name;
    }
  }
  double worst() const { return worst_; }
  const Json& points() const { return golden_.at("points"); }

 private:
  static ModelConfig config(const Network& network, bool sync) {
    ModelConfig m;
    m.input = network.input;
    m.family = network.family;
    m.loss.label_smoothing = network.label_smoothing;
    m.sync_batch_norm = sync;
    return m;
  }

  Network network_;
  const Json& golden_;
  double worst_ = 0;
};

class Families : public ::testing::TestWithParam<Network> {};

TEST_P(Families, LossAndEveryGradientAtIndependentPoints) {
  Net net(GetParam(), false);
  EXPECT_EQ(net.graph().parameter_count(), goldens().at(GetParam().name).at("parameters"));
  ASSERT_EQ(net.points().size(), 20u);
  for (const Json& point : net.points()) {
    net.check(point);
    if (&point == &net.points()[0]) net.check_statistics();
  }
  std::printf("%s: the worst difference is %.2g\n", GetParam().name, net.worst());
}

TEST_P(Families, StatisticsOverAllRanksAreThoseOfTheOnlyOne) {
  Net net(GetParam(), true);
  net.check(net.points()[0]);
  net.check_statistics();
}

INSTANTIATE_TEST_SUITE_P(Golden, Families, ::testing::ValuesIn(networks()),
                         [](const auto& row) { return std::string(row.param.name); });

}  // namespace
}  // namespace dtrain::models

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
