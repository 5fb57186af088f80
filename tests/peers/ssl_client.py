"""Python's ssl module against a TLS proxy that asks for certificates: prints `ok` and the number of checks.

Arguments: port, the authority's file, the client's certificate and key.
"""

import hashlib
import socket
import ssl
import sys

port, authority, certificate, key = int(sys.argv[1]), *sys.argv[2:5]
checks = 0


def check(condition, what):
    global checks
    if not condition:
        raise SystemExit(f"failed: {what}")
    checks += 1


def context(version, own=True):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = made.maximum_version = version
    made.load_verify_locations(authority)
    if own:
        made.load_cert_chain(certificate, key)
    return made


def connect(made, name="web.example", session=None):
    sock = socket.create_connection(("127.0.0.1", port), timeout=60)
    return made.wrap_socket(sock, server_hostname=name, session=session)


def ask(wrapped, target, body=b""):
    method = "POST" if body else "GET"
    head = f"{method} {target} HTTP/1.1\r\nHost: web.example\r\nContent-Length: {len(body)}\r\n\r\n"
    wrapped.sendall(head.encode() + body)
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = wrapped.recv(65536)
        check(piece, "a head")
        answer += piece
    head, _, rest = answer.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    length = int(fields[b"content-length"])
    while len(rest) < length:
        rest += wrapped.recv(65536)
    check(len(rest) == length, "nothing beyond the body")
    return rest


for version, name in [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")]:
    made = context(version)
    with connect(made) as wrapped:
        check(wrapped.version() == name, "the version")
        for i in range(20):
            check(f"GET /{i} ".encode() in ask(wrapped, f"/{i}"), "GET")
        body = bytes(range(256)) * 20_000
        check(hashlib.sha256(ask(wrapped, "/body", body)).digest() == hashlib.sha256(body).digest(), "body")
        check(len(ask(wrapped, "/bytes/5000000")) == 5_000_000, "a large answer")
        session = wrapped.session
        # The proxy answers a close_notify by its own, as an orderly end.
        wrapped.unwrap()
        check(True, "an orderly end")
    # A session is resumed on any shard. In TLS 1.3 each ticket is used once, and the next comes with data.
    for i in range(20):
        with connect(made, session=session) as wrapped:
            check(wrapped.session_reused, f"{name}: resumption {i}")
            ask(wrapped, "/again")
            session = wrapped.session
    for wanted in ["web.example", "localhost", "rsa.example", "127.0.0.1"]:
        with connect(made, wanted) as wrapped:
            names = {value for _, value in wrapped.getpeercert()["subjectAltName"]}
            check(wanted in names, f"the certificate of {wanted}")
    try:
        connect(made, "unknown.example")
        check(False, "a certificate for an unknown name")
    except ssl.SSLCertVerificationError:
        check(True, "the first certificate is shown for unknown names")
    # Without a certificate: TLS 1.3 tells the client after its own handshake is over.
    try:
        with connect(context(version, own=False)) as wrapped:
            ask(wrapped, "/")
        check(False, "an answer without a certificate")
    except ssl.SSLError as error:
        alerts = ["CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE"]
        check(any(alert in error.reason for alert in alerts), f"an alert: {error}")

# In TLS 1.3 both suites' families and both key types, one after the other.
for suite in ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"]:
    made = context(ssl.TLSVersion.TLSv1_2)
    made.set_ciphers(suite)
    with connect(made) as wrapped:
        check(wrapped.cipher()[0] == suite, suite)
        check(b"GET / " in ask(wrapped, "/"), "GET")
print("ok", checks)
