# dtrain_version_header(TARGET): generated/runtime/version_string.hpp with the project's version and what git says of the
# commit, brought up to date by every build and rewritten only when it changed. Run with -P it writes that header.
if(CMAKE_SCRIPT_MODE_FILE)
  set(text ${BASE_VERSION})
  if(GIT)
    execute_process(COMMAND ${GIT} describe --always --dirty --abbrev=12 --exclude=* WORKING_DIRECTORY ${SOURCE_DIR}
      OUTPUT_VARIABLE commit RESULT_VARIABLE failed OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(NOT failed)
      string(APPEND text "+${commit}")
    endif()
  endif()
  file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "#pragma once\n\n#define DTRAIN_VERSION_STRING \"${text}\"\n")
  return()
endif()

function(dtrain_version_header target)
  find_program(DTRAIN_GIT git)
  mark_as_advanced(DTRAIN_GIT)
  set(header ${CMAKE_BINARY_DIR}/generated/runtime/version_string.hpp)
  add_custom_target(dtrain_version_header BYPRODUCTS ${header}
    COMMAND ${CMAKE_COMMAND} -DGIT=$<$<BOOL:${DTRAIN_GIT}>:${DTRAIN_GIT}> -DSOURCE_DIR=${CMAKE_CURRENT_SOURCE_DIR}
      -DBASE_VERSION=${PROJECT_VERSION} -DOUTPUT=${header} -P ${CMAKE_CURRENT_FUNCTION_LIST_FILE}
    COMMENT "Asking git for the version" VERBATIM)
  add_dependencies(${target} dtrain_version_header)
  target_include_directories(${target} PRIVATE ${CMAKE_BINARY_DIR}/generated)
endfunction()
