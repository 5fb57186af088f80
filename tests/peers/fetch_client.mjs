// Node's fetch through a proxy: prints `ok` and the number of checks.
import assert from 'node:assert/strict';

const base = process.argv[2];
let checks = 0;
const check = (condition, what) => {
  assert.ok(condition, what);
  checks += 1;
};

for (let i = 0; i < 50; i++) {
  const answer = await fetch(`${base}/${i}`);
  check((await answer.text()).includes(`GET /${i} `), 'GET');
}
const many = await Promise.all(
  Array.from({ length: 200 }, async (_, i) => (await fetch(`${base}/${i}`)).text()),
);
many.forEach((text, i) => check(text.includes(`GET /${i} `), 'GET at once'));

const head = await fetch(`${base}/bytes/1000`, { method: 'HEAD' });
check(head.headers.get('content-length') === '1000', 'HEAD');
check((await fetch(`${base}/status/204`)).status === 204, '204');
check((await fetch(`${base}/status/304`)).status === 304, '304');

const body = new Uint8Array(1_000_000).map((_, i) => i % 251);
const echoed = await fetch(`${base}/body`, { method: 'POST', body });
check(Buffer.from(await echoed.arrayBuffer()).equals(Buffer.from(body)), 'POST with length');

const stream = new ReadableStream({
  start(controller) {
    for (let i = 0; i < 50; i++) controller.enqueue(new TextEncoder().encode(`${i},`.repeat(500)));
    controller.close();
  },
});
const chunked = await fetch(`${base}/body`, { method: 'POST', body: stream, duplex: 'half' });
const expected = Array.from({ length: 50 }, (_, i) => `${i},`.repeat(500)).join('');
check((await chunked.text()) === expected, 'POST chunked');

for (const target of ['/chunked/1000000', '/close/1000000', '/bytes/1000000']) {
  const answer = await fetch(base + target);
  check((await answer.arrayBuffer()).byteLength === 1_000_000, target);
}
console.log('ok', checks);
