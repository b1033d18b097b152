# Registers the consumer test; included, because no target is built for it. It takes longest, so ctest starts it first (COST).
add_test(NAME consumer
         COMMAND ${PEFT_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/run.py ${CMAKE_BINARY_DIR}
                 -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER} -DCMAKE_BUILD_TYPE=${CMAKE_BUILD_TYPE}
                 -DCMAKE_CXX_FLAGS=${CMAKE_CXX_FLAGS} -DCMAKE_CXX_COMPILER_LAUNCHER=${CMAKE_CXX_COMPILER_LAUNCHER})
set_tests_properties(consumer PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 600 LABELS slow COST 1000)
