# NCCL: NCCL_VERSION, target NCCL::nccl. Finds system packages, the toolkit's folders and NVIDIA's Python wheels
# (site-packages/nvidia/nccl/lib/libnccl.so.2, without the plain .so). Hint: NCCL_ROOT.
include(DtrainNvidia)
dtrain_nvidia_hints(hints NCCL_ROOT nccl)
find_path(NCCL_INCLUDE_DIR NAMES nccl.h HINTS ${hints} PATH_SUFFIXES include)
find_library(NCCL_LIBRARY NAMES nccl libnccl.so.2 NAMES_PER_DIR HINTS ${hints} PATH_SUFFIXES lib64 lib)
mark_as_advanced(NCCL_INCLUDE_DIR NCCL_LIBRARY)
dtrain_nvidia_version(NCCL_VERSION "${NCCL_INCLUDE_DIR}" nccl.h NCCL "MAJOR;MINOR;PATCH")
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(NCCL REQUIRED_VARS NCCL_LIBRARY NCCL_INCLUDE_DIR VERSION_VAR NCCL_VERSION)
if(NCCL_FOUND AND NOT TARGET NCCL::nccl)
  add_library(NCCL::nccl UNKNOWN IMPORTED)
  set_target_properties(NCCL::nccl PROPERTIES IMPORTED_LOCATION ${NCCL_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${NCCL_INCLUDE_DIR})
endif()
