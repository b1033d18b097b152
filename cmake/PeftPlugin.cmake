# The kinds of plugins, from the list in peft/plugin/kinds.h: next to this file's folder in the source tree, and in the
# installed package where peftConfig.cmake says.
if(NOT DEFINED peft_kinds_header)
  set(peft_kinds_header ${CMAKE_CURRENT_LIST_DIR}/../framework/include/peft/plugin/kinds.h)
endif()
file(READ ${peft_kinds_header} peft_kinds)
string(REGEX MATCHALL "  X\\([A-Za-z]+, \"[a-z]+\"" peft_kinds "${peft_kinds}")
list(TRANSFORM peft_kinds REPLACE ".*\"([a-z]+)\"" "\\1")
set_property(GLOBAL PROPERTY peft_plugin_kinds ${peft_kinds})

# peft_add_plugin(<kind> <name> <source>...)
# Builds peft_<kind>_<name>.so, in the tree and outside it (find_package(peft)). Next to it come copies of the folder's
# example.toml, which `peft-run describe --example` prints, and hints.toml, with the names that other tools have for it.
function(peft_add_plugin kind name)
  get_property(kinds GLOBAL PROPERTY peft_plugin_kinds)
  if(NOT kind IN_LIST kinds OR NOT name MATCHES "^[a-z0-9_]+$")
    list(JOIN kinds ", " kinds)
    message(FATAL_ERROR "peft_add_plugin(${kind} ${name}): the kind is one of ${kinds}; the name has only a-z, 0-9, _")
  endif()
  set(target peft_${kind}_${name})
  add_library(${target} MODULE ${ARGN})
  target_link_libraries(${target} PRIVATE peft::peft)
  set_target_properties(${target} PROPERTIES PREFIX "" CXX_VISIBILITY_PRESET hidden
                                             VISIBILITY_INLINES_HIDDEN ON DEFINE_SYMBOL "")
  if(NOT TARGET peft_pch)
    # No run path: the program that loads a plugin has loaded its libraries. CMake's own would end with an empty entry, the
    # current folder.
    set_target_properties(${target} PROPERTIES BUILD_WITH_INSTALL_RPATH ON)
    # As in the tree, where PeftHardening.cmake sets them.
    target_compile_options(${target} PRIVATE -fstack-protector-strong)
    target_link_options(${target} PRIVATE -Wl,-z,relro,-z,now -Wl,-z,noexecstack)
  endif()
  # Code that torch or an exception still points to must not be unmapped.
  target_link_options(${target} PRIVATE -Wl,-z,nodelete)
  if(TARGET peft_pch)
    target_link_libraries(${target} PRIVATE peft_warnings)
    target_precompile_headers(${target} REUSE_FROM peft_pch)
    set_target_properties(${target} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib/peft/plugins)
  endif()
  get_target_property(built ${target} LIBRARY_OUTPUT_DIRECTORY)
  if(NOT built)
    set(built ${CMAKE_CURRENT_BINARY_DIR})
  endif()
  foreach(file example hints)
    if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${file}.toml)
      configure_file(${file}.toml ${built}/${target}.${file}.toml COPYONLY)
    endif()
  endforeach()
endfunction()
