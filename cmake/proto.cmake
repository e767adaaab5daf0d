# sluice_proto(target FILES sluice/v1/commands.proto … [LINK other targets] [ROOT folder])
# A static library of the messages in proto/ (or another root), included as "sluice/v1/commands.pb.h".
set(SLUICE_PROTO_DIR ${PROJECT_SOURCE_DIR}/proto)
set(SLUICE_PROTO_OUT ${PROJECT_BINARY_DIR}/proto)
function(sluice_proto target)
  cmake_parse_arguments(PROTO "" "ROOT" "FILES;LINK" ${ARGN})
  if(NOT PROTO_ROOT)
    set(PROTO_ROOT ${SLUICE_PROTO_DIR})
  endif()
  set(generated)
  foreach(file IN LISTS PROTO_FILES)
    string(REGEX REPLACE "\\.proto$" "" stem ${file})
    add_custom_command(
      OUTPUT ${SLUICE_PROTO_OUT}/${stem}.pb.cc ${SLUICE_PROTO_OUT}/${stem}.pb.h
      COMMAND ${CMAKE_COMMAND} -E make_directory ${SLUICE_PROTO_OUT}
      COMMAND protobuf::protoc --cpp_out=${SLUICE_PROTO_OUT} -I ${PROTO_ROOT} ${file}
      DEPENDS ${PROTO_ROOT}/${file} VERBATIM COMMENT "proto ${file}")
    list(APPEND generated ${SLUICE_PROTO_OUT}/${stem}.pb.cc ${SLUICE_PROTO_OUT}/${stem}.pb.h)
  endforeach()
  add_library(${target} STATIC ${generated})
  add_library(sluice::${target} ALIAS ${target})
  target_include_directories(${target} SYSTEM PUBLIC $<BUILD_INTERFACE:${SLUICE_PROTO_OUT}>)
  target_compile_options(${target} PRIVATE -w)  # generated code is not ours to mend
  target_link_libraries(${target} PUBLIC protobuf::libprotobuf ${PROTO_LINK})
  string(REGEX REPLACE "^sluice_" "" short ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${short})
  if(PROTO_ROOT STREQUAL SLUICE_PROTO_DIR)
    set_property(GLOBAL APPEND PROPERTY SLUICE_ROOMS ${target})
  endif()
endfunction()
