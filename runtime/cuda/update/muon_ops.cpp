#include "runtime/cuda/update/muon_ops.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "runtime/cuda/op_support.hpp"
#include "runtime/optim/matrices.hpp"
#include "runtime/plan/flat.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::cuda {

namespace {

DType type_of(const Muon& rule) {
  return rule.products == Muon::Products::bfloat16 ? DType::bf16 : DType::f32;
}

}  // namespace

std::shared_ptr<ProductPlan> MuonProducts::plan(Product p) {
  if (!context_.blas) context_.blas = make_blas_lt();
  p.tf32 = context_.options.tf32;  // never nondeterministic: see prepare()
  for (const std::string& algorithm : context_.blas->algorithms(p))
    if (std::shared_ptr<ProductPlan> made = context_.blas->plan(p, algorithm)) return made;
  throw DeviceError(fmt::format("cuBLASLt has no algorithm for muon's product of [{}, {}] with [{}, {}] in {}", p.rows,
                                p.inner, p.inner, p.columns, name_of(p.factors)));
}

MuonProducts::Plans MuonProducts::plans(const Muon& rule, std::int64_t rows, std::int64_t columns) {
  const bool wide = rows <= columns;
  const std::int64_t side = std::min(rows, columns);
  Product p;
  p.factors = p.result = type_of(rule);
  p.rows = p.columns = p.inner = side;
  Product gram = p, apply = p;
  gram.inner = std::max(rows, columns);
  (wide ? gram.right_transposed : gram.left_transposed) = true;
  apply.rows = rows;
  apply.columns = columns;
  return {plan(gram), plan(p), plan(apply)};
}

void MuonProducts::prepare(const Muon& rule, const FlatLayout& layout, Stream& stream) {
  std::size_t bytes = 0;
  for (const FlatParam& param : layout.trained()) {
    for (const std::int64_t rows : param.matrices) {
      const std::int64_t columns = param.shape.elements() / param.shape[0];
      const auto [made, added] = plans_.try_emplace({type_of(rule), rows, columns});
      if (!added) continue;
      made->second = plans(rule, rows, columns);
      for (const auto& p : {made->second.gram, made->second.square, made->second.apply})
        bytes = std::max(bytes, p->workspace());
    }
  }
  if (bytes == 0 || (!workspaces_.empty() && workspaces_.back().bytes() >= workspace_need(bytes))) return;
  stream.synchronize();
  workspaces_.emplace_back(device_, workspace_need(bytes));
}

void MuonProducts::update(const Muon& rule, const FlatTables& tables, const FlatRange& range, const FlatMatrix& m,
                          const Memory& memory, Stream& stream) {
  const Launch where = at(stream, "update");
  const DType type = type_of(rule);
  const Element element = element_of(type);
  const Plans& plans = plans_.at({type, m.rows, m.columns});
  const MatrixPlaces places(m.rows, m.columns);
  auto* const scratch = static_cast<std::byte*>(memory.scratch);
  void *x = scratch + places.x[1], *other = scratch + places.x[0];
  void *const gram = scratch + places.gram, *const square = scratch + places.square;
  void* workspace = nullptr;
  if (!workspaces_.empty()) {
    const auto begin = reinterpret_cast<std::uintptr_t>(workspaces_.back().data());
    workspace = workspaces_.back().at((workspace_alignment - begin % workspace_alignment) % workspace_alignment);
  }

  auto* const direction = static_cast<float*>(other);
  muon_direction(where, rule, range, m, memory.step, direction, memory.norms);
  muon_norm(where, rule, m.size(), memory.norms);
  muon_normalize(where, element, m.size(), direction, memory.norms, x);
  const bool wide = m.rows <= m.columns;
  for (int i = 0; i < newton_schulz::steps; ++i) {
    plans.gram->run({x, x, gram}, workspace, stream.native());
    plans.square->run({gram, gram, square}, workspace, stream.native());
    newton_schulz_factor(where, element, std::min(m.rows, m.columns), gram, square);
    plans.apply->run({wide ? square : x, wide ? x : square, other}, workspace, stream.native());
    std::swap(x, other);
  }
  muon_step(where, element, rule, tables, range, m, memory.step, x);
}

}  // namespace dtrain::cuda
