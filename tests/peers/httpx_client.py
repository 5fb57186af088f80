"""Python's httpx in HTTP/2 through a proxy: prints `ok` and the number of checks. Argument: the base URI."""

import asyncio
import sys

import httpx

base = sys.argv[1]
checks = 0


def check(condition, what):
    global checks
    if not condition:
        raise SystemExit(f"failed: {what}")
    checks += 1


async def main():
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(http1=False, http2=True, limits=limits, timeout=60) as client:
        answers = await asyncio.gather(*(client.get(f"{base}/{i}") for i in range(100)))
        for i, answer in enumerate(answers):
            check(answer.http_version == "HTTP/2" and f"GET /{i} " in answer.text, "GET")
        check((await client.head(f"{base}/bytes/1000")).headers["content-length"] == "1000", "HEAD")
        for status in (204, 304, 503):
            check((await client.get(f"{base}/status/{status}")).status_code == status, status)
        body = bytes(range(256)) * 4000
        check((await client.post(f"{base}/body", content=body)).content == body, "POST with length")

        async def pieces():
            for i in range(50):
                yield b"%04d" % i * 500

        whole = b"".join([piece async for piece in pieces()])
        check((await client.put(f"{base}/body", content=pieces())).content == whole, "PUT in pieces")
        for kind in ("bytes", "chunked", "close"):
            check(len((await client.get(f"{base}/{kind}/1000000")).content) == 1_000_000, kind)
        # Given up in the middle: the connection goes on.
        async with client.stream("GET", f"{base}/bytes/5000000") as answer:
            async for _ in answer.aiter_bytes():
                break
        check((await client.get(f"{base}/after")).status_code == 200, "after a reset")


asyncio.run(main())
print(f"ok {checks}")
