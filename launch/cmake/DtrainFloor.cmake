# dtrain_floor(NAME [PUBLIC lib...] [PRIVATE lib...] [PRECOMPILED OWN]): the static library dtrain_NAME of all sources in the rooms of the
# folder NAME. Files are chosen where a feature has a seam; no source asks the preprocessor:
#   runtime/cuda/device/cuda_off.cpp   in place of the other sources below runtime/cuda (DTRAIN_CUDA); layer_shapes.cpp,
#                                      which needs no library, stays
#   comm/nccl/nccl_off.cpp             in place of comm/nccl/nccl.cpp (DTRAIN_CUDA)
#   runtime/cpu/*_v2.cpp or *_v3.cpp   by the major version of oneDNN
function(dtrain_floor name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "PRECOMPILED" "PUBLIC;PRIVATE")
  set(folder ${CMAKE_CURRENT_SOURCE_DIR}/${name})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${folder}/*.cpp ${folder}/*.cu)
  if(DTRAIN_WITH_CUDA)
    set(other "/(cuda_off|nccl_off)\\.cpp$")
  else()
    set(other "/nccl\\.cpp$|\\.cu$")
    set(kept ${sources})
    list(FILTER kept INCLUDE REGEX "/(cuda_off|layer_shapes)\\.cpp$")
    list(FILTER sources EXCLUDE REGEX "/runtime/cuda/")
    list(APPEND sources ${kept})
  endif()
  list(FILTER sources EXCLUDE REGEX "${other}")
  if(DNNL_VERSION_MAJOR EQUAL 2)
    list(FILTER sources EXCLUDE REGEX "/onednn_v3\\.cpp$")
  else()
    list(FILTER sources EXCLUDE REGEX "/onednn_v2\\.cpp$")
  endif()
  list(FILTER sources EXCLUDE REGEX "/launch/(main|cmake/precompiled)\\.cpp$")
  add_library(dtrain_${name} STATIC ${sources})
  target_link_libraries(dtrain_${name} PUBLIC ${arg_PUBLIC} PRIVATE dtrain_options ${arg_PRIVATE})
  target_include_directories(dtrain_${name} PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
  dtrain_precompile(dtrain_${name} ${arg_PRECOMPILED})
endfunction()

# dtrain_precompile(TARGET [OWN]): the headers of launch/cmake/precompiled.hpp. A precompiled header serves the targets that
# are compiled with the same options; OWN: this target has others. -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON leaves them out.
function(dtrain_precompile target)
  if(ARGC GREATER 1)
    target_precompile_headers(${target} PRIVATE ${CMAKE_SOURCE_DIR}/launch/cmake/precompiled.hpp)
  else()
    target_precompile_headers(${target} REUSE_FROM dtrain_precompiled)
  endif()
endfunction()
