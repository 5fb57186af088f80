"""A client of ADS, both variants, by grpcio and the messages of `xds-protos`.

Commands come by standard input, one JSON object a line, and become requests as they stand; a resource that holds the
text `refuse` is refused, all else is acknowledged. What the server sends goes to standard output, one JSON object a
line.

    xds_client.py ADDRESS delta|state_of_the_world NODE [TOKEN]
"""

import json
import queue
import sys
import threading

import grpc
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

KINDS = {
    "cluster": cluster_pb2.Cluster,
    "endpoint": endpoint_pb2.ClusterLoadAssignment,
    "listener": listener_pb2.Listener,
    "route": route_pb2.RouteConfiguration,
}
URLS = {kind: "type.googleapis.com/" + message.DESCRIPTOR.full_name for kind, message in KINDS.items()}
BY_URL = {url: kind for kind, url in URLS.items()}

lock = threading.Lock()


def say(**event):
    with lock:
        print(json.dumps(event), flush=True)


class Client:
    def __init__(self, variant, node):
        self.requests = queue.Queue()
        self.is_delta = variant == "delta"
        self.node = node
        self.names = {}
        self.version = {}

    def outgoing(self):
        while True:
            request = self.requests.get()
            if request is None:
                return
            yield request

    def request(self, kind, **fields):
        message = discovery_pb2.DeltaDiscoveryRequest if self.is_delta else discovery_pb2.DiscoveryRequest
        request = message(type_url=URLS[kind], **fields)
        if self.node:
            request.node.id, self.node = self.node, None
        return request

    def command(self, command):
        kind = command.pop("kind")
        if not self.is_delta:
            self.names[kind] = command.get("resource_names", [])
        self.requests.put(self.request(kind, **command))

    def answer(self, response):
        kind = BY_URL[response.type_url]
        packed = [one.resource if self.is_delta else one for one in response.resources]
        resources = []
        for one in packed:
            # A resource that is none of its type ends the client.
            message = KINDS[kind]()
            assert one.Unpack(message)
            resources.append(message)
        named = [one.cluster_name if kind == "endpoint" else one.name for one in resources]
        if self.is_delta:
            assert named == [one.name for one in response.resources]
        refused = "refuse" in str(resources)
        fields = {"response_nonce": response.nonce}
        if not self.is_delta:
            if not refused:
                self.version[kind] = response.version_info
            fields["version_info"] = self.version.get(kind, "")
            fields["resource_names"] = self.names[kind]
        if refused:
            fields["error_detail"] = {"code": 3, "message": "refused by the test"}
        self.requests.put(self.request(kind, **fields))
        say(
            kind=kind,
            names=named,
            versions=[one.version for one in response.resources] if self.is_delta else [response.version_info],
            removed=list(response.removed_resources) if self.is_delta else [],
            refused=refused,
        )


def main():
    address, variant, node, *token = sys.argv[1:]
    client = Client(variant, node)
    stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(grpc.insecure_channel(address))
    call = stub.DeltaAggregatedResources if client.is_delta else stub.StreamAggregatedResources
    metadata = [("authorization", "Bearer " + one) for one in token]
    responses = call(client.outgoing(), metadata=metadata)

    def read():
        for line in sys.stdin:
            client.command(json.loads(line))
        client.requests.put(None)

    threading.Thread(target=read, daemon=True).start()
    try:
        for response in responses:
            client.answer(response)
        say(ended="OK")
    except grpc.RpcError as error:
        say(ended=error.code().name, why=error.details())


main()
