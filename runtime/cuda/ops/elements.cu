// Starts the kernels that go element by element.
#include "runtime/cuda/ops/element_bodies.hpp"

namespace dtrain::cuda {

void activate(const Launch& where, Element element, Activation kind, const void* x, void* y, std::int64_t n) {
  with_element(element, [&](auto tag) {
    using T = decltype(tag);
    for_elements(where, n, aligned(x, y), ActivateBody<T>{kind, as<T>(x), static_cast<T*>(y)});
  });
}

void activation_gradient(const Launch& where, Element element, Activation kind, const void* seen, const void* gy,
                         Slot gx, std::int64_t n) {
  with_element(element, [&](auto tag) {
    using T = decltype(tag);
    for_elements(where, n, aligned(seen, gy, gx.to), ActivationGradientBody<T>{kind, as<T>(seen), as<T>(gy), gx});
  });
}

void add(const Launch& where, Element element, Activation kind, const void* a, const void* b, void* y, std::int64_t n) {
  with_element(element, [&](auto tag) {
    using T = decltype(tag);
    for_elements(where, n, aligned(a, b, y), AddBody<T>{kind, as<T>(a), as<T>(b), static_cast<T*>(y)});
  });
}

void add_gradient(const Launch& where, Element element, Activation kind, const void* y, const void* gy, Slot ga,
                  Slot gb, std::int64_t n) {
  with_element(element, [&](auto tag) {
    using T = decltype(tag);
    for_elements(where, n, aligned(y, gy, ga.to, gb.to), AddGradientBody<T>{kind, as<T>(y), as<T>(gy), ga, gb});
  });
}

void multiply(const Launch& where, Element element, const void* a, const void* b, void* y, std::int64_t n) {
  with_element(element, [&](auto tag) {
    using T = decltype(tag);
    for_elements(where, n, aligned(a, b, y), MultiplyBody<T>{as<T>(a), as<T>(b), static_cast<T*>(y)});
  });
}

void multiply_gradient(const Launch& where, Element element, const void* a, const void* b, const void* gy, Slot ga,
                       Slot gb, std::int64_t n) {
  with_element(element, [&](auto tag) {
    using T = decltype(tag);
    for_elements(where, n, aligned(a, b, gy, ga.to, gb.to),
                 MultiplyGradientBody<T>{as<T>(a), as<T>(b), as<T>(gy), ga, gb});
  });
}

void cast(const Launch& where, Element from_type, Element to_type, const void* from, Slot to, std::int64_t n) {
  with_element(from_type, [&](auto from_tag) {
    with_element(to_type, [&](auto to_tag) {
      using From = decltype(from_tag);
      using To = decltype(to_tag);
      for_elements(where, n, aligned(from, to.to), CastBody<From, To>{as<From>(from), to});
    });
  });
}

void copy_rows(const Launch& where, Element element, const Rows& rows, const void* from, Slot to) {
  with_element(element, [&](auto tag) {
    using T = decltype(tag);
    constexpr int width = width_of<T>;
    const bool vectors = aligned(from, to.to) && (rows.columns | rows.from_step | rows.to_step) % width == 0;
    const std::int64_t blocks = divide_up(rows.rows * (rows.columns / (vectors ? width : 1)), block_threads);
    const std::int64_t started = blocks < most_blocks ? blocks : most_blocks;
    if (vectors) {
      launch(where, started, CopyRowsBody<T, width>{rows, as<T>(from), to});
    } else {
      launch(where, started, CopyRowsBody<T, 1>{rows, as<T>(from), to});
    }
  });
}

void dropout(const Launch& where, Element element, const DropoutShape& shape, const StepState* step,
             const std::uint64_t* positions, const void* x, void* y, std::uint8_t* mask) {
  with_element(element, [&](auto tag) {
    using T = decltype(tag);
    const bool vectors = shape.features % width_of<T> == 0 && aligned(x, y, mask);
    for_elements(where, shape.samples * shape.features, vectors,
                 DropoutBody<T>{shape, step, positions, as<T>(x), static_cast<T*>(y), mask});
  });
}

void dropout_gradient(const Launch& where, Element element, const DropoutShape& shape, const std::uint8_t* mask,
                      const void* gy, Slot gx) {
  with_element(element, [&](auto tag) {
    using T = decltype(tag);
    const bool vectors = shape.features % width_of<T> == 0 && aligned(gy, gx.to, mask);
    for_elements(where, shape.samples * shape.features, vectors, DropoutGradientBody<T>{shape, mask, as<T>(gy), gx});
  });
}

}  // namespace dtrain::cuda
