//! Routes: what they do.

use super::{
    matching::{listed_twice, same_header},
    *,
};
use crate::config::model::{
    Chance, Forward, HashOn, HeaderEdits, Mirror, PathPattern, PathRewrite, RateLimit, Redirect,
    Respond, Route, RouteAction,
};
use crate::limiter::{
    Priority,
    bucket::{RATE_MAX, Rate},
};

/// Decodes one route; also says where its name stands, or where it begins.
pub(super) fn route(
    report: &Report<'_>,
    listener: &str,
    index: usize,
    node: &Node,
    defined: &Defined<'_>,
) -> (Route, Range<usize>) {
    let fields = Fields::open(report, &keys::ROUTE, node, node.span.clone());
    let matches = matching::matches(&fields.section("match", &keys::MATCH));
    let given = fields
        .text("name")
        .and_then(|text| checked_opt(report, "name", &text, syntax::name(&text.text)));
    let name = given.unwrap_or_else(|| format!("{listener}/{}", index + 1).into());
    let route = Route {
        name,
        rate_limits: rate_limits(&fields),
        global_rate_limits: global::descriptors(&fields, defined.has_rate_limit_service),
        fault: fields
            .section_opt("fault", &keys::FAULT)
            .map(|fields| Box::new(fault::fault(&fields))),
        action: action(&fields, &matches.path, &defined.clusters),
        matches,
        request_headers: header_edits(&fields.section("request_headers", &keys::HEADER_EDITS)),
        response_headers: header_edits(&fields.section("response_headers", &keys::HEADER_EDITS)),
        origin: report.origin(node.span.start).into(),
    };
    (route, fields.value_span("name"))
}

fn action(fields: &Fields<'_>, path: &PathPattern, clusters: &Names<'_>) -> RouteAction {
    let key = fields.exactly_one(&["to", "split", "redirect", "respond"]);
    if let Some("redirect" | "respond") = key {
        let why = "for a route that answers by itself";
        let help = "only `to` and `split` make use of it: remove it";
        fields.refuse(
            &[
                "timeout",
                "retry",
                "hedge",
                "grpc_statistics",
                "hash",
                "rewrite",
                "mirror",
                "subset",
                "priority",
                "request_headers",
            ],
            why,
            help,
        );
    }
    match key {
        Some("redirect") => RouteAction::Redirect(redirect(fields)),
        Some("respond") => {
            RouteAction::Respond(respond(&fields.section("respond", &keys::RESPOND)))
        }
        key => RouteAction::Forward(forward(fields, key, path, clusters)),
    }
}

fn forward(
    fields: &Fields<'_>,
    key: Option<&str>,
    path: &PathPattern,
    clusters: &Names<'_>,
) -> Forward {
    let rewrite = fields.section("rewrite", &keys::REWRITE);
    let mut to = key
        .map(|key| destinations(fields, key, clusters))
        .unwrap_or_default();
    balance::add_subset(&tls::labels(fields, "subset"), &mut to);
    let retry = retry::retry(fields);
    Forward {
        to,
        hash: hash(fields, "hash"),
        path_rewrite: path_rewrite(&rewrite, path),
        host_rewrite: rewrite.text("host").and_then(|text| {
            checked_opt(fields.report, "host", &text, syntax::authority(&text.text))
        }),
        timeout: fields.duration_or_off("timeout"),
        hedge: retry::hedge(fields, retry.as_ref()),
        grpc_statistics: fields.flag("grpc_statistics"),
        retry,
        mirrors: mirrors(fields, clusters),
        priority: match fields.word("priority") {
            Some("exempt") => None,
            word => word.and_then(|word| Priority::of(word.as_bytes())),
        },
    }
}

fn mirrors(fields: &Fields<'_>, clusters: &Names<'_>) -> Vec<Mirror> {
    fields.refuse_empty("mirror");
    let items = fields.list("mirror");
    let read = items.iter().filter_map(|node| {
        let one = Fields::open(fields.report, &keys::MIRROR, node, node.span.clone());
        let (share, host_suffix) = (one.share("share"), one.flag("host_suffix"));
        let name = one.text("to")?;
        check_cluster(fields.report, &name, clusters);
        Some(Mirror {
            cluster: name.text.into(),
            chance: Chance::of_share(share),
            host_suffix,
        })
    });
    read.collect()
}

fn rate_limits(fields: &Fields<'_>) -> Vec<RateLimit> {
    fields.refuse_empty("rate_limits");
    let items = fields.list("rate_limits");
    let open = |node| Fields::open(fields.report, &keys::RATE_LIMIT, node, node.span.clone());
    items.iter().map(|node| rate_limit(&open(node))).collect()
}

fn rate_limit(fields: &Fields<'_>) -> RateLimit {
    let requests = fields.integer("requests");
    let rate = Rate {
        requests,
        per: fields.duration("per"),
        burst: fields.integer_or_off("burst").unwrap_or(requests),
    };
    let per_second = u128::from(requests) * 1_000_000_000 / rate.per.as_nanos().max(1);
    if per_second > u128::from(RATE_MAX) {
        let message = format!("more than {RATE_MAX} requests a second are no limit");
        let problem = Problem::new(codes::RANGE, fields.value_span("requests"), message);
        let help = "lower `requests`, or lengthen `per`";
        fields.report.add(problem.label("too fast").help(help));
    }
    let by = hash(fields, "by");
    if by.is_none() {
        fields.refuse(
            &["keys"],
            "without `by`",
            "the route has one bucket: remove it, or add `by: client_ip`",
        );
    }
    RateLimit {
        mode: cluster::mode(fields),
        rate,
        keys: match by {
            Some(_) => fields.integer("keys"),
            None => 1,
        },
        by,
    }
}

/// `client_ip`, or a map that says what of the request.
pub(super) fn hash(fields: &Fields<'_>, key: &str) -> Option<HashOn> {
    let entry = fields.entry(key)?;
    if !matches!(entry.value.value, Value::Map(_)) {
        return fields.word(key).map(|_| HashOn::ClientIp);
    }
    let fields = fields.section(key, &keys::HASH);
    let key = fields.exactly_one(&["header", "cookie", "query"])?;
    let text = fields.text(key)?;
    match key {
        "header" => checked_opt(fields.report, key, &text, syntax::header_name(&text.text))
            .map(HashOn::Header),
        "cookie" if !syntax::is_token(&text.text) => {
            let help = "write the cookie's name alone (RFC 6265, 4.1.1)";
            fields::malformed(
                fields.report,
                codes::TEXT,
                key,
                &text,
                "not a cookie name",
                help,
            );
            None
        }
        "cookie" => Some(HashOn::Cookie(text.text.into())),
        _ if text.text.is_empty() => {
            fields::malformed(
                fields.report,
                codes::TEXT,
                key,
                &text,
                "is empty",
                "write the parameter's name",
            );
            None
        }
        _ => Some(HashOn::Query(text.text.into())),
    }
}

fn path_rewrite(fields: &Fields<'_>, matched: &PathPattern) -> Option<PathRewrite> {
    let key = fields.at_most_one(&["path", "prefix", "regex"]);
    if !fields.has("regex") {
        fields.refuse(
            &["replacement"],
            "without `regex`",
            "add `regex`, or use `path` or `prefix`",
        );
    }
    let key = key?;
    let text = fields.text(key)?;
    match key {
        "path" => {
            let path = checked_opt(fields.report, key, &text, syntax::path(&text.text))?;
            Some(PathRewrite::Full(path))
        }
        "prefix" => {
            if !matches!(matched, PathPattern::Prefix(_) | PathPattern::Any) {
                let help = "write the route's path as `/a/**`, or use `path` or `regex`";
                fields::malformed(
                    fields.report,
                    codes::REWRITE,
                    key,
                    &text,
                    "the route matches no prefix",
                    help,
                );
            }
            let prefix = checked_opt(fields.report, key, &text, syntax::path(&text.text))?;
            Some(PathRewrite::Prefix(prefix))
        }
        _ => regex_rewrite(fields, text),
    }
}

fn regex_rewrite(fields: &Fields<'_>, pattern: Text) -> Option<PathRewrite> {
    let valid = checked_opt(
        fields.report,
        "regex",
        &pattern,
        syntax::rewrite_regex(&pattern.text),
    );
    let Some(replacement) = fields.text("replacement") else {
        if !fields.has("replacement") {
            let message = "`regex` needs a `replacement`";
            let problem = Problem::new(codes::MISSING_KEY, fields.key_span("regex"), message);
            fields.report.add(
                problem
                    .label("no `replacement`")
                    .help("add `replacement: /…`, with `$1` for a group"),
            );
        }
        return None;
    };
    valid?;
    if let Some(group) = syntax::unknown_group(&pattern.text, &replacement.text) {
        let why = format!("there is no group `{group}`");
        let help = "groups are `$1` or `${name}`; put braces around one that letters or digits follow, `${1}x`; a dollar sign is `$$`";
        fields::malformed(
            fields.report,
            codes::REWRITE,
            "replacement",
            &replacement,
            &why,
            help,
        );
    }
    let visible = |byte: u8| matches!(byte, 0x21..=0x7e) && byte != b'#' && byte != b'?';
    if !replacement.text.bytes().all(visible) {
        let help = "percent-encode it: a space is `%20`; the query stays as it is";
        fields::malformed(
            fields.report,
            codes::REWRITE,
            "replacement",
            &replacement,
            "not part of a path",
            help,
        );
    }
    Some(PathRewrite::Regex {
        pattern: pattern.text.into(),
        replacement: replacement.text.into(),
    })
}

fn redirect(fields: &Fields<'_>) -> Redirect {
    let scalar = fields
        .entry("redirect")
        .filter(|entry| matches!(entry.value.value, Value::Scalar { .. }));
    if scalar.is_some() {
        let text = fields.text("redirect").unwrap_or_default();
        let none = Redirect {
            status: FOUND,
            scheme: None,
            host: None,
            path: None,
            strip_query: false,
        };
        return checked_opt(fields.report, "redirect", &text, redirect_url(&text.text))
            .unwrap_or(none);
    }
    let fields = fields.section("redirect", &keys::REDIRECT);
    if !["scheme", "host", "path"].iter().any(|key| fields.has(key)) {
        let message = "the redirect changes neither scheme, host nor path";
        let problem = Problem::new(codes::REDIRECT, fields.at.clone(), message);
        fields.report.add(
            problem
                .label("leads back to itself")
                .help("add `scheme: https`, `host` or `path`"),
        );
    }
    let part = |key: &'static str, parse: fn(&str) -> Result<Arc<str>, Fault>| {
        fields
            .text(key)
            .and_then(|text| checked_opt(fields.report, key, &text, parse(&text.text)))
    };
    Redirect {
        status: fields.integer("status"),
        scheme: fields
            .has("scheme")
            .then(|| fields.word("scheme"))
            .flatten()
            .map(Arc::from),
        host: part("host", syntax::authority),
        path: part("path", syntax::path_and_query),
        strip_query: fields.flag("strip_query"),
    }
}

/// 302: the status of a redirect that names none.
const FOUND: u16 = 302;

/// A redirect in short: `https://host:port/path`, `https://host` or `/path`.
fn redirect_url(text: &str) -> Result<Redirect, Fault> {
    let mut redirect = Redirect {
        status: FOUND,
        scheme: None,
        host: None,
        path: None,
        strip_query: false,
    };
    let rest = match text.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => {
            redirect.scheme = Some(scheme.into());
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (host, path) = rest.split_at(end);
            redirect.host = Some(syntax::authority(host)?);
            path
        }
        None if text.starts_with('/') => text,
        _ => {
            return Err(Fault {
                code: codes::REDIRECT,
                why: "neither a URL nor a path".to_owned(),
                help: "write `https://host/path`, `/path`, or a map such as `{ scheme: https }`"
                    .to_owned(),
            });
        }
    };
    if !rest.is_empty() {
        redirect.path = Some(syntax::path_and_query(rest)?);
    }
    Ok(redirect)
}

fn respond(fields: &Fields<'_>) -> Respond {
    let status: u16 = fields.integer("status");
    let body = fields.text("body").unwrap_or_default();
    // RFC 9110, 15.3.5, 15.3.6 and 15.4.5: these have no content.
    if matches!(status, 204 | 205 | 304) && !body.text.is_empty() {
        let message = format!("an answer with status {status} has no body");
        let problem = Problem::new(codes::STATUS, body.span.clone(), message);
        fields.report.add(
            problem
                .label("would not be sent")
                .help("remove the body, or answer with 200"),
        );
    }
    let content_type = fields.text("content_type").unwrap_or_default();
    let type_value = syntax::header_value(&content_type.text);
    let type_value = checked(
        fields.report,
        "content_type",
        &content_type,
        type_value.map(|value| value.to_string()),
    );
    if !type_value.is_empty() && !type_value.contains('/') {
        let help = "write a media type such as `text/plain` or `application/json`";
        fields::malformed(
            fields.report,
            codes::HEADER_VALUE,
            "content_type",
            &content_type,
            "not a media type",
            help,
        );
    }
    Respond {
        status,
        body: body.text.into(),
        content_type: type_value.into(),
    }
}

fn header_edits(fields: &Fields<'_>) -> HeaderEdits {
    let kind = Kind::Text("a header name", 255);
    let mut remove: Vec<Arc<str>> = Vec::new();
    for text in texts(fields, "remove", &kind, &fields.list("remove")) {
        let parsed = syntax::edited_header_name(&text.text);
        let Some(name) = checked_opt(fields.report, "remove", &text, parsed) else {
            continue;
        };
        match remove.contains(&name) {
            true => listed_twice(fields.report, "remove", &text),
            false => remove.push(name),
        }
    }
    HeaderEdits {
        remove,
        set: header_lines(fields, "set"),
        append: header_lines(fields, "append"),
    }
}

fn header_lines(fields: &Fields<'_>, key: &'static str) -> Vec<(Arc<str>, Arc<str>)> {
    let mut lines: Vec<(Arc<str>, Arc<str>)> = Vec::new();
    for entry in fields.map(key) {
        let text = Text {
            text: entry.key.clone(),
            span: entry.key_span.clone(),
        };
        let parsed = syntax::edited_header_name(&text.text);
        let name = checked_opt(fields.report, key, &text, parsed);
        let kind = Kind::Text("text", keys::TEXT_MAX);
        let value = fields::read_text(fields.report, &entry.key, &entry.value, &kind);
        let value = value.and_then(|value| {
            checked_opt(
                fields.report,
                &entry.key,
                &value,
                syntax::header_value(&value.text),
            )
        });
        let (Some(name), Some(value)) = (name, value) else {
            continue;
        };
        if lines.iter().any(|(other, _)| *other == name) {
            same_header(fields.report, &text);
        }
        lines.push((name, value));
    }
    lines.sort();
    lines
}
