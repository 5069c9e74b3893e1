#include "models/families/layer_list.hpp"

#include <cmath>

namespace dtrain::models {

Conv square_conv(std::int64_t filters, std::int64_t kernel, std::int64_t stride, std::int64_t groups) {
  // Normal with the standard deviation that keeps the variance of gradients through a relu.
  const Init init{Init::Kind::normal, std::sqrt(2.0 / static_cast<double>(filters * kernel * kernel))};
  const std::int64_t padding = kernel / 2;
  return {.filters = filters,
          .kernel = {kernel, kernel},
          .stride = {stride, stride},
          .padding = {padding, padding},
          .bias = false,
          .groups = groups,
          .init = {.weight = init}};
}

TypePtr<std::int64_t> class_count() {
  return integer({1, std::int64_t{1} << 31});
}

}  // namespace dtrain::models
