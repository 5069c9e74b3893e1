// What kernels say of their packed copies is what pack() writes, so that an update that writes them may spare it.
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/ops/kernels.hpp"
#include "runtime/ops/op.hpp"
#include "runtime/program/program.hpp"
#include "runtime/tensor/f16.hpp"
#include "tests/runtime/cuda/simulated_device.hpp"
#include "tests/support/op_table.hpp"

namespace dtrain {
namespace {

std::size_t bits_of(DType dtype, float v) {
  if (dtype == DType::bf16) return to_bf16(v).bits;
  if (dtype == DType::f16) return to_f16(v).bits;
  return std::bit_cast<std::uint32_t>(v);
}

/// Bytes that `parts` make of the parameters; what they leave alone is 0xAB.
std::vector<std::byte> expected(std::span<const PackedPart> parts, std::span<const std::vector<float>> params,
                                std::size_t bytes) {
  std::vector<std::byte> out(bytes, std::byte{0xAB});
  for (const PackedPart& part : parts) {
    const std::vector<float>& p = params[static_cast<std::size_t>(part.param)];
    const auto channels = static_cast<std::size_t>(part.channels), pixels = static_cast<std::size_t>(part.pixels);
    for (std::size_t i = 0; i < p.size(); ++i) {
      const std::size_t row = i / (channels * pixels), c = i / pixels % channels, x = i % pixels;
      const std::size_t bits = bits_of(part.dtype, p[i]), to = (row * pixels + x) * channels + c;
      std::memcpy(out.data() + part.at + to * size_of(part.dtype), &bits, size_of(part.dtype));
    }
  }
  return out;
}

TEST(PackedParts, are_all_that_pack_writes) {
  test::SimulatedDevice device;
  const auto stream = device.make_stream(StreamUse::compute);
  const TensorDesc image{DType::f32, Shape{2, 5, 5, 6}};
  const TensorDesc flat = infer(Flatten{}, {&image, 1}).out[0];
  const TensorDesc matrix{DType::f32, Shape{4, 12}};
  struct Row {
    std::string name;
    OpSpec op;
    TensorDesc in;
  };
  const Row rows[] = {{"linear", Dense{.units = 7}, matrix},
                      {"linear_tanh", Dense{.units = 8, .activation = Activation::tanh}, matrix},
                      {"linear_behind_flatten", Dense{.units = 7}, flat},
                      {"conv", Conv{.filters = 4, .kernel = {3, 3}}, image},
                      {"grouped", Conv{.filters = 4, .kernel = {3, 3}, .groups = 2}, image},
                      {"depthwise", Conv{.filters = 6, .kernel = {3, 3}, .groups = 6}, image},
                      {"one_pixel", Conv{.filters = 4, .kernel = {1, 1}}, image},
                      {"one_pixel_strided", Conv{.filters = 4, .kernel = {1, 1}, .stride = {2, 2}}, image}};
  int with_parts = 0;
  for (Row row : rows) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      SCOPED_TRACE(row.name + " " + std::string(name_of(dtype)));
      row.in.dtype = dtype;
      const auto kernel = device.kernels().prepare(row.op, {&row.in, 1}, {});
      const OpShape shape = infer(row.op, {&row.in, 1});
      std::vector<std::vector<float>> params;
      std::vector<Tensor> views;
      for (const ParamDesc& p : shape.params)
        params.push_back(test::signed_draws(8, static_cast<std::uint64_t>(params.size()), p.desc.elements()));
      for (std::size_t i = 0; i < params.size(); ++i) views.push_back({shape.params[i].desc, params[i].data()});
      const auto parts = kernel->packed_parts();
      const std::size_t bytes = kernel->needs().packed;
      EXPECT_EQ(parts.empty(), bytes == 0);
      if (bytes == 0) continue;
      ++with_parts;
      for (const PackedPart& part : parts) EXPECT_EQ(part.at % 16, 0u);
      const Buffer packed(device, bytes);
      std::memset(packed.data(), 0xAB, bytes);
      kernel->pack(views, {{DType::u8, Shape{static_cast<std::int64_t>(bytes)}}, packed.data()}, *stream);
      const auto wanted = expected(parts, params, bytes);
      EXPECT_EQ(std::memcmp(packed.data(), wanted.data(), bytes), 0);
    }
  }
  EXPECT_GE(with_parts, 17);  // all in halves
}

TEST(PackedParts, of_the_cpu_are_none_as_its_updates_write_none) {
  const auto device = make_cpu_device(1);
  Graph g(2);
  const auto x = g.add_input(PortUse::input, "sample", {DType::f32, Shape{2, 5, 5, 6}});
  const auto y = g.add_input(PortUse::target, "target", {DType::i32, Shape{2}});
  const auto w = g.add_input(PortUse::weight, "weight", {DType::f32, Shape{2}});
  auto v = g.add("conv2d_1", Conv{.filters = 4, .kernel = {3, 3}}, {x});
  v = g.add("flatten_1", Flatten{}, {v});
  v = g.add("dense_1", Dense{.units = 5}, {v});
  g.add("loss", SoftmaxCrossEntropy{}, {v, y, w});
  Graph same = g;
  EXPECT_TRUE(Program(*device, std::move(g), {}).packed_copies().empty());
  test::SimulatedDevice gpu;
  const Program program(gpu, std::move(same), {});
  const auto copies = program.packed_copies();
  ASSERT_EQ(copies.size(), program.plan().layout.params.size());
  int swapped = 0;
  for (std::size_t i = 0; i < copies.size(); ++i) {
    const std::string& name = program.plan().layout.params[i].name;
    EXPECT_EQ(copies[i].to != nullptr, name.ends_with(".weight")) << name;
    swapped += copies[i].swapped() ? 1 : 0;
  }
  EXPECT_EQ(swapped, 2);
}

}  // namespace
}  // namespace dtrain
