"""A rate limit service in memory, with the messages that Envoy's protos compile to.

    rate_limit_service.py ADDRESS REQUESTS

Each descriptor of each domain may have REQUESTS a day. What is asked is printed, a line of JSON each. Values of
descriptors say otherwise: `never` is not answered, `abort` fails, `unknown` has no code, `bare` is over without
numbers.
"""

import collections
import json
import sys
import threading
from concurrent import futures

import grpc
from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc

PATIENCE_S = 60
OK = rls_pb2.RateLimitResponse.OK
OVER_LIMIT = rls_pb2.RateLimitResponse.OVER_LIMIT
DAY = rls_pb2.RateLimitResponse.RateLimit.DAY


class Service(rls_pb2_grpc.RateLimitServiceServicer):
    def __init__(self, requests):
        self.requests = requests
        self.hits = collections.Counter()
        self.lock = threading.Lock()

    def ShouldRateLimit(self, request, context):
        descriptors = [[(e.key, e.value) for e in d.entries] for d in request.descriptors]
        question = {"domain": request.domain, "hits": request.hits_addend, "descriptors": descriptors}
        print(json.dumps(question), flush=True)
        values = {value for descriptor in descriptors for _, value in descriptor}
        if "never" in values:
            ended = threading.Event()
            context.add_callback(ended.set)
            ended.wait(PATIENCE_S)
        if "abort" in values:
            context.abort(grpc.StatusCode.INTERNAL, "as asked for")
        if "unknown" in values:
            return rls_pb2.RateLimitResponse()
        if "bare" in values:
            return rls_pb2.RateLimitResponse(overall_code=OVER_LIMIT)
        answer = rls_pb2.RateLimitResponse(overall_code=OK)
        for descriptor in descriptors:
            status = answer.statuses.add(code=OK)
            status.current_limit.requests_per_unit = self.requests
            status.current_limit.unit = DAY
            status.duration_until_reset.seconds = 4321
            if not self.take(request.domain, descriptor, request.hits_addend):
                status.code = answer.overall_code = OVER_LIMIT
        return answer

    def take(self, domain, descriptor, hits):
        with self.lock:
            key = (domain, tuple(descriptor))
            self.hits[key] += hits
            return self.hits[key] <= self.requests


def main():
    address, requests = sys.argv[1:]
    server = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    rls_pb2_grpc.add_RateLimitServiceServicer_to_server(Service(int(requests)), server)
    if server.add_insecure_port(address) == 0:
        sys.exit(f"{address} is taken")
    server.start()
    server.wait_for_termination()


main()
