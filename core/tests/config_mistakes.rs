//! Mistakes that people make, each with the place, the code and the help that they must meet.
//!
//! `«…»` marks what must be pointed at. Where a mistake is short, only the line that matters is written,
//! and the rest of a good file is put around it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use tidegate_core::config::{self, Severity};

/// Code, part of the help, text.
type Mistake = (&'static str, &'static str, &'static str);

/// Whole files.
#[rustfmt::skip]
const FILES: &[Mistake] = &[
    ("TG-C001", "close every", "version: 1\nlisteners: { web: { bind: 127.0.0.1:80"),
    ("TG-C001", "never with tabs", "version: 1\nlisteners:\n«\t»web:\n"),
    ("TG-C001", "same column", "version: 1\nadmin: off\n listeners«:» {}\n"),
    ("TG-C001", "quotes", "version: 1\nnode: { id: \"gw-1 }\n"),
    ("TG-C007", "one document", "version: 1\n«---»\nversion: 1\n"),
    ("TG-C007", "remove it", "version: «!!int» 1\n"),
    ("TG-C007", "write the keys out", "version: 1\nnode: { «<<»: { id: a } }\n"),
    ("TG-C006", "in quotes", "version: 1\nclusters: «*all»\n"),
    ("TG-C008", "keep one", "version: 1\nnode: { id: a, «id»: b }\n"),
    ("TG-C009", "version: 1", "«»"),
    ("TG-C009", "version: 1", "«»# only a comment\n"),
    ("TG-C012", "`version`", "«- version: 1»\n"),
    ("TG-C012", "`version`", "«version 1»\n"),
    ("TG-C011", "add `version: …`", "«»admin: off\n"),
    ("TG-C019", "version: 1", "version: «2»\n"),
    ("TG-C019", "version: 1", "version: «1.0»\n"),
    ("TG-C012", "remove the quotes", "version: «\"1\"»\n"),
    ("TG-C010", "did you mean `listeners`?", "version: 1\n«lisnters»: {}\n"),
    ("TG-C010", "did you mean `clusters`?", "version: 1\n«upstreams»: {}\n"),
    ("TG-C010", "did you mean `drain_timeout`?", "version: 1\n«drain-timeout»: 10s\n"),
    ("TG-C010", "belongs to `clusters.<name>`", "version: 1\n«connect_timeout»: 1s\n"),
    ("TG-C014", "refused rather than ignored", "version: 1\n«registry»: { etcd: 127.0.0.1:1 }\n"),
    ("TG-C014", "refused rather than ignored", "version: 1\n«adaptive_limit»: {}\n"),
    ("TG-C021", "clusters: PATH", "version: 1\nxds: { «files»: { watched_directory: /etc/x } }\n"),
    ("TG-C022", "protocol: rest", "version: 1\nxds: { addresses: [a:1], «refresh_delay»: 1s }\n"),
    ("TG-C022", "files are all there is", "version: 1\nxds: { files: { clusters: /x }, «cache»: /y }\n"),
    ("TG-C012", "write a map", "version: 1\nlisteners: «[ { bind: 127.0.0.1:80 } ]»\n"),
    ("TG-C012", "remove the key", "version: 1\n«listeners»:\nadmin: off\n"),
    ("TG-C012", "remove the key", "version: 1\nadmin: «~»\n"),
    ("TG-C024", "letters, digits", "version: 1\nclusters: { «pay v2»: { endpoints: { static: [10.0.0.1:80] } } }\n"),
    ("TG-C026", "such as 127.0.0.2:0", "version: 1\nadmin: 127.0.0.1:0\nlisteners: { a: { bind: 127.0.0.1:0, routes: [] }, b: { bind: «127.0.0.1:0», routes: [] } }\n"),
    ("TG-C045", "line breaks", "version: 1\nnode: { id: «\"a\\tb\"» }\n"),
    ("TG-C017", "from 1 to 1024", "version: 1\nshards: «0»\n"),
    ("TG-C016", "whole number", "version: 1\nshards: «many»\n"),
    ("TG-C040", "2-15", "version: 1\nshards: { cpus: «7-2» }\n"),
    ("TG-C040", "each once", "version: 1\nshards: { cpus: «\"0,1,1\"» }\n"),
    ("TG-C040", "0 to 1023", "version: 1\nshards: { cpus: «0-5000» }\n"),
    ("TG-C017", "from 0 to 1023", "version: 1\nshards: { cpus: [0, «2048»] }\n"),
    ("TG-C018", "512 or 1024", "version: 1\nshards: { ring: { submission_entries: «1000» } }\n"),
    ("TG-C017", "at least as many", "version: 1\nshards: { ring: { completion_entries: «512» } }\n"),
    ("TG-C015", "write `64KiB`", "version: 1\nlimits: { connection_buffer: «64» }\n"),
    ("TG-C016", "units are `B`", "version: 1\nlimits: { connection_buffer: «64kb» }\n"),
    ("TG-C017", "from `4KiB` to `64MiB`", "version: 1\nlimits: { connection_buffer: «1GiB» }\n"),
    ("TG-C017", "from 1 to", "version: 1\nlimits: { connections: «-1» }\n"),
    ("TG-C012", "remove the quotes", "version: 1\nlimits: { connections: «'100'» }\n"),
    ("TG-C015", "write `30s`", "version: 1\ndrain_timeout: «30»\n"),
    ("TG-C016", "units are `us`", "version: 1\ndrain_timeout: «half a minute»\n"),
    ("TG-C012", "a duration", "version: 1\ndrain_timeout: «[30s]»\n"),
    ("TG-C029", "127.0.0.1:9901", "version: 1\nadmin: «0.0.0.0:9901»\n"),
    ("TG-C023", "admin: off", "version: 1\nadmin: «false»\n"),
    ("TG-C023", "not available", "version: 1\nadmin: «unix:/run/tidegate.sock»\n"),
    ("TG-C011", "add `domain: …`", "version: 1\nclusters: { a: { protocol: http2, endpoints: { static: [127.0.0.1:1] } } }\n«rate_limit_service»: { cluster: a }\n"),
    ("TG-C027", "did you mean `limits`?", "version: 1\nclusters: { limits: { protocol: http2, endpoints: { static: [127.0.0.1:1] } } }\nrate_limit_service: { cluster: «limit», domain: d }\n"),
    ("TG-C022", "add `protocol: http2`", "version: 1\nclusters: { a: { endpoints: { static: [127.0.0.1:1] } } }\nrate_limit_service: { cluster: «a», domain: d }\n"),
    ("TG-C013", "did you mean `json`?", "version: 1\naccess_log: { format: «jsn» }\n"),
    ("TG-C014", "refused", "version: 1\naccess_log: { format: «envoy» }\n"),
    ("TG-C013", "did you mean `off`?", "version: 1\naccess_log: «none»\n"),
];

/// Keys of a listener.
#[rustfmt::skip]
const LISTENERS: &[Mistake] = &[
    ("TG-C011", "add `bind: …`", "routes: []"),
    ("TG-C011", "protocol: tcp", "bind: 127.0.0.1:80"),
    ("TG-C023", "127.0.0.1:80", "bind: «localhost:80», routes: []"),
    ("TG-C023", "0.0.0.0:8080", "bind: «8080», routes: []"),
    ("TG-C023", "0.0.0.0:8080", "bind: «\":8080\"», routes: []"),
    ("TG-C023", "0 to 65535", "bind: «127.0.0.1:70000», routes: []"),
    ("TG-C023", "[::1]:80", "bind: «\"::1:80\"», routes: []"),
    ("TG-C023", "write the port", "bind: «10.0.0.1», routes: []"),
    ("TG-C026", "another port", "bind: «127.0.0.1:9901», routes: []"),
    ("TG-C014", "refused", "bind: 127.0.0.1:80, routes: [], protocol: «bolt»"),
    ("TG-C014", "refused", "bind: 127.0.0.1:80, routes: { «rds»: outbound }"),
    ("TG-C013", "did you mean `http`?", "bind: 127.0.0.1:80, routes: [], protocol: «htp»"),
    ("TG-C013", "did you mean `off`?", "bind: 127.0.0.1:80, routes: [], proxy_protocol: «no»"),
    ("TG-C022", "add `protocol: tcp`", "bind: 127.0.0.1:80, «to»: pay"),
    ("TG-C022", "protocol: tcp", "bind: 127.0.0.1:80, protocol: tcp, to: pay, «routes»: []"),
    ("TG-C021", "exactly one", "bind: 127.0.0.1:80, protocol: tcp"),
    ("TG-C020", "exactly one", "bind: 127.0.0.1:80, protocol: tcp, to: pay, «split»: { pay: 100% }"),
    ("TG-C010", "did you mean `header`?", "bind: 127.0.0.1:80, routes: [], timeouts: { «haeder»: 1s }"),
    ("TG-C010", "allowed are", "bind: 127.0.0.1:80, protocol: tcp, to: pay, timeouts: { «header»: 1s }"),
    ("TG-C017", "from `1ms`", "bind: 127.0.0.1:80, routes: [], timeouts: { header: «0s» }"),
    ("TG-C013", "did you mean `off`?", "bind: 127.0.0.1:80, routes: [], limits: { body: «unlimited» }"),
    ("TG-C013", "`append`", "bind: 127.0.0.1:80, routes: [], forwarded: { x_forwarded: «yes» }"),
    ("TG-C035", "a token", "bind: 127.0.0.1:80, routes: [], forwarded: { via: «gw 1» }"),
    ("TG-C011", "add `certificates: …`", "bind: 127.0.0.1:80, routes: [], «tls»: {}"),
    ("TG-C010", "did you mean `tls`?", "bind: 127.0.0.1:80, routes: [], «ssl_certificate»: a.pem"),
    ("TG-C012", "its keys are", "bind: 127.0.0.1:80, routes: [], tls: «on»"),
    ("TG-C012", "its keys are", "bind: 127.0.0.1:80, routes: [ «pay» ]"),
    ("TG-C012", "a list", "bind: 127.0.0.1:80, routes: «{ to: pay }»"),
];

/// Keys of a route.
#[rustfmt::skip]
const ROUTES: &[Mistake] = &[
    ("TG-C027", "did you mean `orders`?", "to: «ordres»"),
    ("TG-C027", "by its name", "to: «\"10.0.0.1:80\"»"),
    ("TG-C012", "the name of a cluster", "to: «[pay]»"),
    ("TG-C021", "exactly one", "«match: { path: / }»"),
    ("TG-C020", "exactly one", "to: pay, «respond»: { status: 200 }"),
    ("TG-C010", "did you mean `to`?", "«cluster»: pay, to: pay"),
    ("TG-C010", "did you mean `match`?", "«macth»: { path: / }, to: pay"),
    ("TG-C014", "refused", "to: pay, «steering»: {}"),
    ("TG-C010", "did you mean `rate_limits`?", "to: pay, «rate_limit»: { requests: 1 }"),
    ("TG-C011", "add `requests: …`", "to: pay, rate_limits: [«{ per: 1s }»]"),
    ("TG-C010", "did you mean `per`?", "to: pay, rate_limits: [{ requests: 1, «fill_interval»: 1s }]"),
    ("TG-C017", "from 1 to", "to: pay, rate_limits: [{ requests: «0» }]"),
    ("TG-C017", "lengthen `per`", "to: pay, rate_limits: [{ requests: «1001», per: 1ms }]"),
    ("TG-C022", "by: client_ip", "to: pay, rate_limits: [{ requests: 1, «keys»: 100 }]"),
    ("TG-C013", "client_ip", "to: pay, rate_limits: [{ requests: 1, by: «client» }]"),
    ("TG-C020", "exactly one", "to: pay, rate_limits: [{ requests: 1, by: { header: a, «cookie»: b } }]"),
    ("TG-C041", "at least one", "to: pay, rate_limits: «[]»"),
    ("TG-C042", "split the work", "to: pay, rate_limits: «[{ requests: 1 }, { requests: 1 }, { requests: 1 }, { requests: 1 }, { requests: 1 }]»"),
    ("TG-C014", "refused", "to: pay, rate_limits: [{ requests: 1, «status»: 503 }]"),
    ("TG-C022", "use `rate_limits`", "to: pay, «global_rate_limits»: [{ entries: [{ by: client_ip }] }]"),
    ("TG-C010", "belongs to", "to: pay, match: { «rewrite»: { path: / } }"),
    ("TG-C010", "did you mean `host`?", "to: pay, match: { «domains»: pay.example }"),
    ("TG-C028", "sum to 100 %", "split: «{ pay: 90%, orders: 20% }»"),
    ("TG-C015", "write `90%`", "split: { pay: «90», orders: 10% }"),
    ("TG-C016", "two decimals", "split: { pay: «99.999%», orders: 1% }"),
    ("TG-C027", "did you mean `pay`?", "split: { «pya»: 100% }"),
    ("TG-C041", "at least one", "split: «{}»"),
    ("TG-C030", "a wildcard is", "to: pay, match: { host: «\"pay*.example\"» }"),
    ("TG-C030", "without port", "to: pay, match: { host: «pay.example:443» }"),
    ("TG-C030", "write the host alone", "to: pay, match: { host: «https://pay.example» }"),
    ("TG-C030", "under `path`", "to: pay, match: { host: «pay.example/transfer» }"),
    ("TG-C030", "punycode", "to: pay, match: { host: «büro.example» }"),
    ("TG-C044", "remove one", "to: pay, match: { host: [pay.example, «PAY.example»] }"),
    ("TG-C006", "in quotes", "to: pay, match: { host: «*.example» }"),
    ("TG-C041", "at least one", "to: pay, match: { host: «[]» }"),
    ("TG-C031", "write `/transfer`", "to: pay, match: { path: «transfer» }"),
    ("TG-C031", "under `query`", "to: pay, match: { path: «/a?b=1» }"),
    ("TG-C031", "`/**` at the end", "to: pay, match: { path: «/a*» }"),
    ("TG-C031", "`/**` at the end", "to: pay, match: { path: «/*/b» }"),
    ("TG-C031", "whole segment", "to: pay, match: { path: «\"/users/u{id}\"» }"),
    ("TG-C031", "each name once", "to: pay, match: { path: «\"/{id}/{id}\"» }"),
    ("TG-C031", "begins with `~`", "to: pay, match: { path: «^/a» }"),
    ("TG-C031", "`/../`", "to: pay, match: { path: «/a/../b» }"),
    ("TG-C031", "percent-encode", "to: pay, match: { path: «/ä» }"),
    ("TG-C032", "special character", "to: pay, match: { path: «\"~/a(b\"» }"),
    ("TG-C032", "look-around", "to: pay, match: { path: «\"~/(?!a).*\"» }"),
    ("TG-C032", "bound repetitions", "to: pay, match: { path: «\"~/(\\\\w{1,500}){1,500}\"» }"),
    ("TG-C033", "did you mean `GET`?", "to: pay, match: { method: «get» }"),
    ("TG-C033", "a list", "to: pay, match: { method: «GET POST» }"),
    ("TG-C034", "without `:`", "to: pay, match: { header: { «\"x canary\"»: a } }"),
    ("TG-C034", "the key `host`", "to: pay, match: { header: { «\":authority\"»: a } }"),
    ("TG-C020", "exactly one", "to: pay, match: { header: { x: { prefix: a, «suffix»: b } } }"),
    ("TG-C021", "exactly one", "to: pay, match: { header: { «x»: {} } }"),
    ("TG-C012", "`true` or `false`", "to: pay, match: { header: { x: { present: «yes» } } }"),
    ("TG-C012", "remove the key", "to: pay, match: { header: { x: «~» } }"),
    ("TG-C045", "percent-encoded", "to: pay, match: { query: { «\"a b\"»: c } }"),
    ("TG-C045", "present: true", "to: pay, match: { query: { a: { contains: «\"\"» } } }"),
    ("TG-C015", "write `800s`", "to: pay, timeout: «800»"),
    ("TG-C016", "units are", "to: pay, timeout: «800msec»"),
    ("TG-C013", "did you mean `off`?", "to: pay, timeout: «none»"),
    ("TG-C017", "to `24h`", "to: pay, timeout: «48h»"),
    ("TG-C013", "did you mean `connect`?", "to: pay, retry: { on: [«conect»] }"),
    ("TG-C017", "400 to 599", "to: pay, retry: { on: [«200»] }"),
    ("TG-C044", "remove one", "to: pay, retry: { on: [503, «503»] }"),
    ("TG-C041", "at least one", "to: pay, retry: { on: «[]» }"),
    ("TG-C012", "a list", "to: pay, retry: { on: «connect» }"),
    ("TG-C017", "from 1 to 10", "to: pay, retry: { times: «50» }"),
    ("TG-C015", "write `10%`", "to: pay, retry: { budget: «10» }"),
    ("TG-C010", "did you mean `times`?", "to: pay, retry: { «attempts»: 2 }"),
    ("TG-C012", "a map", "to: pay, retry: «3»"),
    ("TG-C013", "did you mean `unavailable`?", "to: pay, retry: { on: [«unavailible»] }"),
    ("TG-C044", "remove one", "to: pay, retry: { on: [internal, «internal»] }"),
    ("TG-C017", "to `1MiB`", "to: pay, retry: { buffer: «2MiB» }"),
    ("TG-C017", "to `1m`", "to: pay, hedge: { delay: «0s» }"),
    ("TG-C017", "from 1 to 4", "to: pay, hedge: { delay: 1s, times: «5» }"),
    ("TG-C011", "add `delay: …`", "to: pay, «hedge»: {}"),
    ("TG-C022", "remove it", "respond: { status: 200 }, «hedge»: { delay: 1s }"),
    ("TG-C013", "`client_ip`", "to: pay, hash: «source_ip»"),
    ("TG-C021", "exactly one", "to: pay, «hash»: {}"),
    ("TG-C020", "exactly one", "to: pay, hash: { header: a, «cookie»: b }"),
    ("TG-C039", "`/a/**`", "to: pay, match: { path: /a }, rewrite: { prefix: «/b» }"),
    ("TG-C020", "exactly one", "to: pay, rewrite: { path: /a, «regex»: b }"),
    ("TG-C022", "add `regex`", "to: pay, rewrite: { «replacement»: /a }"),
    ("TG-C011", "add `replacement", "to: pay, rewrite: { «regex»: /a }"),
    ("TG-C039", "braces", "to: pay, rewrite: { regex: \"^/(a)\", replacement: «/$1x» }"),
    ("TG-C039", "`$1`", "to: pay, rewrite: { regex: \"^/(a)\", replacement: «\"/${2}\"» }"),
    ("TG-C030", "a wildcard", "to: pay, rewrite: { host: «\"*.example\"» }"),
    ("TG-C036", "proxy's own", "to: pay, request_headers: { remove: [«Content-Length»] }"),
    ("TG-C036", "rewrite", "to: pay, request_headers: { set: { «Host»: a } }"),
    ("TG-C035", "line breaks", "to: pay, response_headers: { set: { a: «\"b\\r\\nc: d\"» } }"),
    ("TG-C035", "spaces", "to: pay, response_headers: { set: { a: «\" b\"» } }"),
    ("TG-C008", "keep one", "to: pay, response_headers: { set: { x-a: b, «X-A»: c } }"),
    ("TG-C010", "did you mean `append`?", "to: pay, response_headers: { «apend»: { x-a: b } }"),
    ("TG-C014", "refused", "to: pay, response_headers: { «add»: { x-a: b } }"),
    ("TG-C038", "`https://host/path`", "redirect: «pay.example»"),
    ("TG-C038", "add `scheme", "«redirect»: { strip_query: true }"),
    ("TG-C017", "301, 302, 303, 307 or 308", "redirect: { status: «200», path: / }"),
    ("TG-C013", "`https`", "redirect: { scheme: «ftp» }"),
    ("TG-C030", "1 to 65535", "redirect: «https://pay.example:99999/»"),
    ("TG-C022", "remove it", "redirect: /a, «timeout»: 1s"),
    ("TG-C022", "remove it", "respond: { status: 200 }, «retry»: {}"),
    ("TG-C011", "add `status: …`", "«respond»: { body: hello }"),
    ("TG-C017", "200 to 599", "respond: { status: «100» }"),
    ("TG-C037", "remove the body", "respond: { status: 204, body: «hello» }"),
    ("TG-C035", "media type", "respond: { status: 200, content_type: «json» }"),
    ("TG-C024", "letters, digits", "to: pay, name: «\"a b\"»"),
];

/// Keys of a cluster.
#[rustfmt::skip]
const CLUSTERS: &[Mistake] = &[
    ("TG-C011", "add `endpoints: …`", "balance: random"),
    ("TG-C021", "exactly one", "«endpoints»: {}"),
    ("TG-C020", "exactly one", "endpoints: { static: [10.0.0.1:80], «dns»: \"a:80\" }"),
    ("TG-C014", "refused", "endpoints: { «eds»: pay }"),
    ("TG-C041", "at least one", "endpoints: { static: «[]» }"),
    ("TG-C012", "a list", "endpoints: { static: «10.0.0.1:80» }"),
    ("TG-C023", "dns", "endpoints: { static: [«pay.internal:80»] }"),
    ("TG-C023", "write `10.0.0.1:80`", "endpoints: { static: [«\"http://10.0.0.1:80\"»] }"),
    ("TG-C023", "write the port", "endpoints: { static: [«10.0.0.1:0»] }"),
    ("TG-C023", "127.0.0.1", "endpoints: { static: [«0.0.0.0:80»] }"),
    ("TG-C044", "remove one", "endpoints: { static: [10.0.0.1:80, «10.0.0.1:80»] }"),
    ("TG-C017", "from 0 to 128", "endpoints: { static: [ { address: 10.0.0.1:80, weight: «200» } ] }"),
    ("TG-C010", "did you mean `weight`?", "endpoints: { static: [ { address: 10.0.0.1:80, «wieght»: 2 } ] }"),
    ("TG-C041", "a weight", "endpoints: { static: «[ { address: 10.0.0.1:80, weight: 0 } ]» }"),
    ("TG-C012", "a map", "endpoints: «[10.0.0.1:80]»"),
    ("TG-C023", "HOST:PORT", "endpoints: { dns: «pay.internal» }"),
    ("TG-C023", "under `static`", "endpoints: { dns: «10.0.0.1:80» }"),
    ("TG-C030", "labels", "endpoints: { dns: «\"pay internal:80\"» }"),
    ("TG-C022", "remove it", "endpoints: { static: [10.0.0.1:80], «refresh»: 5s }"),
    ("TG-C010", "did you mean `balance`?", "endpoints: { static: [10.0.0.1:80] }, «lb»: random"),
    ("TG-C013", "did you mean `maglev`?", "endpoints: { static: [10.0.0.1:80] }, balance: «magelv»"),
    ("TG-C014", "refused", "endpoints: { static: [10.0.0.1:80] }, «zones»: {}"),
    ("TG-C017", "to `5m`", "endpoints: { static: [10.0.0.1:80] }, connect_timeout: «10m»"),
    ("TG-C010", "did you mean `connections`?", "endpoints: { static: [10.0.0.1:80] }, circuit: { «max_connections»: 1 }"),
    ("TG-C020", "keep one", "endpoints: { static: [10.0.0.1:80] }, heal: {}, «outlier_detection»: {}"),
    ("TG-C010", "did you mean `outlier_detection`?", "endpoints: { static: [10.0.0.1:80] }, «outlier»: {}"),
    ("TG-C014", "refused", "endpoints: { static: [10.0.0.1:80] }, outlier_detection: { «monitors»: {} }"),
    ("TG-C021", "exactly one", "endpoints: { static: [10.0.0.1:80] }, «health»: { interval: 1s }"),
    ("TG-C037", "200-299", "endpoints: { static: [10.0.0.1:80] }, health: { http: { expect: [«2xx»] } }"),
    ("TG-C037", "200-299", "endpoints: { static: [10.0.0.1:80] }, health: { http: { expect: [«299-200»] } }"),
    ("TG-C031", "write `/health`", "endpoints: { static: [10.0.0.1:80] }, health: { http: { path: «health» } }"),
    ("TG-C022", "add `protocol: http2`", "endpoints: { static: [10.0.0.1:80] }, health: { «grpc»: {} }"),
    ("TG-C010", "did you mean `unhealthy_after`?", "endpoints: { static: [10.0.0.1:80] }, health: { tcp: {}, «unhealthy_threshold»: 3 }"),
    ("TG-C013", "`v1`", "endpoints: { static: [10.0.0.1:80] }, proxy_protocol: «v3»"),
    ("TG-C011", "add `trusted_ca: …`", "endpoints: { static: [10.0.0.1:80] }, «tls»: {}"),
    ("TG-C046", "define it", "endpoints: { static: [10.0.0.1:80] }, tls: { trusted_ca: «ca» }"),
    ("TG-C010", "did you mean `tls`?", "endpoints: { static: [10.0.0.1:80] }, «transport_socket»: {}"),
    ("TG-C017", "from `1s`", "endpoints: { static: [10.0.0.1:80] }, max_connection_age: «0s»"),
    ("TG-C013", "did you mean `on`?", "endpoints: { static: [ { address: 10.0.0.1:80, tls: «true» } ] }"),
    ("TG-C011", "add `state: …`", "endpoints: { static: [ { address: 10.0.0.1:80, «tls»: { epoch: 2 } } ] }"),
    ("TG-C045", "some text", "endpoints: { static: [ { address: 10.0.0.1:80, zone: «\"\"» } ] }"),
    ("TG-C012", "a map", "endpoints: { static: [ { address: 10.0.0.1:80, labels: «canary» } ] }"),
    ("TG-C041", "at least one", "adaptive_limit: { canary: { labels: «{}» } }, endpoints: { static: [10.0.0.1:80] }"),
    ("TG-C012", "a map", "adaptive_limit: { canary: { labels: «canary» } }, endpoints: { static: [10.0.0.1:80] }"),
];

/// `secrets` and what refers to them.
#[rustfmt::skip]
const SECRETS: &[Mistake] = &[
    ("TG-C021", "exactly one", "«web»: {}"),
    ("TG-C012", "its keys are", "web: «/etc/web.pem»"),
    ("TG-C020", "exactly one", "web: { certificate: a.pem, private_key: a.key, «trusted_ca»: b.pem }"),
    ("TG-C011", "add `private_key: FILE`", "web: { «certificate»: a.pem }"),
    ("TG-C011", "add `certificate: FILE`", "web: { «private_key»: a.key }"),
    ("TG-C022", "add `crl: FILE`", "ca: { trusted_ca: a.pem, «expired_crl»: refuse }"),
    ("TG-C022", "beside `trusted_ca`", "web: { certificate: a.pem, private_key: a.key, «crl»: b.pem }"),
    ("TG-C022", "without their keys", "web: { trusted_ca: a.pem, «private_key»: a.key }"),
    ("TG-C010", "did you mean `certificate`?", "web: { «ssl_certificate»: a.pem, certificate: a.pem, private_key: a.key }"),
    ("TG-C010", "did you mean `private_key`?", "web: { certificate: a.pem, private_key: a.key, «ssl_certificate_key»: a.key }"),
    ("TG-C010", "did you mean `trusted_ca`?", "web: { trusted_ca: a.pem, «ca_file»: a.pem }"),
    ("TG-C014", "refused", "web: { trusted_ca: a.pem, «acme»: {} }"),
    ("TG-C045", "the path of a file", "web: { trusted_ca: «\"\"» }"),
    ("TG-C045", "path alone", "web: { trusted_ca: «file:///etc/ca.pem» }"),
    ("TG-C045", "from `/`", "web: { trusted_ca: «~/ca.pem» }"),
    ("TG-C048", "a file that only this user may read", "web: { «trusted_ca»: \"-----BEGIN CERTIFICATE-----\\nMIIB\" }"),
    ("TG-C024", "letters, digits", "«a b»: { trusted_ca: ca.pem }"),
];

/// Keys of `tls` of an HTTP listener, beside `certificates: web` where none are written.
#[rustfmt::skip]
const LISTENER_TLS: &[Mistake] = &[
    ("TG-C046", "did you mean `web`?", "certificates: «wbe»"),
    ("TG-C046", "under `secrets`", "certificates: [«/etc/web.pem»]"),
    ("TG-C046", "defined are `api`, `web`", "certificates: «example»"),
    ("TG-C047", "name one of `api`, `web`", "certificates: «ca»"),
    ("TG-C044", "remove one", "certificates: [web, api, «web»]"),
    ("TG-C041", "at least one", "certificates: «[]»"),
    ("TG-C012", "the name of a secret", "certificates: «{ a: b }»"),
    ("TG-C013", "did you mean `permissive`?", "mode: «PERMISIVE»"),
    ("TG-C013", "did you mean `disabled`?", "mode: «off»"),
    ("TG-C012", "`true` or `false`", "force: «yes»"),
    ("TG-C011", "add `trusted_ca: NAME`", "«client_certificate»: {}"),
    ("TG-C011", "add `trusted_ca: NAME`", "«client_certificate»: { mode: optional }"),
    ("TG-C013", "did you mean `require`?", "client_certificate: { mode: «required», trusted_ca: ca }"),
    ("TG-C013", "did you mean `none`?", "client_certificate: { mode: «off» }"),
    ("TG-C047", "name one of `ca`", "client_certificate: { trusted_ca: «web» }"),
    ("TG-C010", "did you mean `trusted_ca`?", "client_certificate: { trusted_ca: ca, «ca-file»: ca }"),
    ("TG-C010", "did you mean `client_certificate`?", "«verify»: required"),
    ("TG-C010", "did you mean `cipher_suites`?", "«ssl_ciphers»: HIGH"),
    ("TG-C010", "did you mean `min_version`?", "«ssl_protocols»: TLSv1.2"),
    ("TG-C041", "at least one", "client_certificate: { trusted_ca: ca, subject_alt_names: «[]» }"),
    ("TG-C021", "exactly one", "client_certificate: { trusted_ca: ca, subject_alt_names: [ «{}» ] }"),
    ("TG-C020", "exactly one", "client_certificate: { trusted_ca: ca, subject_alt_names: [ { uri: spiffe://a/b, «dns»: a } ] }"),
    ("TG-C014", "refused", "client_certificate: { trusted_ca: ca, subject_alt_names: [ { dns: a.example, «ip»: 10.0.0.1 } ] }"),
    ("TG-C012", "its keys are", "client_certificate: { trusted_ca: ca, subject_alt_names: [ «spiffe://a/b» ] }"),
    ("TG-C049", "the whole URI", "client_certificate: { trusted_ca: ca, subject_alt_names: [ { uri: «mesh/ns/pay» } ] }"),
    ("TG-C049", "at the end or at the beginning", "client_certificate: { trusted_ca: ca, subject_alt_names: [ { uri: «spiffe://mesh/*/pay» } ] }"),
    ("TG-C049", "at the end or at the beginning", "client_certificate: { trusted_ca: ca, subject_alt_names: [ { uri: «\"*/ns/*\"» } ] }"),
    ("TG-C049", "remove the list", "client_certificate: { trusted_ca: ca, subject_alt_names: [ { uri: «\"*\"» } ] }"),
    ("TG-C049", "remove the list", "client_certificate: { trusted_ca: ca, subject_alt_names: [ { dns: «\"*\"» } ] }"),
    ("TG-C049", "percent-encoded", "client_certificate: { trusted_ca: ca, subject_alt_names: [ { uri: «spiffe://mesh/a b» } ] }"),
    ("TG-C049", "under `uri`", "client_certificate: { trusted_ca: ca, subject_alt_names: [ { dns: «spiffe://mesh/pay» } ] }"),
    ("TG-C049", "by `dns` or `uri`", "client_certificate: { trusted_ca: ca, subject_alt_names: [ { dns: «10.0.0.1» } ] }"),
    ("TG-C030", "a wildcard is", "client_certificate: { trusted_ca: ca, subject_alt_names: [ { dns: «\"*pay.example\"» } ] }"),
    ("TG-C044", "remove one", "client_certificate: { trusted_ca: ca, subject_alt_names: [ { dns: a.example }, { dns: «A.example» } ] }"),
    ("TG-C013", "did you mean `1.2`?", "min_version: «\"1.1\"»"),
    ("TG-C013", "`1.2` or `1.3`", "min_version: «TLSv1.2»"),
    ("TG-C051", "lower `min_version`", "min_version: \"1.3\", max_version: «\"1.2\"»"),
    ("TG-C050", "did you mean `TLS_AES_128_GCM_SHA256`?", "cipher_suites: [«TLS13_AES_128_GCM_SHA256»]"),
    ("TG-C050", "did you mean `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`?", "cipher_suites: [«ECDHE-RSA-AES128-GCM-SHA256»]"),
    ("TG-C050", "there are", "cipher_suites: [«TLS_RSA_WITH_3DES_EDE_CBC_SHA»]"),
    ("TG-C050", "write a list", "cipher_suites: [«\"HIGH:!aNULL\"»]"),
    ("TG-C012", "a list", "cipher_suites: «HIGH»"),
    ("TG-C044", "remove one", "min_version: \"1.3\", cipher_suites: [TLS_AES_128_GCM_SHA256, «TLS_AES_128_GCM_SHA256»]"),
    ("TG-C051", "write `min_version: \"1.3\"`", "cipher_suites: «[TLS_AES_128_GCM_SHA256]»"),
    ("TG-C051", "write `max_version: \"1.2\"`", "cipher_suites: «[TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]»"),
    ("TG-C051", "lower `min_version`", "min_version: \"1.3\", cipher_suites: [«TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256»]"),
    ("TG-C051", "raise `max_version`", "max_version: \"1.2\", cipher_suites: [«TLS_AES_128_GCM_SHA256»]"),
    ("TG-C050", "did you mean `secp256r1`?", "groups: [«P-256»]"),
    ("TG-C050", "did you mean `X25519MLKEM768`?", "groups: [«X25519MLKEM786»]"),
    ("TG-C051", "write `min_version: \"1.3\"`", "groups: «[X25519MLKEM768]»"),
    ("TG-C051", "raise `max_version`", "max_version: \"1.2\", groups: [X25519, «X25519MLKEM768»]"),
    ("TG-C014", "refused", "alpn: [«h3», http/1.1]"),
    ("TG-C013", "protocol: tcp", "alpn: [«mqtt»]"),
    ("TG-C045", "the name of a protocol", "alpn: [«\"http 1\"»]"),
    ("TG-C044", "remove one", "alpn: [http/1.1, «http/1.1»]"),
    ("TG-C022", "protocol: tcp", "mode: permissive, server_speaks_first: «true»"),
    ("TG-C015", "write `10s`", "handshake_timeout: «10»"),
    ("TG-C017", "from `1s`", "census_window: «0s»"),
    ("TG-C034", "without `:`", "peer_header: «\"x app\"»"),
    ("TG-C014", "refused", "«early_data»: true"),
];

/// Keys of `tls` of a cluster, beside `trusted_ca: ca` where none is written.
#[rustfmt::skip]
const CLUSTER_TLS: &[Mistake] = &[
    ("TG-C046", "did you mean `ca`?", "trusted_ca: «caa»"),
    ("TG-C047", "name one of `ca`", "trusted_ca: «web»"),
    ("TG-C047", "name one of `api`, `web`", "certificate: «ca»"),
    ("TG-C022", "mode: follow_peer", "«rollout»: 20%"),
    ("TG-C015", "write `20%`", "mode: follow_peer, rollout: «20»"),
    ("TG-C017", "to `100%`", "mode: follow_peer, rollout: «120%»"),
    ("TG-C010", "did you mean `share`?", "mode: follow_peer, rollout: { «percent»: 20% }"),
    ("TG-C041", "at least one", "mode: follow_peer, rollout: { zones: «[]» }"),
    ("TG-C044", "remove one", "mode: follow_peer, rollout: { zones: [z1, «z1»] }"),
    ("TG-C041", "at least one", "mode: follow_peer, rollout: { labels: «{}» }"),
    ("TG-C012", "a map", "mode: follow_peer, rollout: { labels: «[a]» }"),
    ("TG-C045", "some text", "mode: follow_peer, rollout: { labels: { «\"\"»: a } }"),
    ("TG-C013", "did you mean `required`?", "mode: «require»"),
    ("TG-C013", "did you mean `disabled`?", "mode: «off»"),
    ("TG-C030", "subject_alt_names", "server_name: «\"*.pay.example\"»"),
    ("TG-C030", "write `pay.example`", "server_name: «pay.example:443»"),
    ("TG-C010", "did you mean `server_name`?", "«sni»: pay.example"),
    ("TG-C010", "did you mean `trusted_ca`?", "«insecure_skip_verify»: true"),
    ("TG-C010", "did you mean `resumption`?", "«proxy_ssl_session_reuse»: on"),
    ("TG-C014", "refused", "«fallback»: plaintext"),
    ("TG-C014", "refused", "alpn: [«h2»]"),
];

/// What is valid and warned of: code, help, whole file or keys of a route.
#[rustfmt::skip]
const DOUBTFUL: &[Mistake] = &[
    ("TG-C105", "shorten the one", "to: pay, timeout: 1s, retry: { per_try_timeout: «1s» }"),
    ("TG-C105", "add `per_try_timeout`", "to: pay, retry: { on: «[timeout]» }"),
    ("TG-C105", "shorten `delay`", "to: pay, timeout: 1s, hedge: { delay: «1s» }"),
    ("TG-C105", "shorten `delay`", "to: pay, retry: { per_try_timeout: 1s }, hedge: { delay: «1s» }"),
    ("TG-C105", "shorten `backoff`", "to: pay, timeout: 10ms, retry: { backoff: «10ms» }"),
    ("TG-C106", "splits use it", "«to: pay, hash: client_ip»"),
    ("TG-C103", "give it a share", "split: { pay: 100%, orders: «0%» }"),
    ("TG-C106", "use an HTTP listener", "version: 1\nlisteners: { l: { bind: 127.0.0.1:80, protocol: tcp, to: pay } }\nclusters: { «pay»: { adaptive_limit: {}, endpoints: { static: [10.0.0.1:80] } } }\n"),
];

/// Goal: each mistake is refused with its place, its code and a remedy. Method: the tables above; the
/// marked bytes must be the span of a diagnostic with the code, and nothing else may be an error.
#[test]
fn mistakes_are_found_where_they_are() {
    let mut checked = Vec::new();
    for (code, help, text) in FILES {
        checked.push(check(code, help, text, Severity::Error));
    }
    for (code, help, keys) in LISTENERS {
        let marked = if keys.contains('«') {
            "web"
        } else {
            "«web»"
        };
        let text = format!("version: 1\nlisteners: {{ {marked}: {{ {keys} }} }}\n{CLUSTERS_USED}");
        checked.push(check(code, help, &text, Severity::Error));
    }
    for (code, help, keys) in ROUTES {
        checked.push(check(code, help, &with_route(keys), Severity::Error));
    }
    for (code, help, keys) in CLUSTERS {
        let marked = if keys.contains('«') { "c" } else { "«c»" };
        let text = format!("version: 1\nclusters: {{ {marked}: {{ {keys} }} }}\n");
        checked.push(check(code, help, &text, Severity::Error));
    }
    for (code, help, keys) in SECRETS {
        let text = format!("version: 1\nsecrets: {{ {keys} }}\n");
        checked.push(check(code, help, &text, Severity::Error));
    }
    for (code, help, keys) in LISTENER_TLS {
        let needed = match keys.contains("certificates: ") {
            true => "",
            false => "certificates: web, ",
        };
        let text = format!(
            "version: 1\nlisteners: {{ l: {{ bind: 127.0.0.1:80, routes: [], tls: {{ {needed}{keys} }} }} }}\n{SECRETS_DEFINED}"
        );
        checked.push(check(code, help, &text, Severity::Error));
    }
    for (code, help, keys) in CLUSTER_TLS {
        let needed = match keys.starts_with("trusted_ca: ") {
            true => "",
            false => "trusted_ca: ca, ",
        };
        let text = format!(
            "version: 1\nclusters: {{ c: {{ endpoints: {{ static: [10.0.0.1:80] }}, tls: {{ {needed}{keys} }} }} }}\n{SECRETS_DEFINED}"
        );
        checked.push(check(code, help, &text, Severity::Error));
    }
    assert!(checked.len() >= 60, "{}", checked.len());
    let wrong: Vec<String> = checked.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Goal: what is doubtful is used, and said. Method: as above, with warnings.
#[test]
fn doubts_are_warnings() {
    for (code, help, keys) in DOUBTFUL {
        let text = match keys.starts_with("version") {
            true => (*keys).to_owned(),
            false => with_route(keys),
        };
        check(code, help, &text, Severity::Warning).unwrap();
    }
}

/// Goal: one run reports everything, in the order of the file. Method: six mistakes of all layers in one
/// file.
#[test]
fn one_run_reports_all() {
    let text = "version: 1\ndrain_timeout: 30\nlimts: {}\nlisteners:\n  web:\n    bind: localhost:80\n    \
                routes:\n      - { to: ordres, timeout: 1 }\nclusters:\n  orders: { endpoints: { static: [] } }\n";
    let found = config::parse("edge.yaml", text).unwrap_err();
    let codes: Vec<_> = found
        .iter()
        .map(|one| (one.line, one.column, one.code))
        .collect();
    let expected = [
        (2, 16, "TG-C015"),
        (3, 1, "TG-C010"),
        (6, 11, "TG-C023"),
        (8, 15, "TG-C027"),
        (8, 32, "TG-C015"),
        (10, 34, "TG-C041"),
    ];
    assert_eq!(codes, expected);
    assert_eq!(
        found[3].to_string(),
        "edge.yaml:8:15: error TG-C027: cluster `ordres` not found (did you mean `orders`?)"
    );
    assert_eq!(
        found[3].to_json()["span"]["start"],
        text.find("ordres").unwrap()
    );
}

/// Goal: columns count characters, spans count bytes. Method: a mistake behind letters of two bytes.
#[test]
fn columns_are_characters() {
    let text = "version: 1\nnode: { id: äöü, zone: [] }\n";
    let found = config::parse("edge.yaml", text).unwrap_err();
    assert_eq!((found[0].line, found[0].column), (2, 24));
    assert_eq!(&text[found[0].span.clone()], "[]");
}

const SECRETS_DEFINED: &str = "secrets: { web: { certificate: web.pem, private_key: web.key }, api: { certificate: api.pem, private_key: api.key }, ca: { trusted_ca: ca.pem } }\n";
const CLUSTERS_USED: &str = "clusters: { pay: { endpoints: { static: [10.0.0.1:80] } }, orders: { endpoints: { static: [10.0.0.2:80] } } }\n";

fn with_route(keys: &str) -> String {
    // A route without a mark of its own is pointed at as a whole.
    let item = match keys
        .strip_prefix('«')
        .and_then(|rest| rest.strip_suffix('»'))
    {
        Some(whole) if !whole.contains('«') => format!("«{{ {whole} }}»"),
        _ => format!("{{ {keys} }}"),
    };
    format!(
        "version: 1\nlisteners:\n  web:\n    bind: 127.0.0.1:80\n    routes:\n      - {item}\n{CLUSTERS_USED}"
    )
}

/// Whether `marked` brings up what it must; otherwise what it brings up.
fn check(code: &str, help: &str, marked: &str, severity: Severity) -> Result<(), String> {
    let start = marked.find('«');
    let end = marked.find('»').map(|end| end - '«'.len_utf8());
    let text = marked.replace(['«', '»'], "");
    let found = match config::parse("edge.yaml", &text) {
        Ok((_, warnings)) => warnings,
        Err(all) => all,
    };
    let wrong = |what: &str| Err(format!("{what}: {code} in\n{marked}\n{found:#?}"));
    let errors = found
        .iter()
        .filter(|one| one.severity == Severity::Error)
        .count();
    if errors != usize::from(severity == Severity::Error) {
        return wrong("number of errors");
    }
    let Some(hit) = found.iter().find(|one| one.code == code) else {
        return wrong("code");
    };
    if !hit.help.as_ref().is_some_and(|text| text.contains(help)) || hit.label.is_empty() {
        return wrong(&format!("help without `{help}`"));
    }
    let (Some(start), Some(end)) = (start, end) else {
        return Ok(());
    };
    let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[..start].matches('\n').count() + 1;
    let column = text[line_start..start].chars().count() + 1;
    if (hit.span.clone(), hit.line, hit.column) != (start..end, line, column) {
        return wrong(&format!("place, not {start}..{end}, {line}:{column}"));
    }
    Ok(())
}
