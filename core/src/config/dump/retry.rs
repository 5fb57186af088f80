//! Further tries of a request, in words of the file.

use super::*;
use crate::config::model::{Hedge, Retry};

pub(super) fn retry(retry: &Retry) -> Object {
    let words = retry.on.words().map(|word| json!(word));
    let all_5xx = (500..=599).all(|status| retry.on.statuses.contains(&status));
    let statuses = retry
        .on
        .statuses
        .iter()
        .filter(|status| !(all_5xx && **status >= 500));
    let statuses = statuses
        .map(|status| json!(status))
        .chain(all_5xx.then(|| json!("5xx")));
    let mut object = Object::default();
    object.put("on", Value::Array(words.chain(statuses).collect()));
    object.put("times", retry.times);
    object.put("budget", format_share(retry.budget));
    object.put_opt(
        "per_try_timeout",
        retry.per_try_timeout.map(format_duration),
    );
    object.put("backoff", duration(retry.backoff));
    object.put("buffer", format_size(retry.buffer.into()));
    object
}

pub(super) fn hedge(hedge: &Hedge) -> Object {
    let mut object = Object::default();
    object.put("delay", duration(hedge.delay));
    object.put("times", hedge.times);
    object.put("budget", format_share(hedge.budget));
    object.put("unsafe_methods", hedge.unsafe_methods);
    object.put("buffer", format_size(hedge.buffer.into()));
    object
}
