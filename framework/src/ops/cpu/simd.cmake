# The kernels' inner loops, once for each instruction set; isa.cpp chooses at run time. Always optimized:
# an inline function of the library that is not inlined here could replace the one for older machines.
set_source_files_properties(
  src/ops/cpu/simd.cpp PROPERTIES SKIP_PRECOMPILE_HEADERS ON
                                        COMPILE_OPTIONS "-O3;-ffp-contract=fast;-fno-math-errno;-Wno-psabi")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(avx2_flags -mavx2 -mfma)
  set(avx512_flags -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mprefer-vector-width=512)
  foreach(variant avx2 avx512)
    add_library(peft_simd_${variant} OBJECT src/ops/cpu/simd.cpp)
    target_include_directories(peft_simd_${variant} PRIVATE include src)
    target_link_libraries(peft_simd_${variant} PRIVATE peft_warnings)
    target_compile_definitions(peft_simd_${variant} PRIVATE PEFT_SIMD_VARIANT=${variant})
    target_compile_options(peft_simd_${variant} PRIVATE ${${variant}_flags})
    set_target_properties(peft_simd_${variant} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    target_sources(peft PRIVATE $<TARGET_OBJECTS:peft_simd_${variant}>)
  endforeach()
endif()
