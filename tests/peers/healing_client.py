"""A client of tidegate.healing.v1 without generated code: Google's gRPC, and messages encoded by hand.

Usage: healing_client.py HOST:PORT
"""

import os
import queue
import struct
import sys
import traceback

import grpc


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def number(field, value):
    return varint(field << 3) + varint(value)


def double(field, value):
    return varint(field << 3 | 1) + struct.pack("<d", value)


def data(field, value):
    value = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(value)) + value


def decode(message):
    """Field number to value; of the types that Directive has."""
    fields, at = {}, 0

    def read():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = read()
        if key & 7 == 0:
            fields[key >> 3] = read()
        elif key & 7 == 2:
            length = read()
            fields[key >> 3] = message[at : at + length]
            at += length
        else:
            raise ValueError(f"type {key & 7}")
    return fields


ENDPOINT = "10.0.0.1:80"
NODE = data(1, "python") + number(2, 1) + data(3, "shop") + data(6, "pay")
KEEP_ALIVE = data(16, b"")
SUBJECT = data(1, "pay") + data(2, "pay") + data(3, ENDPOINT)
EVIDENCE = (
    number(1, 1) + number(2, 1000) + number(3, 20) + data(4, data(1, "reset") + number(2, 5))
    + double(5, 1.0) + double(6, 0.01) + number(7, 10)
)
EJECTED = data(11, data(1, SUBJECT) + data(2, EVIDENCE) + number(3, 1) + number(4, 1) + number(5, 1000))


class Stream:
    def __init__(self, channel):
        self.outgoing = queue.Queue()
        method = channel.stream_stream("/tidegate.healing.v1.Healing/Stream")
        self.incoming = method(iter(self.outgoing.get, None), timeout=20)

    def send(self, message):
        self.outgoing.put(message)

    def receive(self):
        return decode(next(self.incoming))

    def until(self, wanted):
        while True:
            directive = self.receive()
            if wanted(directive):
                return directive

    def code(self):
        """The status with which the stream ends."""
        try:
            for _ in self.incoming:
                pass
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    def close(self):
        self.outgoing.put(None)


def report(sequence, kind):
    return number(1, sequence) + number(2, 1000) + kind


def main():
    channel = grpc.insecure_channel(sys.argv[1])

    stream = Stream(channel)
    stream.send(number(2, 500) + data(3, NODE) + KEEP_ALIVE)
    first = stream.receive()
    assert first.get(1, 0) == 0 and first[2] >= 1, first
    stream.send(report(1, EJECTED))
    stream.until(lambda d: d.get(1) == 1)
    # With a quorum of one the ejection is confirmed.
    confirm = stream.until(lambda d: 10 in d)
    assert decode(confirm[10])[1] == ENDPOINT.encode(), confirm
    assert confirm[4] == b"python" and confirm[5] == 1000 and confirm[2] == first[2], confirm
    stream.send(report(1, EJECTED))
    stream.send(report(2, data(15, number(1, confirm[3]) + number(2, 1))))
    stream.until(lambda d: d.get(1) == 2)
    stream.close()

    # A later stream hears what is stored.
    stream = Stream(channel)
    stream.send(data(3, NODE) + KEEP_ALIVE)
    assert stream.receive()[1] == 2
    stream.close()

    for name, messages in {
        "nothing": [],
        "no node": [KEEP_ALIVE],
        "a bad id": [data(3, data(1, "a/b")) + KEEP_ALIVE],
        "no kind": [data(3, NODE) + KEEP_ALIVE, number(1, 3)],
        "an old incarnation": [data(3, data(1, "python")) + KEEP_ALIVE],
    }.items():
        stream = Stream(channel)
        for message in messages:
            stream.send(message)
        assert stream.code() == grpc.StatusCode.FAILED_PRECONDITION, name
        stream.close()

    # Fields that the center does not know are passed over, up to the size of a message.
    HELLO = data(3, NODE) + KEEP_ALIVE
    for size, code in {65536: grpc.StatusCode.OK, 65537: grpc.StatusCode.FAILED_PRECONDITION}.items():
        padding = size - len(HELLO) - len(data(99, b"x" * 60_000)) + 60_000
        stream = Stream(channel)
        stream.send(HELLO + data(99, b"x" * padding))
        if size == 65536:
            assert stream.receive()[1] == 2
            stream.close()
        assert stream.code() == code, size
        stream.close()

    # Four streams on a connection; a fifth waits until one is over.
    streams = [Stream(channel) for _ in range(5)]
    for k, stream in enumerate(streams):
        stream.send(data(3, data(1, f"s{k}") + number(2, 1)) + KEEP_ALIVE)
    for stream in streams[:4]:
        stream.receive()
    streams[0].close()
    streams[4].receive()
    for stream in streams[1:]:
        stream.close()


try:
    main()
    print("all right", flush=True)
except BaseException:
    traceback.print_exc()
    os._exit(1)
# The library's destructors wait for its own threads, some of them for ever: they are left out.
os._exit(0)
