"""Asks a proxy what it holds (CSDS), by grpcio and the messages of `xds-protos`, and prints it as JSON."""

import sys

import grpc
from envoy.config.cluster.v3 import cluster_pb2  # noqa: F401
from envoy.config.endpoint.v3 import endpoint_pb2  # noqa: F401
from envoy.config.listener.v3 import listener_pb2  # noqa: F401
from envoy.config.route.v3 import route_pb2  # noqa: F401
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401
from envoy.service.status.v3 import csds_pb2, csds_pb2_grpc
from envoy.type.matcher.v3 import node_pb2
from google.protobuf import json_format


def main():
    address, how = sys.argv[1:3]
    stub = csds_pb2_grpc.ClientStatusDiscoveryServiceStub(grpc.insecure_channel(address))
    request = csds_pb2.ClientStatusRequest(exclude_resource_contents=how == "bare")
    if how == "matching":
        request.node_matchers.append(node_pb2.NodeMatcher())
    try:
        if how == "stream":
            # Two questions on one stream.
            response = list(stub.StreamClientStatus(iter([request, request]), timeout=30))[1]
        else:
            response = stub.FetchClientStatus(request, timeout=30)
    except grpc.RpcError as error:
        print(f'{{ "refused": "{error.code().name}" }}')
        return
    print(json_format.MessageToJson(response, preserving_proto_field_name=True))


main()
