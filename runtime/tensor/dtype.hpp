// The element types of tensors.
// A plain enumeration, without any other header: device code includes it.
#pragma once

#include <cstdint>

namespace dtrain {

enum class DType : std::uint8_t { f32, bf16, f16, f64, u8, u16, i32, i64, u64 };

}  // namespace dtrain
