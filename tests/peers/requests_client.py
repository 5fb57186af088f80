"""Python's requests and aiohttp through a proxy: prints `ok` and the number of checks."""

import asyncio
import sys

import aiohttp
import requests

base = sys.argv[1]
checks = 0


def check(condition, what):
    global checks
    if not condition:
        raise SystemExit(f"failed: {what}")
    checks += 1


def chunks():
    for i in range(50):
        yield b"%04d" % i * 500


def with_requests():
    with requests.Session() as session:
        for i in range(50):
            check(f"GET /{i} " in session.get(f"{base}/{i}").text, "GET")
        check(session.head(f"{base}/bytes/1000").headers["Content-Length"] == "1000", "HEAD")
        check(session.get(f"{base}/status/204").status_code == 204, "204")
        check(session.get(f"{base}/status/304").status_code == 304, "304")
        check(session.get(f"{base}/status/503").status_code == 503, "503")
        body = bytes(range(256)) * 4000
        check(session.post(f"{base}/body", data=body).content == body, "POST with length")
        check(session.put(f"{base}/body", data=chunks()).content == b"".join(chunks()), "PUT chunked")
        check(len(session.get(f"{base}/chunked/1000000").content) == 1_000_000, "chunked answer")
        check(len(session.get(f"{base}/close/100000").content) == 100_000, "until close")
        with session.get(f"{base}/bytes/5000000", stream=True) as answer:
            got = sum(len(piece) for piece in answer.iter_content(10_000))
        check(got == 5_000_000, "streamed answer")


async def with_aiohttp():
    async with aiohttp.ClientSession() as session:

        async def one(i):
            async with session.get(f"{base}/{i}") as answer:
                check(f"GET /{i} " in await answer.text(), "GET")

        await asyncio.gather(*(one(i) for i in range(200)))

        async def pieces():
            for piece in chunks():
                yield piece

        async with session.post(f"{base}/body", data=pieces()) as answer:
            check(await answer.read() == b"".join(chunks()), "POST chunked")
        body = b"x" * 2_000_000
        async with session.post(f"{base}/body", data=body, expect100=True) as answer:
            check(await answer.read() == body, "POST with Expect")
        async with session.get(f"{base}/chunked/3000000") as answer:
            check(len(await answer.read()) == 3_000_000, "chunked answer")


with_requests()
asyncio.run(with_aiohttp())
print("ok", checks)
