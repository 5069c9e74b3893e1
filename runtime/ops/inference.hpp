// What the inference of several ops shares: checks of inputs with messages in the user's words, and shapes of results.
// Pure functions for runtime/ops/*.cpp; the layer's name is added by who infers.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/ops/activation.hpp"
#include "runtime/ops/extents.hpp"
#include "runtime/ops/shape.hpp"

namespace dtrain::inference {

/// A description whose product of extents is known not to overflow. Throws ShapeError.
TensorDesc tensor(DType dtype, Shape shape);
inline TensorDesc f32(Shape shape) {
  return tensor(DType::f32, shape);
}
/// The same batch and channels with other positions, or the same but for the channels.
TensorDesc with_positions(const TensorDesc&, const Extents& positions);
TensorDesc with_channels(const TensorDesc&, std::int64_t channels);
/// The positions of an image, volume or series, outermost first.
Extents positions_of(const TensorDesc&);

/// So many inputs, none of them empty. `op`: its name.
void expect_inputs(std::string_view op, std::span<const TensorDesc> in, std::size_t count);
void expect_float(const TensorDesc&);
/// Floats with channels: no flattened image, whose channels lie elsewhere.
void expect_channels(const TensorDesc&);
/// A series, an image or a volume, by the number of its spatial dimensions.
void expect_positions(const TensorDesc&, std::size_t dimensions);
/// Positions, in however many dimensions.
void expect_any_positions(const TensorDesc&);
/// For each position of the value, in i32, the first that it may see.
void expect_documents(const TensorDesc& documents, const TensorDesc& value);
/// At least one filter, in groups that divide them and the channels.
void expect_filters(const TensorDesc&, std::int64_t filters, std::int64_t groups);
/// Inputs of one type and shape.
void expect_alike(std::span<const TensorDesc> in);
/// Only an activation whose derivative_of_output can be inside an op.
void expect_epilogue(Activation);

/// What a loss compares: floats with channels, in the order in which targets are.
void expect_loss_values(const TensorDesc&);
/// One for each sample, or one for each position of the value.
void expect_loss_weights(const TensorDesc& weight, const TensorDesc& value);
/// [N, positions...] of values [N, positions..., channels].
Shape without_channels(const TensorDesc&);
/// "one a sample", "[16, 16] a sample"
std::string in_a_sample(const Shape&);
/// The output may lie over the input, and the gradient of the input over that of the output.
std::vector<Alias> in_place();

/// Windows of `size` (`dilation` apart) at `stride` with `padding` on both sides, in each dimension; `what` is their
/// name.
struct WindowSizes {
  std::string_view what;
  Extents size, stride, padding, dilation;
  Extents count(const TensorDesc& in) const;
};

void add_affine_params(OpShape&, Shape weight, std::int64_t fan_in, std::int64_t outputs, bool bias, const AffineInit&);
std::size_t parameter_bytes(const OpShape&);

/// Of what goes over lines of channels. `library`: or by a library, that adds no gradients and writes none over others.
Bounds line_bounds(const TensorDesc& in, bool library);
/// Of what makes sums of the channels of each sample.
Bounds sample_line_bounds(const TensorDesc& in);
/// The most workspace that a kernel gives a library for what own kernels can do as well, of an input of so many bytes.
std::size_t library_workspace(std::size_t in);

}  // namespace dtrain::inference
