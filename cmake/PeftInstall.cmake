# Installs libpeft, its headers, the plugins, peft-run, and the files with which find_package(peft) can build plugins.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/peft)

# libtorch is not installed: the run paths contain its folder. They are set explicitly, because
# CMAKE_INSTALL_RPATH_USE_LINK_PATH leaves out folders in the source tree, where the private venv is.
cmake_path(GET TORCH_LIBRARY PARENT_PATH torch_folder)
set_target_properties(peft PROPERTIES INSTALL_RPATH "$ORIGIN;${torch_folder}")
set_target_properties(peft_cli PROPERTIES INSTALL_RPATH "$ORIGIN;${torch_folder}")
set_target_properties(peft-run PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")

install(TARGETS peft EXPORT peft LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS peft_cli LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS peft-run RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY framework/include/peft DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES LICENSE NOTICE docs/licenses.md DESTINATION ${CMAKE_INSTALL_DOCDIR})

get_property(folders DIRECTORY plugins PROPERTY SUBDIRECTORIES)
foreach(folder IN LISTS folders)
  get_property(targets DIRECTORY ${folder} PROPERTY BUILDSYSTEM_TARGETS)
  foreach(target IN LISTS targets)
    set_target_properties(${target} PROPERTIES INSTALL_RPATH "$ORIGIN/../..;${torch_folder}")
    install(TARGETS ${target} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/peft/plugins)
  endforeach()
endforeach()

install(EXPORT peft FILE peftTargets.cmake NAMESPACE peft:: DESTINATION ${package_dir})
configure_package_config_file(cmake/PeftConfig.cmake.in ${PROJECT_BINARY_DIR}/peftConfig.cmake
                              INSTALL_DESTINATION ${package_dir} PATH_VARS CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/peftConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/peftConfig.cmake ${PROJECT_BINARY_DIR}/peftConfigVersion.cmake
              cmake/PeftPlugin.cmake DESTINATION ${package_dir})
