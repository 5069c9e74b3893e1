#include "runtime/ops/concat.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

OpShape Concat::infer(std::span<const TensorDesc> in) const {
  if (in.size() < 2 || in.size() > 32)
    throw ShapeError(fmt::format("concat takes 2 to 32 inputs, not {}; expected from: [a, b, ...]", in.size()));
  std::int64_t channels = 0;
  for (const TensorDesc& desc : in) {
    expect_channels(desc);
    if (with_channels(desc, 1) != with_channels(in[0], 1)) {
      throw ShapeError(fmt::format("its inputs have shapes {} and {}; expected equal ones but for the channels",
                                   in[0].sample_str(), desc.sample_str()));
    }
    channels += desc.channels();
  }
  OpShape shape;
  shape.out = {with_channels(in[0], channels)};
  shape.differentiable = static_cast<std::uint32_t>((std::uint64_t{1} << in.size()) - 1);
  return shape;
}

std::vector<OpKind<Concat>> Concat::kinds() {
  return {
      {"concat", Table<Concat>("Channels or features one behind the other, of 2 to 32 layers: from: [a, b, ...].")}};
}

}  // namespace dtrain
