# cuDNN: CUDNN_VERSION, target CUDNN::cudnn. Finds system packages, the toolkit's folders and NVIDIA's Python wheels
# (site-packages/nvidia/cudnn/lib/libcudnn.so.9, without the plain .so). Hints: CUDNN_PATH, CUDNN_ROOT.
include(DtrainNvidia)
dtrain_nvidia_hints(hints CUDNN_PATH cudnn)
find_path(CUDNN_INCLUDE_DIR NAMES cudnn.h HINTS ${hints} PATH_SUFFIXES include)
find_library(CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 NAMES_PER_DIR HINTS ${hints} PATH_SUFFIXES lib64 lib)
mark_as_advanced(CUDNN_INCLUDE_DIR CUDNN_LIBRARY)
dtrain_nvidia_version(CUDNN_VERSION "${CUDNN_INCLUDE_DIR}" "cudnn_version.h;cudnn_version_v9.h;cudnn.h" CUDNN
  "MAJOR;MINOR;PATCHLEVEL")
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CUDNN REQUIRED_VARS CUDNN_LIBRARY CUDNN_INCLUDE_DIR VERSION_VAR CUDNN_VERSION)
if(CUDNN_FOUND AND NOT TARGET CUDNN::cudnn)
  add_library(CUDNN::cudnn UNKNOWN IMPORTED)
  set_target_properties(CUDNN::cudnn PROPERTIES IMPORTED_LOCATION ${CUDNN_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${CUDNN_INCLUDE_DIR})
endif()
