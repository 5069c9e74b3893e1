// MPI for the sources of comm/ alone: checked calls, an owned duplicated communicator, and the three things World makes
// of one.
// Includes mpi.h, so no other folder may include it. An MpiComm is used by one thread at a time.
#pragma once

#include <memory>
#include <string>

#include <mpi.h>

#include "comm/collective/communicator.hpp"
#include "runtime/ranks/group.hpp"

namespace dtrain::comm {

/// Throws CommError("<what>: <MPI's text>") unless `result` is MPI_SUCCESS.
void check_mpi(int result, const char* what);

/// A parameter of Open MPI's, as it counts for this process, whatever set it; empty where MPI has none of this name.
std::string mpi_setting(const char* name);

/// Owns a duplicate; errors are returned, not fatal.
class MpiComm {
 public:
  explicit MpiComm(MPI_Comm parent);
  ~MpiComm();
  MpiComm(const MpiComm&) = delete;
  MpiComm& operator=(const MpiComm&) = delete;
  MPI_Comm get() const noexcept { return comm_; }
  int rank() const noexcept { return rank_; }
  int size() const noexcept { return size_; }

 private:
  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
};

std::unique_ptr<Group> make_mpi_group(MPI_Comm parent);
std::unique_ptr<Communicator> make_mpi_communicator(MPI_Comm parent);

}  // namespace dtrain::comm
