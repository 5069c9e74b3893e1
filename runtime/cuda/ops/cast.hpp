// Another element type: what starts the kernel, and its body. A struct of arguments; see grid.hpp.
// The output may lie over an input of equal size.
#pragma once

#include "runtime/cuda/vector.hpp"

namespace dtrain::cuda {

void cast(const Launch&, Element from_type, Element to_type, const void* from, Slot to, std::int64_t n);

template <class From, class To>
struct CastBody {
  /// Groups as the wider of the two types has them in 16 bytes.
  using Element = std::conditional_t<(sizeof(From) > sizeof(To)), From, To>;
  const From* from;
  Slot to;
  template <int width>
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    write_slot<width, To>(to, i, load_floats<width>(from + i));
  }
};

}  // namespace dtrain::cuda
