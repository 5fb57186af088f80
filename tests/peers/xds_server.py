"""An xDS control plane over ADS, both variants, by grpcio and the messages of `xds-protos`.

Commands come by standard input, one JSON object a line: the whole world, `{"cluster": {NAME: {"version": V,
"resource": {...}}}, ...}`. With a certificate, a key and authorities of clients behind the address it speaks TLS. What clients say goes to standard output, one JSON object a line.
"""

import json
import queue
import sys
import threading
from concurrent import futures

import grpc
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2  # noqa: F401
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2  # noqa: F401
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2  # noqa: F401
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any

KINDS = {
    "cluster": cluster_pb2.Cluster,
    "endpoint": endpoint_pb2.ClusterLoadAssignment,
    "listener": listener_pb2.Listener,
    "route": route_pb2.RouteConfiguration,
}
URLS = {kind: "type.googleapis.com/" + message.DESCRIPTOR.full_name for kind, message in KINDS.items()}
BY_URL = {url: kind for kind, url in URLS.items()}

world = {kind: {} for kind in KINDS}
changed = threading.Condition()
streams = set()
lock = threading.Lock()


def say(**event):
    with lock:
        print(json.dumps(event), flush=True)


def pack(kind, resource):
    message = json_format.ParseDict(resource, KINDS[kind]())
    packed = Any()
    packed.Pack(message)
    return packed


class Stream:
    """What one client asked for, by kind, and what it was sent."""

    def __init__(self, requests, variant):
        self.events = queue.Queue()
        self.variant = variant
        self.nonce = 0
        self.wanted = {}
        self.sent = {}
        streams.add(self)
        threading.Thread(target=self.read, args=(requests,), daemon=True).start()

    def read(self, requests):
        try:
            for request in requests:
                self.events.put(request)
        except grpc.RpcError:
            pass
        self.events.put(None)

    def run(self, take, answer):
        try:
            while True:
                event = self.events.get()
                if event is None:
                    return
                if event != "world":
                    take(event)
                # What clusters and listeners refer to comes before them nowhere, and behind them at once.
                for kind in ("cluster", "endpoint", "listener", "route"):
                    if kind in self.wanted:
                        yield from answer(kind)
        finally:
            streams.discard(self)

    def next_nonce(self):
        self.nonce += 1
        return f"n{self.nonce}"

    def told(self, kind, request, **fields):
        say(
            variant=self.variant,
            kind=kind,
            nonce=request.response_nonce,
            error=request.error_detail.message,
            node=request.node.id,
            cluster=request.node.cluster,
            **fields,
        )

    # State of the world.

    def take_world(self, request):
        kind = BY_URL[request.type_url]
        self.told(kind, request, version=request.version_info, names=list(request.resource_names))
        self.wanted[kind] = list(request.resource_names)

    def answer_world(self, kind):
        names = self.wanted[kind]
        everything = not names and kind in ("cluster", "listener")
        with changed:
            found = {name: one for name, one in world[kind].items() if everything or name in names}
        versions = {name: one["version"] for name, one in found.items()}
        if self.sent.get(kind) == versions or (not everything and not found):
            return
        self.sent[kind] = versions
        yield discovery_pb2.DiscoveryResponse(
            version_info="-".join(sorted(versions.values())),
            resources=[pack(kind, one["resource"]) for one in found.values()],
            type_url=URLS[kind],
            nonce=self.next_nonce(),
        )

    # Delta.

    def take_delta(self, request):
        kind = BY_URL[request.type_url]
        subscribed, unsubscribed = list(request.resource_names_subscribe), list(request.resource_names_unsubscribe)
        held = dict(request.initial_resource_versions)
        self.told(kind, request, subscribed=subscribed, unsubscribed=unsubscribed, held=held)
        self.wanted.setdefault(kind, set()).update(subscribed)
        self.wanted[kind].difference_update(unsubscribed)
        sent = self.sent.setdefault(kind, {})
        sent.update(held)
        for name in unsubscribed:
            sent.pop(name, None)

    def answer_delta(self, kind):
        everything = kind in ("cluster", "listener")
        with changed:
            found = {name: one for name, one in world[kind].items() if everything or name in self.wanted[kind]}
        sent = self.sent[kind]
        news = {name: one for name, one in found.items() if sent.get(name) != one["version"]}
        gone = [name for name in sent if name not in found]
        if not news and not gone:
            return
        sent.update({name: one["version"] for name, one in news.items()})
        for name in gone:
            del sent[name]
        yield discovery_pb2.DeltaDiscoveryResponse(
            resources=[
                discovery_pb2.Resource(name=name, version=one["version"], resource=pack(kind, one["resource"]))
                for name, one in news.items()
            ],
            removed_resources=gone,
            type_url=URLS[kind],
            nonce=self.next_nonce(),
        )


class Ads(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):
    def StreamAggregatedResources(self, requests, context):
        stream = Stream(requests, "state_of_the_world")
        yield from stream.run(stream.take_world, stream.answer_world)

    def DeltaAggregatedResources(self, requests, context):
        stream = Stream(requests, "delta")
        yield from stream.run(stream.take_delta, stream.answer_delta)


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=32))
    ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(Ads(), server)
    if len(sys.argv) > 2:
        certificate, key, clients = (open(name, "rb").read() for name in sys.argv[2:5])
        credentials = grpc.ssl_server_credentials([(key, certificate)], clients, require_client_auth=True)
        port = server.add_secure_port(sys.argv[1], credentials)
    else:
        port = server.add_insecure_port(sys.argv[1])
    server.start()
    say(port=port)
    for line in sys.stdin:
        with changed:
            for kind, resources in json.loads(line).items():
                world[kind] = resources
        for stream in list(streams):
            stream.events.put("world")


main()
