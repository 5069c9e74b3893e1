#include "tests/support/devices.hpp"

#include <cstdlib>
#include <string_view>

#include "runtime/error.hpp"

namespace dtrain::test {

const std::vector<AvailableDevice>& available_devices() {
  static const std::vector<AvailableDevice> devices = [] {
    std::vector<AvailableDevice> found{{"cpu", [] { return make_cpu_device(1); }}};
    std::string why;
    if (cuda_device_count(why) > 0) {
      found.push_back({"cuda", [] { return make_cuda_device(0); }});
    } else {
      const char* required = std::getenv("DTRAIN_REQUIRE_CUDA");
      if (required != nullptr && std::string_view(required) == "1")
        throw DeviceError("DTRAIN_REQUIRE_CUDA=1, but there is no usable GPU: " + why);
    }
    return found;
  }();
  return devices;
}

}  // namespace dtrain::test
