// The devices that a suite runs on: one source of tests for all of them.
// Plain data; each test makes its own device.
#pragma once

#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "runtime/device/device.hpp"

namespace dtrain::test {

struct AvailableDevice {
  std::string name;  // "cpu", "cuda"
  std::unique_ptr<Device> (*make)();
  std::unique_ptr<Device> (*make_tf32)() = nullptr;  // with cuda.tf32; null where there is no such thing
  friend std::ostream& operator<<(std::ostream& out, const AvailableDevice& d) { return out << d.name; }
};
/// The CPU, and the first GPU where one can be used; with DTRAIN_REQUIRE_CUDA=1 a missing one is an error. With
/// DTRAIN_NAME_CUDA=1 there is a GPU in any case, of which tests have their names and no more. Another program may
/// define it otherwise: see tests/runtime/cuda.
const std::vector<AvailableDevice>& available_devices();

}  // namespace dtrain::test
