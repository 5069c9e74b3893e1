// What kernels with an activation inside share: bias and activation, its gradient, in place, and additions.
#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/parallel.hpp"

namespace dtrain::cpu {

namespace {

template <class T>
void epilogue_gradient_of(Activation activation, const T* y, T* grad, std::int64_t n, int threads) {
  with_epilogue(activation, [=](auto constant) {
    constexpr Activation kind = decltype(constant)::value;
    parallel_chunks(n, task_elements, threads, [=](std::int64_t begin, std::int64_t end) {
      write_elements(grad, begin, end, false,
                     [=](std::int64_t i) { return activation_gradient<kind>(to_float(y[i]), to_float(grad[i])); });
    });
  });
}

template <class T>
void add_into_of(T* to, const T* from, std::int64_t n, int threads) {
  parallel_chunks(n, task_elements, threads, [=](std::int64_t begin, std::int64_t end) {
    write_elements(to, begin, end, true, [=](std::int64_t i) { return to_float(from[i]); });
  });
}

template <class T>
void bias_activate_of(Activation activation, T* y, const float* bias, std::int64_t rows, std::int64_t columns,
                      int threads) {
  with_epilogue(activation, [=](auto constant) {
    constexpr Activation kind = decltype(constant)::value;
    parallel_rows(rows, columns, 16384, threads, [=](std::int64_t row) {
      T* to = y + row * columns;
      if (bias) {
        write_elements(to, 0, columns, false,
                       [=](std::int64_t c) { return activate<kind>(to_float(to[c]) + bias[c]); });
      } else if (kind != Activation::none) {
        write_elements(to, 0, columns, false, [=](std::int64_t c) { return activate<kind>(to_float(to[c])); });
      }
    });
  });
}

}  // namespace

void epilogue_gradient(Activation activation, const Tensor& y, const Tensor& grad, int threads) {
  if (activation == Activation::none) return;
  const std::int64_t n = y.elements();
  if (y.desc.dtype == DType::bf16) {
    epilogue_gradient_of(activation, y.as<const Bf16>(), grad.as<Bf16>(), n, threads);
  } else {
    epilogue_gradient_of(activation, y.as<const float>(), grad.as<float>(), n, threads);
  }
}

void bias_activate(Activation activation, const Tensor& y, const float* bias, int threads) {
  if (y.desc.dtype == DType::bf16) {
    bias_activate_of(activation, y.as<Bf16>(), bias, y.desc.rows(), y.desc.channels(), threads);
  } else {
    bias_activate_of(activation, y.as<float>(), bias, y.desc.rows(), y.desc.channels(), threads);
  }
}

void add_into(DType dtype, void* to, const void* from, std::int64_t n, int threads) {
  if (dtype == DType::bf16) {
    add_into_of(static_cast<Bf16*>(to), static_cast<const Bf16*>(from), n, threads);
  } else {
    add_into_of(static_cast<float*>(to), static_cast<const float*>(from), n, threads);
  }
}

}  // namespace dtrain::cpu
