option(SLUICE_TESTS "Build tests and the simulator" ON)
option(SLUICE_PCH "Precompile what most files of a room parse (Clang): for trees that are built whole" OFF)
option(SLUICE_FUZZ "Build the libFuzzer programs (Clang)" OFF)
set(SLUICE_SANITIZE "" CACHE STRING "Sanitizers: address,undefined or thread")

set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

find_program(SLUICE_CCACHE ccache)
if(SLUICE_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_NOHASHDIR=1
      CCACHE_SLOPPINESS=pch_defines,time_macros ${SLUICE_CCACHE})
endif()
find_program(SLUICE_MOLD mold)
if(SLUICE_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

add_compile_options(-Wall -Wextra -Wpedantic -Wshadow -Werror -fno-omit-frame-pointer)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 reports these inside its own library and for coroutine frames.
  add_compile_options(-Wno-error=maybe-uninitialized -Wno-error=stringop-overflow
                      -Wno-error=restrict -Wno-error=array-bounds -Wno-missing-field-initializers
                      # toml++ asserts in noexcept accessors too, where it is only a bug of ours that can.
                      -Wno-terminate
                      # GoogleTest's macros under an if without braces.
                      -Wno-dangling-else)
else()
  add_compile_options(-Wno-missing-field-initializers -Wno-missing-designated-field-initializers)
endif()
if(SLUICE_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
if(SLUICE_SANITIZE)
  add_compile_options(-fsanitize=${SLUICE_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${SLUICE_SANITIZE})
endif()

# Headers that most files of a room parse anyhow. They make each of its files depend on all of them, so
# the preset one works in goes without; GCC is slower with them.
function(sluice_precompile target)
  if(SLUICE_PCH AND CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    target_compile_options(${target} PRIVATE "SHELL:-Xclang -fno-pch-timestamp")
    target_precompile_headers(${target} PRIVATE <algorithm> <atomic> <functional> <map> <memory> <mutex> <optional>
                              <string> <unordered_map> <variant> <vector> ${ARGN})
  endif()
endfunction()
