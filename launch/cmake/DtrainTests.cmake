# Functions that declare tests. Every test has a timeout; sanitizer builds get four times as much.
set(DTRAIN_TEST_TIMEOUT 120)  # seconds, for one GoogleTest case
set(DTRAIN_TIMEOUT_FACTOR 1)
if(DTRAIN_SANITIZE)
  set(DTRAIN_TIMEOUT_FACTOR 4)
endif()

# What a test sees of the sanitizers, and of the repository: the working directory is the repository's root.
set(DTRAIN_TEST_ENVIRONMENT
  "ASAN_OPTIONS=detect_stack_use_after_return=1:allocator_may_return_null=1"
  "LSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/support/lsan.supp:print_suppressions=0"
  "UBSAN_OPTIONS=print_stacktrace=1"
  "TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/support/tsan.supp:second_deadlock_stack=1"
  "OMP_NUM_THREADS=2")

# GoogleTest's macros are safe behind an `if` without braces, which the compilers doubt.
add_library(dtrain_test_options INTERFACE)
target_link_libraries(dtrain_test_options INTERFACE dtrain_options)
target_compile_options(dtrain_test_options INTERFACE -Wno-dangling-else
  $<$<CONFIG:Release>:-O1>)  # tests are compiled more often than they run; what they test keeps -O3

# dtrain_cases(NAME PROGRAM LABEL...): all cases of a GoogleTest program, in two processes, each the half of them. A process a
# case would cost more than most cases, in the sanitizer builds above all. tests/house/summary.py counts each case.
function(dtrain_cases name program)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  math(EXPR seconds "${DTRAIN_TEST_TIMEOUT} * ${DTRAIN_TIMEOUT_FACTOR}")
  foreach(half 0 1)
    dtrain_script_test(NAME cases.${name}.${half} TIMEOUT 1200 LABELS ${ARGN}
      COMMAND ${Python3_EXECUTABLE} -B ${CMAKE_SOURCE_DIR}/tests/house/cases.py --timeout ${seconds} --shard ${half}/2
        $<TARGET_FILE:${program}> ${CMAKE_BINARY_DIR}/cases/cases.${name}.${half}.xml)
  endforeach()
endfunction()

function(dtrain_floor_tests floor)
  set(folder ${CMAKE_SOURCE_DIR}/tests/${floor})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${folder}/*_test.cpp)
  list(FILTER sources EXCLUDE REGEX "/cuda/")  # of tests_kernels
  if(sources)
    add_executable(tests_${floor} ${sources})
    target_link_libraries(tests_${floor} PRIVATE dtrain_${floor} dtrain_test_support dtrain_test_options GTest::gtest_main)
    dtrain_cases(${floor} tests_${floor} unit ${floor})
  endif()
  file(GLOB_RECURSE programs CONFIGURE_DEPENDS ${folder}/*_program.cpp)
  foreach(program IN LISTS programs)
    get_filename_component(name ${program} NAME_WE)
    add_executable(${name} ${program})
    target_link_libraries(${name} PRIVATE dtrain_${floor} dtrain_test_support dtrain_test_options)
  endforeach()
  if(EXISTS ${folder}/CMakeLists.txt)
    add_subdirectory(${folder} ${CMAKE_CURRENT_BINARY_DIR}/${floor})
  endif()
endfunction()

# dtrain_mpi_test(NAME n RANKS r COMMAND c... TIMEOUT s [LABELS l...] [WORKING_DIRECTORY d]): runs the command on r ranks.
# Ranks outnumber cores here, so they are not bound; and such tests run one at a time, or they would time each other out.
function(dtrain_mpi_test)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME;RANKS;TIMEOUT;WORKING_DIRECTORY" "COMMAND;LABELS")
  if(NOT arg_NAME OR NOT arg_RANKS OR NOT arg_TIMEOUT OR NOT arg_COMMAND)
    message(FATAL_ERROR "dtrain_mpi_test needs NAME, RANKS, TIMEOUT and COMMAND")
  endif()
  dtrain_script_test(NAME ${arg_NAME} TIMEOUT ${arg_TIMEOUT} LABELS mpi ${arg_LABELS} SERIAL
    WORKING_DIRECTORY "${arg_WORKING_DIRECTORY}"
    COMMAND ${MPIEXEC_EXECUTABLE} --allow-run-as-root --oversubscribe --bind-to none -np ${arg_RANKS} ${arg_COMMAND})
endfunction()

# dtrain_script_test(NAME n COMMAND c... TIMEOUT s [LABELS l...] [SERIAL] [WORKING_DIRECTORY d]): a command that exits 0,
# or 77 to say that it skipped; it prints the reason as "[  SKIPPED ] why".
function(dtrain_script_test)
  cmake_parse_arguments(PARSE_ARGV 0 arg "SERIAL" "NAME;TIMEOUT;WORKING_DIRECTORY" "COMMAND;LABELS")
  if(NOT arg_WORKING_DIRECTORY)
    set(arg_WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  endif()
  add_test(NAME ${arg_NAME} COMMAND ${arg_COMMAND} WORKING_DIRECTORY ${arg_WORKING_DIRECTORY})
  math(EXPR seconds "${arg_TIMEOUT} * ${DTRAIN_TIMEOUT_FACTOR}")
  set_tests_properties(${arg_NAME} PROPERTIES TIMEOUT ${seconds} LABELS "${arg_LABELS}" SKIP_RETURN_CODE 77
    ENVIRONMENT "${DTRAIN_TEST_ENVIRONMENT}")
  if(arg_SERIAL)
    set_tests_properties(${arg_NAME} PROPERTIES RUN_SERIAL ON)
  endif()
endfunction()
