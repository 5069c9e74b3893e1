// How users write an op: names of kinds, and their tables of fields; for runtime/ops/*.cpp and who reads
// configurations. Values that are made at the first use of a table; the types of fields that several ops share.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/config/fields.hpp"
#include "runtime/ops/activation.hpp"
#include "runtime/ops/extents.hpp"

namespace dtrain {

/// An op as a layer of a configuration. Ops that only a builder makes have none; an op with several names has several.
template <class Op>
struct OpKind {
  /// The table's defaults are an op of this kind. `kind_is` tells one from the op's other kinds; empty: it has no
  /// other.
  OpKind(std::string kind, Table<Op> fields, std::function<bool(const Op&)> kind_is = nullptr)
      : name(std::move(kind)), table(std::move(fields)), is(std::move(kind_is)) {}

  std::string name;
  Table<Op> table;
  std::function<bool(const Op&)> is;
};

/// A kind for each number of dimensions, whose table describe(dimensions, defaults) makes; an op has as many as
/// `extents`.
template <class Op, class Describe>
std::vector<OpKind<Op>> kinds_of_dimensions(Extents Op::*extents, const Describe& describe) {
  std::vector<OpKind<Op>> kinds;
  for (std::size_t n = 1; n <= Extents::most; ++n) {
    const Op defaults = Op::in_dimensions(n);
    kinds.push_back(
        {std::string(defaults.name()), describe(n, defaults), [=](const Op& op) { return (op.*extents).size() == n; }});
  }
  return kinds;
}

/// An integer that is a size: of at most 2^31.
TypePtr<std::int64_t> at_least(std::int64_t least);
TypePtr<Activation> activation_type();
/// At least 0 and below 1.
TypePtr<double> fraction();
/// One number for all dimensions, or as many as the defaults have.
TypePtr<Extents> extents_of(std::int64_t least, std::size_t dimensions);

}  // namespace dtrain
