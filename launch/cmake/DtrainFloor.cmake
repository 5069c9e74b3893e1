# dtrain_floor(NAME [PUBLIC lib...] [PRIVATE lib...]): the static library dtrain_NAME of all sources in the rooms of the
# folder NAME. Files are chosen where a feature has a seam; no source asks the preprocessor:
#   runtime/cuda/device/cuda_off.cpp   in place of the other sources below runtime/cuda (DTRAIN_CUDA); layer_shapes.cpp,
#                                      which needs no library, stays
#   comm/nccl/nccl_off.cpp             in place of comm/nccl/nccl.cpp (DTRAIN_CUDA)
#   runtime/cpu/*_v2.cpp or *_v3.cpp   by the major version of oneDNN
function(dtrain_floor name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "PUBLIC;PRIVATE")
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
  list(FILTER sources EXCLUDE REGEX "/launch/main\\.cpp$")
  add_library(dtrain_${name} STATIC ${sources})
  target_link_libraries(dtrain_${name} PUBLIC ${arg_PUBLIC} PRIVATE dtrain_options ${arg_PRIVATE})
  target_include_directories(dtrain_${name} PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
endfunction()

# dtrain_rooms_together(TARGET FLOOR room...): the sources of each of these rooms are one translation unit. Most of their
# compilation is reading the same headers. A room is left out where a vendor's names or the rooms' own would meet.
function(dtrain_rooms_together target floor)
  if(NOT DTRAIN_UNITY)
    return()
  endif()
  get_target_property(sources ${target} SOURCES)
  foreach(source IN LISTS sources)
    cmake_path(RELATIVE_PATH source BASE_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/${floor} OUTPUT_VARIABLE path)
    cmake_path(GET path PARENT_PATH room)
    if(source MATCHES "\\.cpp$" AND room IN_LIST ARGN)
      set_property(SOURCE ${source} PROPERTY UNITY_GROUP "${floor}_${room}")
    endif()
  endforeach()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
  # To g++ what a unit includes is a header, where a type of an unnamed namespace in a class would be a mistake.
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-subobject-linkage>)
endfunction()
