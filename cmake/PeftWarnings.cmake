add_library(peft_warnings INTERFACE)
target_compile_options(peft_warnings INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor
                                               $<$<BOOL:${PEFT_WERROR}>:-Werror>)
