// The MNIST networks against PyTorch (tests/golden/models.json, made by make_goldens.py in float64): loss and gradients
// at independent points, and losses of whole training runs.
#include <cmath>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "runtime/random/rng.hpp"
#include "tests/models/layers/golden_net.hpp"

namespace dtrain::models {
namespace {

constexpr std::int64_t batch_size = 16;
// float32 against float64: rounding of some hundred accumulated terms, far below; a wrong term is far above.
constexpr double point_tolerance = 1e-4;
constexpr double sgd_tolerance = 1e-4;
// Adam divides by the root of tiny second moments in its first steps, which magnifies rounding.
constexpr double adam_tolerance = 1e-3;

ModelConfig mlp() {
  ModelConfig m;
  m.input = {784};
  m.layers = {{"", Dense{.units = 512, .activation = Activation::relu}, 0}, {"", Dense{.units = 10}, 0}};
  return m;
}

ModelConfig cnn() {
  const auto conv = [](std::int64_t filters) {
    return Layer{"", Conv{.filters = filters, .kernel = {3, 3}, .activation = Activation::relu}, 0};
  };
  ModelConfig m;
  m.input = {1, 28, 28};
  m.layers = {conv(32),
              {"", MaxPool{}, 0},
              conv(64),
              {"", MaxPool{}, 0},
              conv(64),
              {"", Flatten{}, 0},
              {"", Dense{.units = 64, .activation = Activation::relu}, 0},
              {"", Dense{.units = 10}, 0}};
  return m;
}

std::uint32_t raw(std::uint64_t seed, std::uint64_t item, std::uint32_t sub, std::size_t e) {
  return draw4(random_key(seed, Purpose::test), item, sub, static_cast<std::uint32_t>(e / 4)).v[e % 4];
}

class Net : public test::GoldenNet {
 public:
  Net(const ModelConfig& config, const UpdateRule& rule) : GoldenNet(config, batch_size, rule) {}
  void start(std::uint64_t seed) {
    initialize(seed);
    pack();
  }
  /// Mean loss of Batch(seed); the gradients are sums over the batch.
  double run(std::uint64_t seed) {
    const auto elements = static_cast<std::size_t>(graph().desc(graph().inputs()[0].value).elements()) /
                          static_cast<std::size_t>(batch_size);
    std::vector<float> samples;
    std::vector<std::int32_t> labels;
    for (std::size_t n = 0; n < static_cast<std::size_t>(batch_size); ++n) {
      for (std::size_t e = 0; e < elements; ++e) samples.push_back(to_unit(raw(seed, n, 0, e)));
      labels.push_back(static_cast<std::int32_t>(raw(seed, n, 1, 0) % 10));
    }
    return GoldenNet::run(samples, labels);
  }
  Tensor gradient(ParamId p) const { return store().gradient(p); }
};

const nlohmann::json& goldens() {
  static const nlohmann::json all = nlohmann::json::parse(std::ifstream("tests/golden/models.json"));
  return all;
}

class ModelGolden : public ::testing::TestWithParam<std::pair<const char*, ModelConfig (*)()>> {};

TEST_P(ModelGolden, LossAndEveryGradientAtIndependentPoints) {
  const auto& [name, config] = GetParam();
  Net net(config(), {Sgd{}});
  const auto& points = goldens().at(name).at("points");
  ASSERT_EQ(points.size(), 20u);
  double worst = 0;
  for (std::uint64_t k = 0; k < points.size(); ++k) {
    const auto& expected = points[k];
    net.start(k);
    const double loss = net.run(k);
    EXPECT_NEAR(loss, expected["loss"], point_tolerance * expected["loss"].get<double>()) << "point " << k;
    for (std::size_t p = 0; p < expected["norms"].size(); ++p) {
      const Tensor g = net.gradient(static_cast<ParamId>(p));
      double square = 0, projection = 0;
      for (std::size_t e = 0; e < static_cast<std::size_t>(g.elements()); ++e) {
        const double v = static_cast<double>(g.as<float>()[e]) / static_cast<double>(batch_size);
        square += v * v;
        projection += v * (2.0 * static_cast<double>(to_unit(raw(k, p, 2, e))) - 1.0);
      }
      const double norm = expected["norms"][p];
      EXPECT_NEAR(std::sqrt(square), norm, point_tolerance * norm) << "point " << k << ", parameter " << p;
      // A projection on a uniform vector is about norm / sqrt(3) large, but may happen to be near zero.
      EXPECT_NEAR(projection, expected["projections"][p].get<double>(), point_tolerance * norm / std::sqrt(3.0))
          << "point " << k << ", parameter " << p;
      worst = std::max(worst, std::abs(std::sqrt(square) - norm) / norm);
    }
  }
  RecordProperty("worst_norm_difference", std::to_string(worst));
}

TEST_P(ModelGolden, TwentyLossesWithSgd) {
  const auto& [name, config] = GetParam();
  Net net(config(), {Sgd{.learning_rate = 0.01, .momentum = 0.9}});
  net.start(0);
  const auto& losses = goldens().at(name).at("sgd");
  for (std::size_t s = 0; s < losses.size(); ++s) {
    EXPECT_NEAR(net.run(1000 + s), losses[s], sgd_tolerance * losses[s].get<double>()) << "step " << s;
    net.update();
  }
}

TEST_P(ModelGolden, TwentyLossesWithAdam) {
  const auto& [name, config] = GetParam();
  Net net(config(), {Adam{.learning_rate = 0.001}});
  net.start(0);
  const auto& losses = goldens().at(name).at("adam");
  for (std::size_t s = 0; s < losses.size(); ++s) {
    EXPECT_NEAR(net.run(1000 + s), losses[s], adam_tolerance * losses[s].get<double>()) << "step " << s;
    net.update();
  }
}

INSTANTIATE_TEST_SUITE_P(Mnist, ModelGolden,
                         ::testing::Values(std::pair<const char*, ModelConfig (*)()>{"mlp", mlp},
                                           std::pair<const char*, ModelConfig (*)()>{"cnn", cnn}),
                         [](const auto& row) { return row.param.first; });

}  // namespace
}  // namespace dtrain::models
