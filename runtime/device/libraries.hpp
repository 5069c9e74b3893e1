// The vendor libraries that this build was linked with, for `dtrain doctor`: each floor names its own.
// Free functions that own nothing; for any thread.
#pragma once

#include <cstdint>
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

/// A GPU as CUDA names it.
struct GpuIdentity {
  std::string name;    // "NVIDIA H200"
  std::string uuid;    // "GPU-8c2f2a5e-..."; of a MIG instance its own
  std::string bus_id;  // "0000:1b:00.0"; MIG instances of one GPU share it
  std::uint64_t memory = 0;
};
/// Those that this process sees, by ordinal; none where there is none. Starts the driver.
std::vector<GpuIdentity> cuda_gpus();

}  // namespace dtrain
