// Matrices: which parameters Muon makes orthogonal, and the scratch memory for that.
// Functions that own nothing: one writes into a Graph before it is planned, the others are pure.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace dtrain {

class Graph;
struct FlatLayout;
struct UpdateRule;

/// Where the rule is Muon: names the hidden matrices. These are weights of dense layers and convolutions (a filter is a
/// row), not in groups, that another layer with weights follows; what shares its weight with an embedding is none. A
/// projection that attention takes apart is three matrices, and one of a gated layer two. After apply_groups(), whose
/// groups may say otherwise. Throws ConfigError where a model has none.
void mark_matrices(Graph&, const UpdateRule&);

/// Places in the scratch memory of one matrix, in bytes; room for float32.
struct MatrixPlaces {
  std::array<std::size_t, 2> x{};    // [rows, columns]: the direction, and what Newton-Schulz steps make of it
  std::size_t gram = 0, square = 0;  // [side, side], of the shorter side
  std::size_t bytes = 0;
  MatrixPlaces(std::int64_t rows, std::int64_t columns) noexcept;
};
/// Bytes for any matrix of the layout; 0 where it has none.
std::size_t matrix_scratch(const FlatLayout&) noexcept;

}  // namespace dtrain
