//! Messages that the benches have in common.

/// As load generators send.
pub(crate) const SHORT: &[u8] = b"GET / HTTP/1.1\r\nHost: bench.example\r\n\r\n";

/// As a browser sends behind a login.
pub(crate) const BROWSER: &[u8] = b"GET /static/app/main.js?v=20260101 HTTP/1.1\r\n\
Host: shop.example\r\n\
Connection: keep-alive\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
Referer: https://shop.example/basket\r\n\
Sec-Fetch-Dest: script\r\n\
Sec-Fetch-Mode: no-cors\r\n\
Sec-Fetch-Site: same-origin\r\n\
Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=1; basket=42\r\n\
X-Request-Id: 6f9619ff-8b86-d011-b42d-00c04fc964ff\r\n\r\n";

/// As an application answers.
pub(crate) const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\
Server: nginx\r\n\
Date: Mon, 05 Jan 2026 10:00:00 GMT\r\n\
Content-Type: application/json\r\n\
Content-Length: 128\r\n\
Connection: keep-alive\r\n\
Vary: Accept-Encoding\r\n\
Cache-Control: no-store\r\n\r\n";
