# Options, flags that every target of dtrain gets (target dtrain_options), and the flags of the CPU kernels.
set(DTRAIN_CUDA AUTO CACHE STRING "CUDA, cuDNN and NCCL: AUTO (where found), ON (required) or OFF")
set_property(CACHE DTRAIN_CUDA PROPERTY STRINGS AUTO ON OFF)
option(DTRAIN_NATIVE "Tune the CPU kernels for the machine that builds" ON)
option(DTRAIN_TESTS "Build the tests" ON)
option(DTRAIN_UNITY "Compile the sources of most rooms together" ON)
set(DTRAIN_SANITIZE "" CACHE STRING "Sanitizers: empty, address,undefined or thread")

# A newer compiler brings new warnings; they must not keep a newcomer from building. Instrumented code makes g++ 12 warn of
# overflows in its own library: warnings are the other builds' business.
if(DTRAIN_SANITIZE)
  set(werror_default OFF)
elseif((CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
   OR (CMAKE_CXX_COMPILER_ID STREQUAL Clang AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 15))
  set(werror_default ON)
else()
  set(werror_default OFF)
endif()
option(DTRAIN_WERROR "Warnings are errors" ${werror_default})

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")
set(CMAKE_CXX_FLAGS_DEBUG "-O0 -g")

add_library(dtrain_options INTERFACE)
# Contraction into fused multiply-add is off, so that results do not depend on which instructions a build may use.
target_compile_options(dtrain_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-fno-omit-frame-pointer;-ffp-contract=off>
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wnon-virtual-dtor;-Wconversion;-Wno-sign-conversion>)
# g++ 12 sees overlapping copies in std::string's own code once it inlines it.
target_compile_options(dtrain_options INTERFACE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-restrict>)
target_compile_options(dtrain_options INTERFACE
  "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-fno-omit-frame-pointer,-ffp-contract=off>")
if(DTRAIN_WERROR)
  target_compile_options(dtrain_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>
    $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>)
endif()
target_include_directories(dtrain_options INTERFACE ${CMAKE_CURRENT_SOURCE_DIR})

if(DTRAIN_SANITIZE)
  # For everything, tests included; -g1 is what reports show.
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-g1>
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${DTRAIN_SANITIZE}> $<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize-recover=all>)
  add_link_options(-fsanitize=${DTRAIN_SANITIZE})
endif()

# dtrain_cpu_kernels(TARGET FOLDER library...): makes the target's sources below the folder an object library, which sees these
# libraries. It is compiled for the machine at hand, or for x86-64-v2. Neither option allows reassociation, so an own kernel
# gives the same bits with both as long as it fixes the order of its sums itself.
function(dtrain_cpu_kernels target folder)
  get_target_property(sources ${target} SOURCES)
  set(others ${sources})
  list(FILTER sources INCLUDE REGEX "^${CMAKE_CURRENT_SOURCE_DIR}/${folder}/.*\\.cpp$")
  list(REMOVE_ITEM others ${sources})
  set_target_properties(${target} PROPERTIES SOURCES "${others}")
  add_library(${target}_kernels OBJECT ${sources})
  target_link_libraries(${target}_kernels PRIVATE dtrain_options ${ARGN})
  target_compile_options(${target}_kernels PRIVATE -fno-math-errno -fno-trapping-math)
  if(DTRAIN_NATIVE)
    target_compile_options(${target}_kernels PRIVATE -march=native -mprefer-vector-width=512)
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    target_compile_options(${target}_kernels PRIVATE -march=x86-64-v2)
  endif()
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:${target}_kernels>)
endfunction()
