# Registers the consumer test; included, as CMakeLists.txt here belongs to the outside project.
# The Python that came with libtorch knows the libraries that make a model; any other can still do the first half.
find_program(PEFT_PYTHON NAMES python3 HINTS ${TORCH_INSTALL_PREFIX}/../../../../bin)
add_test(NAME consumer
         COMMAND ${PEFT_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/run.py ${CMAKE_BINARY_DIR} ${CMAKE_CURRENT_LIST_DIR}
                 -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER} -DCMAKE_BUILD_TYPE=${CMAKE_BUILD_TYPE}
                 -DCMAKE_CXX_FLAGS=${CMAKE_CXX_FLAGS} -DCMAKE_CXX_COMPILER_LAUNCHER=${CMAKE_CXX_COMPILER_LAUNCHER})
set_tests_properties(consumer PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 600)
