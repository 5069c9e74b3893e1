// Muon's own kernels: the direction of a matrix, its norm, the factor of a Newton-Schulz step, and the step of the
// parameter, as functions of pointers and sizes. Pointers are device memory; the products between them are in
// muon_ops.hpp.
#pragma once

#include <cstdint>

#include "runtime/cuda/update/update_kernels.hpp"

namespace dtrain::cuda {

/// Rows of a parameter, from float `begin` of the flat buffers on, with its own decay and rate.
struct FlatMatrix {
  std::int64_t param;  // of FlatTables::params
  std::int64_t begin, rows, columns;
  double decay;
  float rate_factor;  // times the step's rate
  DTRAIN_HOST_DEVICE std::int64_t size() const { return rows * columns; }
};

/// Moves the first moments and leaves the direction; norms[b]: the sum of squares of its block b of 1,024 floats.
void muon_direction(const Launch&, const Muon&, const FlatRange&, const FlatMatrix&, const StepState*, float* direction,
                    double* norms);
/// norms[blocks of n] = what the direction is to be multiplied with.
void muon_norm(const Launch&, const Muon&, std::int64_t n, double* norms);
/// to[i] = direction[i] * norms[blocks of n], of type `element`.
void muon_normalize(const Launch&, Element, std::int64_t n, const float* direction, const double* norms, void* to);
/// square = a I + b gram + c square, each [side, side].
void newton_schulz_factor(const Launch&, Element, std::int64_t side, const void* gram, void* square);
/// Steps along what the matrix has become, and leaves packed copies.
void muon_step(const Launch&, Element, const Muon&, const FlatTables&, const FlatRange&, const FlatMatrix&,
               const StepState*, const void* orthogonal);

}  // namespace dtrain::cuda
