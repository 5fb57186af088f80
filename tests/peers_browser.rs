//! The pages of the admin server and of the center in a browser: what they show, at the width of a desktop
//! and of a phone, in light and in dark.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use common::{
    Origin, Proxy,
    browser::Look,
    center::{Center, Folder, Reporter, ejected, endpoint, node, settings},
};

/// Ends a load, whatever becomes of the test.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Goal: the dashboard shows what happens while it happens. Method: a proxy with a limiter, healing and one
/// endpoint that is refused, under load; every panel says its part.
#[test]
fn the_dashboard_lives() {
    let good = Origin::echo();
    let bad = Origin::saying("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
    let proxy = Proxy::start(format!(
        "listeners: {{ web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }} }}\n\
         clusters:\n  app: {{ endpoints: {{ static: [\"{good}\", \"{bad}\"] }}, heal: {{}}, adaptive_limit: {{}} }}\n"
    ));
    let done = AtomicBool::new(false);
    let views = thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = proxy.client();
            while !done.load(Ordering::Relaxed) {
                client.get("/");
            }
        });
        let look = Look {
            url: format!("http://{}/", proxy.admin()),
            until: "document.getElementById('state').textContent === 'ready' \
                    && /^[1-9]/.test(document.getElementById('rps').textContent) \
                    && document.getElementById('healing').textContent.includes('ejected') \
                    && document.getElementById('limits').rows.length > 0"
                .to_owned(),
            click: None,
        };
        let _end = End(&done);
        look.views()
    });
    for view in views.into_iter().flatten() {
        let shown = |word: &str| {
            assert!(
                view.text.contains(word),
                "{word} at {}: {}",
                view.width,
                view.text
            );
        };
        for word in [
            "ready",
            "requests/s",
            "shard 0",
            "watermark",
            "web",
            "app",
            "ejected",
        ] {
            shown(word);
        }
        shown(&good.to_string());
        shown(&bad.to_string());
    }
}

/// Goal: who watches the center sees the evidence and can overrule it (H5). Method: a report of an ejection
/// that is not enough for a verdict; its button is pressed.
#[test]
fn the_center_is_used_by_hand() {
    let folder = Folder::new();
    let center = Center::anywhere(&folder, &["--quorum", "9"]);
    let reporter = Reporter::start(settings(node("a", &[]), &[&center]));
    reporter.report(ejected(80));
    reporter.wait_acknowledged(1);
    let look = Look {
        url: format!("http://{}/", center.admin),
        until: "document.getElementById('events').textContent.includes('failures_in_row')"
            .to_owned(),
        click: Some("#endpoints button"),
    };
    let Some(views) = look.views() else { return };
    for view in views {
        for word in [
            &*endpoint(80).to_string(),
            "failures_in_row",
            "leading",
            "up",
        ] {
            assert!(
                view.text.contains(word),
                "{word} at {}: {}",
                view.width,
                view.text
            );
        }
    }
    assert_eq!(center.json("/endpoints")[0]["verdict"], "sick");
    let order = reporter.orders.recv_timeout(common::PATIENCE).unwrap();
    assert_eq!(order.directive.action.word(), "confirm");
}
