"""Writes the descriptors of Envoy's API that the proxy reads resources by, from the package `xds-protos`.

Only what decoding needs is kept: no comments, no options, no services. `tests/protos_are_current.rs` runs
this and compares; the version of the package is the version of the API.
"""

import importlib
import sys

from google.protobuf import descriptor_pb2, descriptor_pool

ROOTS = """
envoy/config/cluster/v3/cluster.proto
envoy/config/endpoint/v3/endpoint.proto
envoy/config/listener/v3/listener.proto
envoy/config/route/v3/route.proto
envoy/extensions/filters/http/fault/v3/fault.proto
envoy/extensions/filters/http/router/v3/router.proto
envoy/extensions/filters/listener/http_inspector/v3/http_inspector.proto
envoy/extensions/filters/listener/proxy_protocol/v3/proxy_protocol.proto
envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto
envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto
envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto
envoy/extensions/transport_sockets/raw_buffer/v3/raw_buffer.proto
envoy/extensions/transport_sockets/tls/v3/tls.proto
envoy/extensions/upstreams/http/v3/http_protocol_options.proto
envoy/service/discovery/v3/discovery.proto
udpa/type/v1/typed_struct.proto
xds/type/v3/typed_struct.proto
""".split()


def collect(descriptor, found):
    """The file and all that it imports, what is imported first."""
    if descriptor.name in found:
        return
    for dependency in descriptor.dependencies:
        collect(dependency, found)
    file = descriptor_pb2.FileDescriptorProto()
    descriptor.CopyToProto(file)
    found[descriptor.name] = file


def strip_enum(enum):
    for field in ("options", "reserved_range", "reserved_name"):
        enum.ClearField(field)
    for value in enum.value:
        value.ClearField("options")


def strip_message(message):
    is_map_entry = message.options.map_entry
    for field in ("options", "reserved_range", "reserved_name", "extension"):
        message.ClearField(field)
    if is_map_entry:
        message.options.map_entry = True
    for field in message.field:
        # The name in JSON follows from the name.
        field.ClearField("options")
        field.ClearField("json_name")
    for oneof in message.oneof_decl:
        oneof.ClearField("options")
    for nested in message.nested_type:
        strip_message(nested)
    for enum in message.enum_type:
        strip_enum(enum)


def main():
    pool = descriptor_pool.Default()
    found = {}
    for root in ROOTS:
        importlib.import_module(root.removesuffix(".proto").replace("/", ".") + "_pb2")
        collect(pool.FindFileByName(root), found)
    descriptors = descriptor_pb2.FileDescriptorSet()
    for file in found.values():
        for field in ("options", "service", "extension", "source_code_info"):
            file.ClearField(field)
        for message in file.message_type:
            strip_message(message)
        for enum in file.enum_type:
            strip_enum(enum)
        descriptors.file.append(file)
    with open(sys.argv[1], "wb") as out:
        out.write(descriptors.SerializeToString(deterministic=True))


main()
