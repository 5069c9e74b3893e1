// The kernels of the CPU device: one factory a family of ops, and the two passes over flat buffers.
// Kernels own their descriptors and no tensors; they run inline on the calling thread, with `threads` OpenMP threads.
#pragma once

#include <memory>
#include <span>

#include "runtime/device/device.hpp"
#include "runtime/ops/op.hpp"
#include "runtime/optim/optimizer.hpp"

namespace dtrain::cpu {

std::unique_ptr<Kernel> make_kernel(const OpSpec&, std::span<const TensorDesc> in, int threads);

/// One optimizer update of [args.begin, args.end), in one pass.
void apply_update(const UpdateRule&, const UpdateArgs&, int threads);
/// Device::average.
void average_range(float* average, const float* params, std::size_t n, float rate, int threads);

/// See Device::update_states.
void apply_state_update(const StateUpdateArgs&);

/// See Device::load_images.
void load_images(const ImageFormat&, const ImageBatch&, int threads);

/// In double, in an order that depends on `n` alone.
double sum_squares(const float* x, std::size_t n);

/// partial[i] = sum of the squares of block i of norm_block floats, in an order of its own that does not depend on
/// `threads`.
void sum_squares_blocks(const float* x, std::size_t n, double* partial, int threads);

/// See Device::add and Device::cast.
void add_parts(std::span<const float* const> parts, float* out, std::size_t begin, std::size_t end, int threads);
void cast_elements(const void* from, DType from_type, void* to, DType to_type, std::size_t n);

}  // namespace dtrain::cpu
