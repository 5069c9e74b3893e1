// A bfloat16 layer computed in float32, for processors on which oneDNN has no bfloat16 (those without AVX-512): values
// and weights are widened, and each result is rounded once, as the library's own bfloat16 kernels do. The kernel owns
// the float32 kernel inside it and no bytes; it runs on the calling thread with `threads` OpenMP threads.
#pragma once

#include <memory>

#include "runtime/ops/op.hpp"

namespace dtrain::cpu {

/// `in`: in bfloat16. Throws DeviceError where the layer cannot be computed in float32 either.
std::unique_ptr<Kernel> make_in_float(const Conv&, const TensorDesc& in, int threads);
std::unique_ptr<Kernel> make_in_float(const ConvTranspose&, const TensorDesc& in, int threads);
std::unique_ptr<Kernel> make_in_float(const Dense&, const TensorDesc& in, int threads);

}  // namespace dtrain::cpu
