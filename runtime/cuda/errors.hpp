// What an error of the CUDA runtime is to the user.
// Free functions that own nothing; a status is a cudaError_t as a number.
#pragma once

#include <string>

namespace dtrain::cuda {

/// Least compute capability, times ten.
inline constexpr int least_architecture = 80;

/// "a CUDA copy: an illegal memory access was encountered", with what to do where that is known.
std::string error_text(int status, const char* what);
/// Throws DeviceError where `status` is not success.
void check(int status, const char* what);
/// Why this GPU cannot be used, or nothing. `architecture`: compute capability times ten.
std::string unsupported(int ordinal, const std::string& model, int architecture);
/// Why there is no GPU, from the status of cudaGetDeviceCount and the versions that driver and runtime name (0: none).
std::string no_device_text(int status, int driver, int runtime);

}  // namespace dtrain::cuda
