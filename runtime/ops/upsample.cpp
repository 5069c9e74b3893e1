#include "runtime/ops/upsample.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

Upsample Upsample::in_dimensions(std::size_t dimensions) {
  return {Extents::all(dimensions, 2), Mode::nearest};
}

std::string_view Upsample::name() const {
  constexpr std::string_view names[] = {"upsample", "upsample1d", "upsample2d", "upsample3d"};
  return names[factor.size()];
}

OpShape Upsample::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 1);
  expect_positions(in[0], factor.size());
  Extents positions = positions_of(in[0]);
  for (std::size_t d = 0; d < factor.size(); ++d) {
    if (factor[d] < 1) throw ShapeError(fmt::format("a factor of {}; expected at least 1", factor.str()));
    if (static_cast<double>(positions[d]) * static_cast<double>(factor[d]) > 1e12) {
      throw ShapeError(
          fmt::format("a factor of {} makes its input of shape {} too large", factor.str(), in[0].sample_str()));
    }
    positions[d] *= factor[d];
  }
  OpShape shape;
  shape.out = {with_positions(in[0], positions)};
  shape.cheap = true;
  const std::int64_t taps = mode == Mode::linear ? std::int64_t{1} << factor.size() : 1;
  shape.flops = 2.0 * static_cast<double>(shape.out[0].elements() * taps);
  return shape;
}

std::vector<OpKind<Upsample>> Upsample::kinds() {
  constexpr std::string_view shapes[] = {"", "[T, C] to [T x factor, C]", "[C, H, W] to [C, H x factor, W x factor]",
                                         "[C, D, H, W] to [C, D x factor, H x factor, W x factor]"};
  return kinds_of_dimensions(&Upsample::factor, [&](std::size_t n, const Upsample& defaults) {
    Table<Upsample> table(fmt::format("{}-D upsampling: {}.", n, shapes[n]), defaults);
    table.add("factor", &Upsample::factor, extents_of(1, n), "how many times as many pixels");
    table.add("mode", &Upsample::mode, choice<Mode>({{"nearest", Mode::nearest}, {"linear", Mode::linear}}),
              "nearest repeats pixels; linear interpolates between their centres in each dimension");
    return table;
  });
}

}  // namespace dtrain
