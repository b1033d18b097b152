# Compares what one call of peft-run prints with the golden text in `expected`; with the environment variable
# PEFT_WRITE_GOLDEN=1 writes that text instead. The build folder and peft's own version text are shown as <build>,
# <abi>.
file(STRINGS ${FOLDER}/command words)
string(REPLACE "<build>" "${BUILD}" words "${words}")
execute_process(COMMAND ${CMAKE_COMMAND} -E env --unset=PEFT_PLUGIN_PATH COLUMNS=80 ${PEFT_RUN} ${words}
                WORKING_DIRECTORY ${FOLDER} RESULT_VARIABLE code OUTPUT_VARIABLE out ERROR_VARIABLE err)
string(REPLACE "${BUILD}" "<build>" text "exit ${code}\n--- stdout\n${out}--- stderr\n${err}")
# The tree's own plugins come and go, and with them the width of columns.
string(REGEX REPLACE "[^\n]*<build>/lib/peft/plugins/[^\n]*\n" "" text "${text}")
string(REGEX REPLACE "found: [^;]*;" "found: <names>;" text "${text}")
string(REGEX REPLACE "([^\n ])   *" "\\1  " text "${text}")
string(REGEX REPLACE "peft ABI [0-9]+, libtorch [^)\n]*" "<abi>" text "${text}")
if("$ENV{PEFT_WRITE_GOLDEN}")
  file(WRITE ${FOLDER}/expected "${text}")
  return()
endif()
file(READ ${FOLDER}/expected expected)
if(NOT text STREQUAL expected)
  message(FATAL_ERROR "expected:\n${expected}\nbut got:\n${text}")
endif()
