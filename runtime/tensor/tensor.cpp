#include "runtime/tensor/tensor.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace dtrain {

namespace {
constexpr std::array<std::pair<DType, std::string_view>, 9> names{{{DType::f32, "float32"},
                                                                   {DType::bf16, "bfloat16"},
                                                                   {DType::f16, "float16"},
                                                                   {DType::f64, "float64"},
                                                                   {DType::u8, "uint8"},
                                                                   {DType::u16, "uint16"},
                                                                   {DType::i32, "int32"},
                                                                   {DType::i64, "int64"},
                                                                   {DType::u64, "uint64"}}};
}  // namespace

std::size_t size_of(DType t) noexcept {
  constexpr std::size_t sizes[] = {4, 2, 2, 8, 1, 2, 4, 8, 8};  // in the order of DType
  return sizes[static_cast<std::size_t>(t)];
}

std::string_view name_of(DType t) noexcept {
  for (const auto& [type, name] : names)
    if (type == t) return name;
  return "?";
}

DType dtype_from_name(std::string_view text) {
  std::string expected;
  for (const auto& [type, name] : names) {
    if (name == text) return type;
    expected += fmt::format("{}{}", expected.empty() ? "" : ", ", name);
  }
  throw ConfigError(fmt::format("unknown element type \"{}\"; expected one of {}", text, expected));
}

Shape::Shape(std::span<const std::int64_t> extents) {
  if (extents.size() > max_rank)
    throw ShapeError(
        fmt::format("a tensor has at most {} dimensions, not {}", static_cast<int>(max_rank), extents.size()));
  for (std::int64_t extent : extents) extents_[static_cast<std::size_t>(rank_++)] = extent;
}

std::int64_t Shape::elements() const noexcept {
  std::int64_t n = 1;
  for (std::int64_t extent : extents()) n *= extent;
  return n;
}

std::string Shape::str() const {
  return fmt::format("[{}]", fmt::join(extents(), ", "));
}

bool TensorDesc::is_index() const noexcept {
  return dtype == DType::u8 || dtype == DType::u16 || dtype == DType::i32 || dtype == DType::i64 || dtype == DType::u64;
}

std::int64_t TensorDesc::channels() const {
  if (is_index()) throw BugError(fmt::format("index values {} have no channels", shape.str()));
  if (shape.rank() < 2) throw BugError(fmt::format("a tensor of shape {} has no channels", shape.str()));
  return shape[shape.rank() - 1];
}

Shape TensorDesc::sample() const {
  std::vector<std::int64_t> extents(shape.extents().begin() + std::min(shape.rank(), 1), shape.extents().end());
  if (!is_index() && extents.size() >= 3) std::rotate(extents.begin(), extents.end() - 1, extents.end());
  return Shape(std::span<const std::int64_t>(extents));
}

TensorDesc TensorDesc::of_sample(DType dtype, std::int64_t batch, std::span<const std::int64_t> sample) {
  std::vector<std::int64_t> extents{batch};
  extents.insert(extents.end(), sample.begin(), sample.end());
  TensorDesc desc{dtype, {}};
  if (!desc.is_index() && sample.size() >= 3) std::rotate(extents.begin() + 1, extents.begin() + 2, extents.end());
  desc.shape = Shape(std::span<const std::int64_t>(extents));
  return desc;
}

}  // namespace dtrain
