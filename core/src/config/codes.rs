//! The stable codes of diagnostics: one table, from which the reference page is generated and whose
//! every example is checked to produce its code.

use super::diagnostic::Severity::{self, Error, Warning};

/// A code and its explanation.
#[derive(Debug)]
pub struct Code {
    /// `TG-Cnnn`; never given to another mistake.
    pub id: &'static str,
    /// Whether it keeps the configuration from being used.
    pub severity: Severity,
    /// A few words.
    pub title: &'static str,
    /// What it means and what to do, one or two sentences.
    pub explanation: &'static str,
    /// A file that has this mistake; empty where a file would be too long or could not be printed.
    pub example: &'static str,
}

macro_rules! codes {
    ($($name:ident $id:literal $severity:ident $title:literal $explanation:literal $example:expr;)*) => {
        $(pub(super) static $name: &Code = &Code {
            id: $id,
            severity: $severity,
            title: $title,
            explanation: $explanation,
            example: $example,
        };)*
        /// All codes, ascending.
        pub static CODES: &[&Code] = &[$($name),*];
    };
}

codes! {
    SYNTAX "TG-C001" Error "Not valid YAML"
        "The text cannot be read as YAML 1.2. Nothing behind the place was looked at."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80\n";
    ENCODING "TG-C002" Error "Not UTF-8"
        "A configuration is UTF-8 text."
        "";
    TOO_LARGE "TG-C003" Error "File too large"
        "A configuration has at most 16 MiB, so that no file can exhaust the memory of the process that reads it."
        "";
    TOO_DEEP "TG-C004" Error "Nested too deeply"
        "Maps and lists are nested at most 32 levels deep, followed aliases included. The format itself needs 8."
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[ ]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n";
    TOO_MANY_NODES "TG-C005" Error "Too many values"
        "A configuration has at most 4,000,000 keys and values, counted after aliases are followed, so that a few lines of aliases cannot stand for billions of values."
        "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f,*f]\n";
    ALIAS "TG-C006" Error "Alias without anchor"
        "A plain value that begins with `*` is a YAML alias. Wildcards are written in quotes: `\"*.example\"`."
        "version: 1\nlisteners:\n  web:\n    bind: 127.0.0.1:80\n    routes:\n      - { match: { host: *.example }, respond: { status: 200 } }\n";
    YAML_FEATURE "TG-C007" Error "YAML feature that is not supported"
        "Tags (`!!int`), merge keys (`<<`) and several documents in one file are refused. Anchors and aliases work."
        "version: !!int 1\n";
    DUPLICATE_KEY "TG-C008" Error "Key written twice"
        "A map holds each key once: neither would win over the other. Header names are compared without case."
        "version: 1\nversion: 1\n";
    EMPTY "TG-C009" Error "Empty file"
        "An empty file is a mistake more often than a wish; it never stands for a default."
        "# nothing but a comment\n";
    UNKNOWN_KEY "TG-C010" Error "Unknown key"
        "The key does not exist at this place. Unknown keys are never ignored, since a misspelt limit is no limit."
        "version: 1\nlistners: {}\n";
    MISSING_KEY "TG-C011" Error "Missing key"
        "A key that has no default is absent."
        "version: 1\nlisteners: { web: { routes: [] } }\n";
    TYPE "TG-C012" Error "Wrong type"
        "A value of another type stands where a map, a list, a number or text is expected. Numbers are written without quotes."
        "version: 1\nlisteners: [web]\n";
    UNKNOWN_VALUE "TG-C013" Error "Unknown value"
        "The key takes one of a few words, and this is none of them."
        "version: 1\nclusters: { pay: { endpoints: { static: [10.0.0.1:80] }, balance: fastest } }\n";
    UNAVAILABLE "TG-C014" Error "Not available in this version"
        "The key or value belongs to the format, and this version does not implement it yet. It is refused rather than ignored."
        "version: 1\nlisteners: { web: { bind: 0.0.0.0:80, adaptive_limit: {}, routes: [] } }\n";
    UNIT "TG-C015" Error "Unit missing"
        "Durations, sizes and percentages carry a unit: `800ms`, `64KiB`, `20%`. A bare number would mean seconds to one reader and milliseconds to the next."
        "version: 1\ndrain_timeout: 30\n";
    QUANTITY "TG-C016" Error "Malformed quantity"
        "The value is not a duration (`us`, `ms`, `s`, `m`, `h`), a size (`B`, `KiB`, `MiB`, `GiB`, `TiB`), a percentage or a whole number."
        "version: 1\ndrain_timeout: 30sec\n";
    RANGE "TG-C017" Error "Out of range"
        "The value lies outside of what makes sense. The bounds stand in the message and in the reference."
        "version: 1\ndrain_timeout: 100h\n";
    POWER_OF_TWO "TG-C018" Error "Not a power of two"
        "Sizes of rings are powers of two, as the kernel wants them."
        "version: 1\nshards: { ring: { submission_entries: 1000 } }\n";
    VERSION "TG-C019" Error "Unsupported format version"
        "This version of Tidegate reads format `1`."
        "version: 2\n";
    EXCLUSIVE "TG-C020" Error "Keys that exclude each other"
        "Two keys are present of which only one can hold."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80, routes: [ { to: a, respond: { status: 200 } } ] } }\nclusters: { a: { endpoints: { static: [10.0.0.1:80] } } }\n";
    ONE_OF "TG-C021" Error "None of several keys"
        "One of several keys has to be present, and none is."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80, routes: [ { match: { path: / } } ] } }\n";
    NOT_HERE "TG-C022" Error "Key that does not apply here"
        "The key exists, and has no meaning beside the others: HTTP keys of a TCP listener, a time-out of a route that answers by itself."
        "version: 1\nlisteners: { db: { bind: 127.0.0.1:5432, protocol: tcp, to: db, routes: [] } }\nclusters: { db: { endpoints: { static: [10.0.0.1:5432] } } }\n";
    ADDRESS "TG-C023" Error "Malformed address"
        "Addresses are `IP:PORT`, IPv6 in brackets and quotes: `\"[::1]:80\"`. Names are looked up only where the key is `dns`."
        "version: 1\nclusters: { pay: { endpoints: { static: [pay.internal:80] } } }\n";
    NAME "TG-C024" Error "Malformed name"
        "Names of listeners, clusters and routes go into metrics and URLs: letters, digits and `_ . - : /`, at most 128."
        "version: 1\nclusters: { \"pay v2\": { endpoints: { static: [10.0.0.1:80] } } }\n";
    DUPLICATE_NAME "TG-C025" Error "Name used twice"
        "Route names are unique within a listener, since counters and diagnostics go by them. A route without a name is called `<listener>/<position>`."
        "version: 1\nlisteners:\n  web:\n    bind: 127.0.0.1:80\n    routes:\n      - { name: a, match: { path: /1 }, respond: { status: 200 } }\n      - { name: a, match: { path: /2 }, respond: { status: 200 } }\n";
    DUPLICATE_BIND "TG-C026" Error "Address used twice"
        "Two listeners, or a listener and the admin server, want the same address and port. `0.0.0.0` and `[::]` hold every address of their port. With port 0, which stands for any free port, two listeners need two addresses: they are told apart by what is written."
        "version: 1\nadmin: off\nlisteners:\n  a: { bind: 127.0.0.1:80, routes: [] }\n  b: { bind: 0.0.0.0:80, routes: [] }\n";
    NO_CLUSTER "TG-C027" Error "Cluster not found"
        "A route or a TCP listener names a cluster that is not defined under `clusters`."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80, routes: [ { to: ordres } ] } }\nclusters: { orders: { endpoints: { static: [10.0.0.1:80] } } }\n";
    SPLIT_SUM "TG-C028" Error "Split is not 100 %"
        "The shares of a split sum to exactly 100 %. Shares have at most two decimals."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80, routes: [ { split: { a: 90%, b: 20% } } ] } }\nclusters: { a: { endpoints: { static: [10.0.0.1:80] } }, b: { endpoints: { static: [10.0.0.2:80] } } }\n";
    ADMIN_OPEN "TG-C029" Error "Admin server open to the network"
        "The admin server can stop the proxy and has no authentication in this version: it binds to loopback only."
        "version: 1\nadmin: 0.0.0.0:9901\n";
    HOST "TG-C030" Error "Malformed host"
        "A host is a name or an address without scheme, port and path: `pay.example`, `\"*.example\"`, `pay.*`, `\"[::1]\"`. A wildcard replaces whole labels at one end."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80, routes: [ { match: { host: \"pay.example:443\" }, respond: { status: 200 } } ] } }\n";
    PATH "TG-C031" Error "Malformed path"
        "A path begins with `/` and is one of `/exact`, `/prefix/**`, `/template/{id}` or, after `~`, a regular expression. It holds no query, no fragment and nothing that would have to be percent-encoded."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80, routes: [ { match: { path: transfer/** }, respond: { status: 200 } } ] } }\n";
    REGEX "TG-C032" Error "Malformed regular expression"
        "The expression cannot be compiled, or is larger than the limit for one. Look-around and back-references do not exist: every match takes linear time."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80, routes: [ { match: { path: \"~/a(b\" }, respond: { status: 200 } } ] } }\n";
    METHOD "TG-C033" Error "Malformed method"
        "A method is a token, and case-sensitive: `GET`, not `get`."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80, routes: [ { match: { method: get }, respond: { status: 200 } } ] } }\n";
    HEADER_NAME "TG-C034" Error "Malformed header name"
        "A header name is a token (RFC 9110, 5.1): letters, digits and `! # $ % & ' * + - . ^ _ | ~`."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80, routes: [ { match: { header: { \"x canary\": \"1\" } }, respond: { status: 200 } } ] } }\n";
    HEADER_VALUE "TG-C035" Error "Malformed header value"
        "A header value holds no control characters and neither begins nor ends with a space (RFC 9110, 5.5)."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80, routes: [ { response_headers: { set: { x-a: \"1\\r\\n2\" } }, respond: { status: 200 } } ] } }\n";
    HEADER_RESERVED "TG-C036" Error "Header that the proxy owns"
        "Framing and connection headers are the proxy's own: edits would let requests be smuggled. `Host` is changed by `rewrite: { host: … }`."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80, routes: [ { response_headers: { remove: [content-length] }, respond: { status: 200 } } ] } }\n";
    STATUS "TG-C037" Error "Status that does not fit"
        "The status does not go with what stands beside it, or a list of statuses holds something else."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80, routes: [ { respond: { status: 204, body: gone } } ] } }\n";
    REDIRECT "TG-C038" Error "Malformed redirect"
        "A redirect is `http://…`, `https://…`, a path, or a map that changes the scheme, the host or the path; one that changes nothing would send the client round for ever."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80, routes: [ { redirect: { status: 301 } } ] } }\n";
    REWRITE "TG-C039" Error "Rewrite that does not fit"
        "A prefix is replaced only where the route matches one (`path: /a/**`); a replacement refers only to groups of its expression, as `$1` or `${name}`."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80, routes: [ { match: { path: /a }, to: a, rewrite: { prefix: /b } } ] } }\nclusters: { a: { endpoints: { static: [10.0.0.1:80] } } }\n";
    CPUS "TG-C040" Error "Malformed CPU list"
        "CPUs are written as the kernel writes them: `0-3,8,10-11`, ascending or not, each once."
        "version: 1\nshards: { cpus: 3-1 }\n";
    EMPTY_LIST "TG-C041" Error "Empty list"
        "A list or map that has to hold something is empty."
        "version: 1\nclusters: { pay: { endpoints: { static: [] } } }\n";
    TOO_MANY "TG-C042" Error "Too many"
        "A list or map is longer than its limit."
        "";
    TOO_LONG "TG-C043" Error "Text too long"
        "A text is longer than its limit."
        "";
    DUPLICATE "TG-C044" Error "Listed twice"
        "A list names the same thing twice."
        "version: 1\nclusters: { pay: { endpoints: { static: [10.0.0.1:80, 10.0.0.1:80] } } }\n";
    TEXT "TG-C045" Error "Malformed text"
        "The text holds characters that it cannot hold here, such as control characters."
        "version: 1\nnode: { id: \"a\\nb\" }\n";
    NO_SECRET "TG-C046" Error "Secret not found"
        "A listener or a cluster names a secret that is not defined under `secrets`. Files are named there, and nowhere else."
        "version: 1\nlisteners: { web: { bind: 0.0.0.0:443, tls: { certificates: wbe }, routes: [] } }\nsecrets: { web: { certificate: web.pem, private_key: web.key } }\n";
    SECRET_KIND "TG-C047" Error "Secret of the wrong kind"
        "A secret is either a certificate with its key or authorities that are trusted, and here the other one is needed."
        "version: 1\nlisteners: { web: { bind: 0.0.0.0:443, tls: { certificates: ca }, routes: [] } }\nsecrets: { ca: { trusted_ca: ca.pem } }\n";
    SECRET_INLINE "TG-C048" Error "Secret inside of the configuration"
        "A configuration holds paths of secrets, never secrets: it is shown, compared and logged."
        "version: 1\nsecrets: { ca: { trusted_ca: \"-----BEGIN CERTIFICATE-----\" } }\n";
    SUBJECT_ALT_NAME "TG-C049" Error "Malformed subject alternative name"
        "A name in a certificate is a URI with its scheme, or a DNS name; one `*` stands at its end or at its beginning. A list that takes everything is left out instead."
        "version: 1\nclusters: { pay: { endpoints: { static: [10.0.0.1:443] }, tls: { trusted_ca: ca, subject_alt_names: [ { uri: pay.example } ] } } }\nsecrets: { ca: { trusted_ca: ca.pem } }\n";
    TLS_NAME "TG-C050" Error "Cipher suite or group that does not exist"
        "Suites and groups go by their IANA names, and only those with forward secrecy and authenticated encryption exist."
        "version: 1\nclusters: { pay: { endpoints: { static: [10.0.0.1:443] }, tls: { trusted_ca: ca, groups: [prime256v1] } } }\nsecrets: { ca: { trusted_ca: ca.pem } }\n";
    TLS_VERSIONS "TG-C051" Error "TLS versions that do not go together"
        "The lowest version is above the highest, a suite or a group belongs to a version that is not allowed, or one that is allowed has none."
        "version: 1\nclusters: { pay: { endpoints: { static: [10.0.0.1:443] }, tls: { trusted_ca: ca, min_version: \"1.3\", max_version: \"1.2\" } } }\nsecrets: { ca: { trusted_ca: ca.pem } }\n";
    SECRET_FILE "TG-C052" Error "Secret that cannot be used"
        "The file of a secret is missing, may not be read, or does not hold what it should: a certificate with its key, in time, whose chain builds; or authorities. Nothing of what it holds is shown."
        "";
    STEERING "TG-C060" Error "Steering rule that cannot be meant"
        "It names what is not there, shares that do not sum to 100 %, a share that a server has anyway, or a move that could lead back. What it says is not done in part."
        "version: 1\nclusters: { a: { endpoints: { static: [10.0.0.1:80] } } }\nsteering: { applications: { pay: { units: { u1: a } } }, rules: [ { id: r, owner: o, match: { application: pay }, split: { u1: 90% } } ] }\n";
    MORE "TG-C099" Error "More diagnostics than shown"
        "At most 64 are reported at once."
        "";
    UNREACHABLE "TG-C101" Warning "Route that nothing reaches"
        "An earlier route takes every request that this one would match. Within a host the first match wins."
        "version: 1\nlisteners:\n  web:\n    bind: 127.0.0.1:80\n    routes:\n      - { match: { path: /** }, respond: { status: 200 } }\n      - { match: { path: /a }, respond: { status: 404 } }\n";
    UNUSED_CLUSTER "TG-C102" Warning "Cluster that nothing uses"
        "No route and no TCP listener sends anything to it."
        "version: 1\nclusters: { pay: { endpoints: { static: [10.0.0.1:80] } } }\n";
    ZERO_WEIGHT "TG-C103" Warning "Weight of zero"
        "An endpoint with weight 0 is left out, a cluster with 0 % of a split gets nothing."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80, routes: [ { split: { a: 100%, b: 0% } } ] } }\nclusters: { a: { endpoints: { static: [10.0.0.1:80] } }, b: { endpoints: { static: [10.0.0.2:80] } } }\n";
    NEVER_BINDS "TG-C104" Warning "Limit that never binds"
        "Another limit is always reached first."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80, limits: { target: 32KiB, header_list: 16KiB }, routes: [] } }\n";
    CONTRADICTION "TG-C105" Warning "Time-outs that contradict each other"
        "One time-out ends before the other can."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80, routes: [ { to: a, timeout: 1s, retry: { on: [timeout], per_try_timeout: 2s } } ] } }\nclusters: { a: { endpoints: { static: [10.0.0.1:80] } } }\n";
    NO_EFFECT "TG-C106" Warning "Setting without effect"
        "The setting is valid, and nothing beside it makes use of it."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80, routes: [ { to: a, hash: client_ip } ] } }\nclusters: { a: { endpoints: { static: [10.0.0.1:80] } } }\n";
    NO_HASH "TG-C107" Warning "Nothing to hash"
        "The cluster is balanced by hash, and the route that leads to it hashes nothing: requests are spread by chance."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80, routes: [ { to: a } ] } }\nclusters: { a: { endpoints: { static: [10.0.0.1:80] }, balance: maglev } }\n";
    NO_LISTENER "TG-C108" Warning "Nothing listens"
        "No listener is defined: the proxy would run and serve nobody."
        "version: 1\n";
    EMPTY_ROUTES "TG-C109" Warning "Listener without routes"
        "Every request is answered with 404."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80, routes: [] } }\n";
    UNUSED_SECRET "TG-C110" Warning "Secret that nothing uses"
        "No listener and no cluster refers to it."
        "version: 1\nsecrets: { ca: { trusted_ca: ca.pem } }\n";
    WILDCARD "TG-C111" Warning "Wildcard inside of a segment"
        "The pattern takes more names than it seems to: `spiffe://mesh/ns/pay*` takes `spiffe://mesh/ns/payroll`, too."
        "version: 1\nclusters: { pay: { endpoints: { static: [10.0.0.1:443] }, tls: { trusted_ca: ca, subject_alt_names: [ { uri: \"spiffe://mesh/ns/pay*\" } ] } } }\nsecrets: { ca: { trusted_ca: ca.pem } }\n";
    NEVER_ENCRYPTED "TG-C112" Warning "Link that is never encrypted"
        "The cluster follows what its endpoints announce, and these announce nothing: names that are looked up carry addresses alone."
        "version: 1\nclusters: { pay: { endpoints: { dns: \"pay.internal:443\" }, tls: { mode: follow_peer, trusted_ca: ca } } }\nsecrets: { ca: { trusted_ca: ca.pem } }\n";
    NAMED_BY_ADDRESS "TG-C113" Warning "Certificates by address"
        "The endpoints are listed by address and no name is asked of their certificates, so each must name its own IP address. Few do; the handshakes of the others fail."
        "version: 1\nclusters: { pay: { endpoints: { static: [10.0.0.1:443] }, tls: { trusted_ca: ca } } }\nsecrets: { ca: { trusted_ca: ca.pem } }\n";
    NOT_NAMED "TG-C120" Warning "Route to an exclusive group"
        "The group gets only what steering rules name it for. What a route leads there is refused, unless a trusted peer has sent it; right in front of the group's own instances, wrong elsewhere."
        "version: 1\nlisteners: { web: { bind: 127.0.0.1:80, routes: [ { to: a } ] } }\nclusters: { a: { endpoints: { static: [10.0.0.1:80] } } }\nsteering: { applications: { pay: { groups: { g: { cluster: a, exclusive: true } } } } }\n";
}

/// `docs/reference/config-errors.md`: every code, its meaning and an example.
pub fn errors_reference() -> String {
    let mut page = String::from(
        "# Configuration errors\n\n\
         <!-- Generated from core/src/config/codes.rs. -->\n\n\
         Codes below `TG-C100` are errors: the configuration is refused, and the running one stays.\n\
         The others are warnings: the configuration is used, and probably does not do what was meant.\n",
    );
    for code in CODES {
        page.push_str(&format!(
            "\n## {}\n\n**{}** ({}). {}\n",
            code.id,
            code.title,
            code.severity.as_str(),
            code.explanation
        ));
        if !code.example.is_empty() {
            page.push_str(&format!("\n```yaml\n{}```\n", code.example));
        }
    }
    page
}
