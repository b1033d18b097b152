# Installs libpeft, its headers, the plugins, peft-run, and the files with which find_package(peft) can build plugins.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/peft)

# libtorch is used where the build found it, unless the component `torch` puts a copy into peft/torch: the run paths name
# that folder first. They are set explicitly, because CMAKE_INSTALL_RPATH_USE_LINK_PATH leaves out folders in the source
# tree, where the private venv is. The build tree has the same folders as an installation, except that the libraries are
# always in `lib`.
set(own_torch peft/torch)  # below CMAKE_INSTALL_LIBDIR
set(library_folders $ORIGIN/../${CMAKE_INSTALL_LIBDIR} $ORIGIN/../lib)
list(REMOVE_DUPLICATES library_folders)
set_target_properties(peft peft_cli PROPERTIES
  INSTALL_RPATH "$ORIGIN;$ORIGIN/${own_torch}/lib;${peft_dependency_folders}")
set_target_properties(peft-run PROPERTIES INSTALL_RPATH "${library_folders}")

install(TARGETS peft EXPORT peft LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS peft_cli LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS peft-run RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY framework/include/peft DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES LICENSE NOTICE docs/licenses.md DESTINATION ${CMAKE_INSTALL_DOCDIR})

get_property(folders DIRECTORY plugins PROPERTY SUBDIRECTORIES)
foreach(folder IN LISTS folders)
  get_property(targets DIRECTORY ${folder} PROPERTY BUILDSYSTEM_TARGETS)
  foreach(target IN LISTS targets)
    set_target_properties(${target} PROPERTIES
      INSTALL_RPATH "$ORIGIN/../..;$ORIGIN/../torch/lib;${peft_dependency_folders}")
    install(TARGETS ${target} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/peft/plugins)
    foreach(file example hints)
      if(EXISTS ${folder}/${file}.toml)
        install(FILES ${folder}/${file}.toml DESTINATION ${CMAKE_INSTALL_LIBDIR}/peft/plugins RENAME ${target}.${file}.toml)
      endif()
    endforeach()
  endforeach()
endforeach()
install(FILES plugins/names.hints.toml DESTINATION ${CMAKE_INSTALL_LIBDIR}/peft/plugins)

# What a plugin outside this tree starts with.
install(PROGRAMS tools/new-plugin DESTINATION ${CMAKE_INSTALL_BINDIR} RENAME peft-new-plugin)
install(DIRECTORY tools/templates DESTINATION ${CMAKE_INSTALL_DATADIR}/peft)
install(DIRECTORY docs/examples DESTINATION ${CMAKE_INSTALL_DATADIR}/peft)

# cmake --install BUILD --component torch: libtorch without Python, so that the folder can be moved and needs nothing of the
# build. Its CMake files and headers are for building plugins.
foreach(part include share)
  install(DIRECTORY ${TORCH_INSTALL_PREFIX}/${part} DESTINATION ${CMAKE_INSTALL_LIBDIR}/${own_torch}
          COMPONENT torch EXCLUDE_FROM_ALL)
endforeach()
install(DIRECTORY ${torch_folder}/ DESTINATION ${CMAKE_INSTALL_LIBDIR}/${own_torch}/lib COMPONENT torch EXCLUDE_FROM_ALL
        FILES_MATCHING PATTERN "*.so*" PATTERN "libshm*" EXCLUDE PATTERN "libtorch_python*" EXCLUDE PATTERN "*_test.so" EXCLUDE
        PATTERN "libaoti_custom_ops.so" EXCLUDE PATTERN "libbackend_with_compiler.so" EXCLUDE)
file(GLOB torch_licenses ${TORCH_INSTALL_PREFIX}/../torch-*.dist-info/licenses ${TORCH_INSTALL_PREFIX}/LICENSE
     ${TORCH_INSTALL_PREFIX}/NOTICE)
foreach(license IN LISTS torch_licenses)
  if(IS_DIRECTORY ${license})
    install(DIRECTORY ${license} DESTINATION ${CMAKE_INSTALL_LIBDIR}/${own_torch} COMPONENT torch EXCLUDE_FROM_ALL)
  else()
    install(FILES ${license} DESTINATION ${CMAKE_INSTALL_LIBDIR}/${own_torch} COMPONENT torch EXCLUDE_FROM_ALL)
  endif()
endforeach()

install(EXPORT peft FILE peftTargets.cmake NAMESPACE peft:: DESTINATION ${package_dir})
configure_package_config_file(cmake/PeftConfig.cmake.in ${PROJECT_BINARY_DIR}/peftConfig.cmake
                              INSTALL_DESTINATION ${package_dir} PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/peftConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/peftConfig.cmake ${PROJECT_BINARY_DIR}/peftConfigVersion.cmake
              cmake/PeftPlugin.cmake DESTINATION ${package_dir})
