// Start-up agreement: all ranks compare what must be equal before the first step.
// Free functions over a Group; collective calls on its thread.
#pragma once

#include <span>
#include <string>

#include "runtime/ranks/group.hpp"

namespace dtrain::comm {

/// One thing that must be the same on every rank: {"dtrain version", "0.1.0"}, {"configuration hash", "9f.."}.
struct Fact {
  std::string name;
  std::string value;
};

/// Throws the same CommError on all ranks where the facts differ, naming the first such fact, the ranks and hosts:
/// "ranks disagree on dtrain version: rank 0 (host a) has 0.1.0, rank 3 (host b) has 0.2.0; ...".
void agree_on(Group&, const std::string& host, std::span<const Fact>);

}  // namespace dtrain::comm
