add_library(peft_warnings INTERFACE)
target_compile_options(peft_warnings INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor
                                               $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>  # false alarms of GCC 12 (105651)
                                               $<$<BOOL:${PEFT_WERROR}>:-Werror>)
