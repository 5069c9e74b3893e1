# cudnn-frontend, headers only: CudnnFrontend_VERSION, target CudnnFrontend::cudnn_frontend. Finds system packages, what
# launch/install-packages puts into /usr/local/include, the toolkit's folders and NVIDIA's Python wheel
# (site-packages/include/cudnn_frontend.h). Hint: CUDNN_FRONTEND_PATH.
include(DtrainNvidia)
dtrain_nvidia_hints(hints CUDNN_FRONTEND_PATH cudnn_frontend)
find_path(CudnnFrontend_INCLUDE_DIR NAMES cudnn_frontend.h HINTS ${hints} PATH_SUFFIXES include)
mark_as_advanced(CudnnFrontend_INCLUDE_DIR)
dtrain_nvidia_version(CudnnFrontend_VERSION "${CudnnFrontend_INCLUDE_DIR}" cudnn_frontend_version.h CUDNN_FRONTEND
  "MAJOR_VERSION;MINOR_VERSION;PATCH_VERSION")
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CudnnFrontend REQUIRED_VARS CudnnFrontend_INCLUDE_DIR
  VERSION_VAR CudnnFrontend_VERSION)
if(CudnnFrontend_FOUND AND NOT TARGET CudnnFrontend::cudnn_frontend)
  add_library(CudnnFrontend::cudnn_frontend INTERFACE IMPORTED)
  set_target_properties(CudnnFrontend::cudnn_frontend PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES ${CudnnFrontend_INCLUDE_DIR})
endif()
