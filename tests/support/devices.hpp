// The devices that a suite runs on: one source of tests for all of them.
// Plain data; each test makes its own device.
#pragma once

#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "runtime/device.hpp"

namespace dtrain::test {

struct AvailableDevice {
  std::string name;  // "cpu", "cuda"
  std::unique_ptr<Device> (*make)();
  friend std::ostream& operator<<(std::ostream& out, const AvailableDevice& d) { return out << d.name; }
};
/// The CPU, and the first GPU where one can be used; with DTRAIN_REQUIRE_CUDA=1 a missing one is an error. Another
/// program may define it otherwise: see tests/runtime/cuda.
const std::vector<AvailableDevice>& available_devices();
/// For suites that touch a device's memory from the host.
inline std::unique_ptr<Device> first_device() {
  return available_devices().front().make();
}

}  // namespace dtrain::test
