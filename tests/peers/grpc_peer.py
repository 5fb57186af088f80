"""gRPC's own client and server, over plain bytes, so that no protocol compiler is needed.

    grpc_peer.py server ADDRESS [CERTIFICATE KEY CA]
    grpc_peer.py client ADDRESS [CERTIFICATE KEY CA NAME]
    grpc_peer.py stuck ADDRESS
    grpc_peer.py insistent ADDRESS

Without certificates both speak plaintext; with them the server asks for the client's, and the client wants NAME
in the server's. The client makes every kind of call and prints `done`, or fails with what went wrong.

A stuck server never comes to an end with `Think`. An insistent client calls what fails at first, and `Think`; it does
not try again by itself.
"""

import sys
import threading
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVICE = "test.Peer"
LARGE = bytes(range(256)) * 8192  # 2 MiB: many frames, and more than a window.
PATIENCE_S = 60


def read(*paths):
    return [open(path, "rb").read() for path in paths]


def echo(request, context):
    context.set_trailing_metadata((("x-length", str(len(request))),))
    return request


def fail(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, request.decode())


def stall(request, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait(PATIENCE_S)
    return request


tried = set()


def fail_first(request, context):
    if request not in tried:
        tried.add(request)
        context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
    before = dict(context.invocation_metadata()).get("grpc-previous-rpc-attempts", "")
    context.set_trailing_metadata((("x-before", before),))
    return request


def fail_first_each(requests, context):
    requests = iter(requests)
    yield fail_first(next(requests), context)
    yield from requests


def count(request, context):
    for i in range(int(request)):
        yield b"%d" % i


def total(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def echo_each(requests, context):
    yield from requests


def serve(address, tls, think=echo):
    server = grpc.server(
        futures.ThreadPoolExecutor(16),
        options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)],
    )
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Stall": grpc.unary_unary_rpc_method_handler(stall),
        "Think": grpc.unary_unary_rpc_method_handler(think),
        "FailFirst": grpc.unary_unary_rpc_method_handler(fail_first),
        "FailFirstEach": grpc.stream_stream_rpc_method_handler(fail_first_each),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Total": grpc.stream_unary_rpc_method_handler(total),
        "EchoEach": grpc.stream_stream_rpc_method_handler(echo_each),
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, handlers),)
    )
    healthy = health.HealthServicer()
    healthy.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    healthy.set("test.Down", health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    if tls:
        certificate, key, ca = read(*tls)
        credentials = grpc.ssl_server_credentials(
            [(key, certificate)], root_certificates=ca, require_client_auth=True
        )
        server.add_secure_port(address, credentials)
    else:
        server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()


def connect(address, tls, *options):
    options = [("grpc.max_receive_message_length", -1), *options]
    if not tls:
        return grpc.insecure_channel(address, options)
    *paths, name = tls
    certificate, key, ca = read(*paths)
    options.append(("grpc.ssl_target_name_override", name))
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    return grpc.secure_channel(address, credentials, options)


def status_of(call, expected):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == expected, error
        return error.details()
    raise AssertionError(f"no {expected}")


def call_all(address, tls):
    with connect(address, tls) as channel:
        method = lambda kind, name: getattr(channel, kind)(f"/{SERVICE}/{name}")
        echo = method("unary_unary", "Echo")
        for body in (b"", b"x", LARGE):
            answer, call = echo.with_call(body, timeout=PATIENCE_S)
            assert answer == body
            assert ("x-length", str(len(body))) in call.trailing_metadata()
        many = [echo.future(b"%d" % i, timeout=PATIENCE_S) for i in range(1000)]
        assert [call.result() for call in many] == [b"%d" % i for i in range(1000)]

        fail = method("unary_unary", "Fail")
        details = status_of(
            lambda: fail(b"as asked", timeout=PATIENCE_S),
            grpc.StatusCode.FAILED_PRECONDITION,
        )
        assert details == "as asked"
        stall = method("unary_unary", "Stall")
        status_of(lambda: stall(b"", timeout=0.3), grpc.StatusCode.DEADLINE_EXCEEDED)

        counted = method("unary_stream", "Count")(b"1000", timeout=PATIENCE_S)
        assert list(counted) == [b"%d" % i for i in range(1000)]
        pieces = [LARGE[:10_000]] * 300
        up = method("stream_unary", "Total")
        assert up(iter(pieces), timeout=PATIENCE_S) == b"3000000"
        both = method("stream_stream", "EchoEach")
        assert list(both(iter(pieces), timeout=PATIENCE_S)) == pieces
    print("done")


def insist(address, tls):
    with connect(address, tls, ("grpc.enable_retries", 0)) as channel:
        method = lambda kind, name: getattr(channel, kind)(f"/{SERVICE}/{name}")
        fail_first = method("unary_unary", "FailFirst")
        for body in (b"", b"message", LARGE[:50_000]):
            answer, call = fail_first.with_call(body, timeout=PATIENCE_S)
            assert answer == body
            assert ("x-before", "1") in call.trailing_metadata(), call.trailing_metadata()
        pieces = [b"piece %d" % i for i in range(100)]
        each = method("stream_stream", "FailFirstEach")
        assert list(each(iter(pieces), timeout=PATIENCE_S)) == pieces
        # More than is kept.
        too_much = lambda: fail_first(LARGE, timeout=PATIENCE_S)
        status_of(too_much, grpc.StatusCode.UNAVAILABLE)

        think = method("unary_unary", "Think")
        for i in range(10):
            assert think(b"%d" % i, timeout=PATIENCE_S) == b"%d" % i
    print("done")


side, address, *tls = sys.argv[1:]
sides = {
    "server": serve,
    "client": call_all,
    "stuck": lambda address, tls: serve(address, tls, think=stall),
    "insistent": insist,
}
sides[side](address, tls)
