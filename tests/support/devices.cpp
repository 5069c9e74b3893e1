#include "tests/support/devices.hpp"

#include <cstdlib>
#include <string_view>

#include "runtime/tensor/error.hpp"

namespace dtrain::test {

namespace {

bool asked(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && std::string_view(value) == "1";
}

}  // namespace

const std::vector<AvailableDevice>& available_devices() {
  static const std::vector<AvailableDevice> devices = [] {
    std::vector<AvailableDevice> found{{"cpu", [] { return make_cpu_device(1); }}};
    std::string why;
    if (asked("DTRAIN_NAME_CUDA") || cuda_device_count(why) > 0) {
      found.push_back({"cuda", [] { return make_cuda_device(0); }, [] { return make_cuda_device(0, {.tf32 = true}); }});
    } else if (asked("DTRAIN_REQUIRE_CUDA")) {
      throw DeviceError("DTRAIN_REQUIRE_CUDA=1, but there is no usable GPU: " + why);
    }
    return found;
  }();
  return devices;
}

}  // namespace dtrain::test
