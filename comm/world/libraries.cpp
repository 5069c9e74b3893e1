#include "comm/world/libraries.hpp"

#include <algorithm>

#include <mpi.h>

#include "comm/nccl/nccl.hpp"

namespace dtrain::comm {

std::vector<Library> comm_libraries() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0, major = 0, minor = 0;
  Library mpi{"MPI", "", ""};
  if (MPI_Get_library_version(text, &length) == MPI_SUCCESS) {
    // "Open MPI v4.1.4, package: ...": what follows the comma is about who built it.
    mpi.version = std::string(text, static_cast<std::size_t>(length));
    mpi.version.resize(std::min(mpi.version.size(), mpi.version.find_first_of(",\n")));
  }
  if (MPI_Get_version(&major, &minor) == MPI_SUCCESS)
    mpi.remark = "standard " + std::to_string(major) + "." + std::to_string(minor);
  const std::string nccl = nccl_version();
  return {mpi, {"NCCL", nccl, nccl.empty() ? "not in this build" : ""}};
}

const char* name_of(Launcher launcher) noexcept {
  switch (launcher) {
    case Launcher::none:
      break;
    case Launcher::mpirun:
      return "mpirun";
    case Launcher::srun:
      return "srun";
    case Launcher::mpiexec:
      return "mpiexec";
  }
  return "none";
}

}  // namespace dtrain::comm
