// Own kernels over the flat buffers, as functions of pointers and sizes: updates, averages, norms and what is decided
// from them. Pointers are device memory; see kernels.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/cuda/kernels.hpp"
#include "runtime/device/step_state.hpp"
#include "runtime/optim/rules.hpp"

namespace dtrain::cuda {

/// A parameter, and where the update leaves a copy of it (or null), which is plain or swapped (PackedCopy).
struct FlatEntry {
  std::int64_t offset, size;
  void* packed;
  Element packed_type;
  bool decay, swapped;
  std::uint32_t group;  // FlatTables::nobody: of none, as Muon updates it by itself
  std::uint32_t channels, pixels;
  std::int64_t first_block;  // of its norm blocks, which are counted from parameter to parameter
};
struct FlatStateEntry {
  std::int64_t offset, size;
  float momentum;
};
/// A layout, as kernels look things up in it.
struct FlatTables {
  static constexpr std::int64_t group = 16;            // floats: FlatLayout::alignment
  static constexpr std::int64_t block = 1024;          // floats: norm_block
  static constexpr std::uint32_t nobody = 0xFFFFFFFF;  // owns a group between parameters
  const std::uint32_t* owner;                          // of each group of floats: its parameter
  const FlatEntry* params;
  std::int64_t param_count;
  const std::uint32_t* block_owner;  // of each norm block
  std::int64_t blocks;
  const FlatStateEntry* states;
  std::int64_t state_count;
  // An update is of the parameters of one group alone, whose rate this is times the step's.
  std::uint32_t update_group;
  float rate_factor;
};
/// The floats [begin, end) of the flat buffers; state[i][0] is of float state_begin.
struct FlatRange {
  float* params;
  const float* gradients;
  float* state[2];
  std::int64_t begin, end, state_begin;
};

/// By Sgd, Adam or AdamW; by Lars or Lamb, of whole parameters and with `norms`: 2 blocks + param_count doubles.
template <class Rule>
void update(const Launch&, const FlatTables&, const FlatRange&, const StepState*, const Rule&, double* norms);
void update_statistics(const Launch&, const FlatTables&, float* params, const float* gradients, const StepState*);

void move_average(const Launch&, float* average, const float* params, std::int64_t n, double decay, const StepState*);
void sum_squares(const Launch&, const float* x, std::int64_t n, double* partial);
void finish_gradients(const Launch&, const GradientArgs&);
void finish_step(const Launch&, const FinishArgs&);
/// out[i] = parts[0][i] + (parts[1][i] + ...), innermost first, for begin <= i < end.
void add_parts(const Launch&, const float* const* parts, std::size_t count, float* out, std::int64_t begin,
               std::int64_t end);

}  // namespace dtrain::cuda
