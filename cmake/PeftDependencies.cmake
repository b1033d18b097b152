# Finds all dependencies of the project.
find_package(Torch 2.11 REQUIRED)
find_package(Boost 1.74 REQUIRED COMPONENTS program_options)
find_package(tomlplusplus REQUIRED)
# Only its headers are used: the library in distributions reads numbers from a stream, which reports a failed allocation as an
# invalid number. framework/src/options/toml.cpp configures another way.
add_library(peft_toml INTERFACE)
target_include_directories(peft_toml SYSTEM INTERFACE
                           $<TARGET_PROPERTY:tomlplusplus::tomlplusplus,INTERFACE_INCLUDE_DIRECTORIES>)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)  # at::parallel_for is silently serial without it
find_package(PkgConfig REQUIRED)
pkg_check_modules(ONIGURUMA REQUIRED IMPORTED_TARGET oniguruma)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)

# CMake ends the run path of each file that it would change at installation with an empty entry, which the loader takes for
# the current folder. So a file is linked with its final run path; that of what is not installed is this one.
cmake_path(GET TORCH_LIBRARY PARENT_PATH torch_folder)
set(peft_dependency_folders ${torch_folder} ${ONIGURUMA_LIBRARY_DIRS} ${UTF8PROC_LIBRARY_DIRS} ${XXHASH_LIBRARY_DIRS})
list(REMOVE_DUPLICATES peft_dependency_folders)
set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)
set(CMAKE_INSTALL_RPATH ${CMAKE_BINARY_DIR}/lib ${peft_dependency_folders})
