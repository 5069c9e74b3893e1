#include "runtime/tensor/tensor.hpp"

#include <utility>

#include <fmt/format.h>

namespace dtrain {

namespace {
constexpr std::array<std::pair<DType, std::string_view>, 8> names{{{DType::f32, "float32"},
                                                                   {DType::bf16, "bfloat16"},
                                                                   {DType::f16, "float16"},
                                                                   {DType::f64, "float64"},
                                                                   {DType::u8, "uint8"},
                                                                   {DType::i32, "int32"},
                                                                   {DType::i64, "int64"},
                                                                   {DType::u64, "uint64"}}};
}  // namespace

std::size_t size_of(DType t) noexcept {
  switch (t) {
    case DType::u8:
      return 1;
    case DType::bf16:
    case DType::f16:
      return 2;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::f64:
    case DType::i64:
    case DType::u64:
      return 8;
  }
  return 0;
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

Shape Shape::with_batch(std::int64_t n) const {
  if (rank_ == 0) throw BugError("a scalar has no batch extent");
  Shape shape = *this;
  shape.extents_[0] = n;
  return shape;
}

std::string Shape::str() const {
  return fmt::format("[{}]", fmt::join(extents(), ", "));
}

}  // namespace dtrain
