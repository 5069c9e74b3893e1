// The vendor libraries that this build was linked with, for `dtrain doctor`: each floor names its own.
// Free functions that own nothing; for any thread.
#pragma once

#include <string>
#include <vector>

namespace dtrain {

struct Library {
  std::string name;     // "oneDNN"
  std::string version;  // of what is loaded; empty where the build has none
  std::string remark;   // what it will use here, or why it is missing
};

/// oneDNN with the instructions that it uses here; CUDA and cuDNN, or that the build has none.
std::vector<Library> runtime_libraries();

/// CUDA and cuDNN. Two definitions: runtime/cuda and the stub cuda_off.cpp.
std::vector<Library> cuda_libraries();
/// "NVIDIA H200, 139.8 GiB" of each GPU; never throws for want of one.
std::vector<std::string> cuda_devices();

}  // namespace dtrain
