// Node's http2 module through a proxy: prints `ok` and the number of checks. Argument: the base URI.

import http2 from "node:http2";
import { strict as assert } from "node:assert";

const session = http2.connect(process.argv[2]);
let checks = 0;

function exchange(head, body = null) {
  return new Promise((resolve, reject) => {
    const stream = session.request(head, { endStream: body === null });
    const chunks = [];
    let answer, trailers;
    stream.on("response", (fields) => (answer = fields));
    stream.on("trailers", (fields) => (trailers = fields));
    stream.on("data", (chunk) => chunks.push(chunk));
    stream.on("error", reject);
    stream.on("end", () => resolve({ answer, trailers, body: Buffer.concat(chunks) }));
    if (body !== null) stream.end(body);
  });
}

const get = (path) => exchange({ ":path": path });

const many = await Promise.all(Array.from({ length: 80 }, (_, i) => get(`/${i}`)));
many.forEach(({ body }, i) => {
  assert.ok(body.includes(`GET /${i} `));
  checks++;
});

const large = Buffer.alloc(2_000_000, "0123456789abcdef");
const echoed = await exchange({ ":path": "/body", ":method": "POST" }, large);
assert.ok(echoed.body.equals(large));
checks++;

for (const path of ["/bytes/1000000", "/chunked/1000000", "/close/1000000"]) {
  assert.equal((await get(path)).body.length, 1_000_000);
  checks++;
}

assert.equal((await get("/status/204")).answer[":status"], 204);
assert.equal((await get("/trailers")).trailers["x-sum"], "42");
checks += 2;

session.close();
console.log(`ok ${checks}`);
