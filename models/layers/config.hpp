// Plain description of a model as users write it: a list of layers or a family, and a loss.
// Values only; launch/ fills it from YAML, models/ turns it into a Graph.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/ops/op.hpp"

namespace dtrain::models {

// An `activation` of a layer may be any; `weight_init` is for families and has no setting.

struct Conv2dLayer {
  static constexpr std::int64_t same = -1;  // padding: the output has the input's extents, divided by the stride

  std::int64_t filters = 0;
  std::array<std::int64_t, 2> kernel{0, 0}, stride{1, 1}, padding{0, 0};
  bool bias = true;
  Activation activation = Activation::none;
  std::array<std::int64_t, 2> dilation{1, 1};
  std::int64_t groups = 1;
  std::optional<Init> weight_init{};
};
struct MaxPool2dLayer {
  std::array<std::int64_t, 2> size{2, 2};
  std::array<std::int64_t, 2> stride{0, 0};  // 0: the size
  std::array<std::int64_t, 2> padding{0, 0};
};
struct AveragePool2dLayer {
  std::array<std::int64_t, 2> size{2, 2};
  std::array<std::int64_t, 2> stride{0, 0};  // 0: the size
  std::array<std::int64_t, 2> padding{0, 0};
  bool count_padding = true;
};
struct GlobalAveragePoolLayer {};
struct DenseLayer {
  std::int64_t units = 0;
  bool bias = true;
  Activation activation = Activation::none;
  std::optional<Init> weight_init{};
};
struct BatchNormLayer {
  double epsilon = 1e-5, momentum = 0.1;
  Activation activation = Activation::none;
  double initial_weight = 1;  // for families
};
struct LayerNormLayer {
  double epsilon = 1e-5;
};
struct ActivationLayer {
  Activation kind = Activation::relu;
};
struct AddLayer {
  Activation activation = Activation::none;
};
struct MultiplyLayer {};
struct ConcatLayer {};
struct DropoutLayer {
  double rate = 0.5;
};
/// Stochastic depth: zeroes whole samples.
struct DropPathLayer {
  double rate = 0.1;
};
struct FlattenLayer {};

using LayerKind = std::variant<Conv2dLayer, MaxPool2dLayer, AveragePool2dLayer, GlobalAveragePoolLayer, DenseLayer,
                               BatchNormLayer, LayerNormLayer, ActivationLayer, AddLayer, MultiplyLayer, ConcatLayer,
                               DropoutLayer, DropPathLayer, FlattenLayer>;

struct Layer {
  std::string name;  // empty: the kind with a number, "conv2d_1"
  LayerKind kind;
  int line = 0;                     // where it stands in the file, for messages; 0: nowhere
  std::vector<std::string> from{};  // names of earlier layers, or "input"; empty: the layer before
};

// ---- families: what stands in place of layers ----------------------------------------------------------------------

/// Dense layers of these widths, then one to the classes; an image is flattened first.
struct Mlp {
  std::vector<std::int64_t> widths;
  Activation activation = Activation::relu;
  double dropout = 0;  // behind each width
  std::int64_t classes = 10;
};
/// He et al. 2016 in the form of v1.5: the stride of a bottleneck is in its 3x3 convolution.
struct ResNet {
  enum class Stem : std::uint8_t { imagenet, cifar };
  std::int64_t depth = 18;  // 18, 34 or 50
  Stem stem = Stem::imagenet;
  bool zero_init_residual = false;
  std::int64_t classes = 1000;
};
/// Tan and Le 2019, B0.
struct EfficientNetB0 {
  double dropout = 0.2;
  double drop_path = 0.2;  // of the last block; it grows linearly from 0
  std::int64_t classes = 1000;
};
using Family = std::variant<std::monostate, Mlp, ResNet, EfficientNetB0>;
/// As in a configuration, "resnet"; empty where there is none.
std::string_view family_name(const Family&) noexcept;

// ---- the model -----------------------------------------------------------------------------------------------------

enum class Loss : std::uint8_t { cross_entropy, mean_squared_error };
/// What batch norm takes means over while training: a micro batch of a rank, or those of all ranks at one place of the
/// step. `micro` depends on batch.micro, but not on the number of ranks.
enum class Statistics : std::uint8_t { micro, global };

struct ModelConfig {
  std::vector<std::int64_t> input;  // shape of a sample: [C, H, W] or [features]
  std::vector<Layer> layers;
  Loss loss = Loss::cross_entropy;
  double label_smoothing = 0;  // of cross_entropy
  Family family{};             // in place of layers
  Statistics statistics = Statistics::micro;
};

}  // namespace dtrain::models
