//! Several centers on etcd: who leads, who takes over, and what only the leader may write.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use common::{
    center::{Center, Folder, Reporter, ejected, node, settings},
    eventually, peer,
};
use nix::sys::signal::Signal;
use tidegate_xds::etcd::{Error, Etcd, Holder, OPERATIONS_MAX, Write};

fn etcd() -> Option<peer::Server> {
    let program = peer::program("etcd")?;
    Some(peer::Server::start(|folder, address| {
        run_etcd(&program, folder, address)
    }))
}

/// Goal: a leader that dies is replaced, nothing is lost, nothing counts twice, and the new one's epoch is
/// higher (H12). Method: two centers on one etcd; kill the leader between reports.
#[test]
fn followers_take_over() {
    let Some(etcd) = etcd() else {
        return;
    };
    let folder = Folder::new();
    let url = format!("http://{}", etcd.address);
    let anywhere = "127.0.0.1:0".parse().unwrap();
    let first = Center::start(&folder, "first", anywhere, &["--etcd", &url]);
    let second = Center::start(&folder, "second", anywhere, &["--etcd", &url]);
    assert_eq!(first.get("/ready").status, 200);
    assert_eq!(second.get("/ready").status, 503);
    let epoch = first.metric("tidegate_center_epoch");
    // The follower stands first in the list: it has to say who leads.
    let reporter = Reporter::start(settings(node("a", &[]), &[&second, &first]));
    (1..=3).for_each(|port| reporter.report(ejected(port)));
    reporter.wait_acknowledged(3);
    assert_eq!(
        reporter.status().center.as_deref(),
        Some(&*first.listen.to_string())
    );
    first.kill();
    (4..=6).for_each(|port| reporter.report(ejected(port)));
    reporter.wait_acknowledged(6);
    assert_eq!(second.get("/ready").status, 200);
    assert_eq!(second.ports("ejected", "a"), [1, 2, 3, 4, 5, 6]);
    assert!(second.metric("tidegate_center_epoch") > epoch);

    // One that was frozen for longer than its lease finds out, and follows.
    let third = Center::start(&folder, "third", anywhere, &["--etcd", &url]);
    second.signal(Signal::SIGSTOP);
    eventually("the third to lead", || {
        (third.get("/ready").status == 200).then_some(())
    });
    second.signal(Signal::SIGCONT);
    eventually("the second to follow", || {
        (second.get("/ready").status == 503).then_some(())
    });
    assert_eq!(third.ports("ejected", "a"), [1, 2, 3, 4, 5, 6]);
}

fn run_etcd(program: &Path, folder: &Path, address: SocketAddr) -> Command {
    let mut command = Command::new(program);
    let client = format!("http://{address}");
    command
        .arg("--data-dir")
        .arg(folder.join("data"))
        .args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ])
        // Alone in its cluster, it has no peers: any port will do.
        .args(["--listen-peer-urls", "http://127.0.0.1:0"])
        .args([
            "--unsafe-no-fsync",
            "--logger",
            "zap",
            "--log-level",
            "warn",
        ]);
    command
}

/// Goal: an orderly end hands the lead over at once, and a storm is stored in transactions that etcd takes
/// (H12). Method: three hundred reports at once, then SIGTERM.
#[test]
fn orderly_end_hands_over() {
    let Some(etcd) = etcd() else {
        return;
    };
    let folder = Folder::new();
    let url = format!("http://{}", etcd.address);
    let anywhere = "127.0.0.1:0".parse().unwrap();
    let mut first = Center::start(
        &folder,
        "first",
        anywhere,
        &["--etcd", &url, "--events", "50"],
    );
    let second = Center::start(
        &folder,
        "second",
        anywhere,
        &["--etcd", &url, "--events", "50"],
    );
    let mut storm = settings(node("a", &[]), &[&first, &second]);
    storm.outbox.burst = 300;
    let reporter = Reporter::start(storm);
    reporter.wait_connected();
    (1..=300).for_each(|port| reporter.report(ejected(port)));
    reporter.wait_acknowledged(300);
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait().code(), Some(0));
    reporter.report(ejected(301));
    reporter.wait_acknowledged(301);
    let nodes = second.json("/nodes");
    assert_eq!(
        (&nodes[0]["id"], &nodes[0]["reports"]),
        (&"a".into(), &301.into())
    );
    assert_eq!(second.json("/events?after=0").as_array().unwrap().len(), 50);
    assert_eq!(second.metric("tidegate_center_reports_lost_total"), 0);
}

/// Goal: one holds the key; nobody else writes, and the holder only while it holds it (H12). Method: two
/// clients, a lease given back, transactions at the limit, more records than a page.
#[test]
fn only_the_holder_writes() {
    let Some(etcd) = etcd() else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let urls = [format!("http://{}", etcd.address)];
        let client = || Etcd::new(&urls, Duration::from_secs(10)).unwrap();
        let (a, b) = (client(), client());
        let minute = Duration::from_secs(60);
        let (lease_a, lease_b) = (
            a.grant(minute).await.unwrap(),
            b.grant(minute).await.unwrap(),
        );
        let Holder::Us(since) = a.campaign("/lead", "a", lease_a).await.unwrap() else {
            panic!("nobody else was there");
        };
        let other = b.campaign("/lead", "b", lease_b).await.unwrap();
        assert_eq!(other, Holder::Other("a".into()));
        assert!(a.keep_alive(lease_a).await.unwrap());

        let put = |k: usize| Write::Put(format!("/r/{k:04}"), k.to_string());
        for part in 0..5 {
            let first = part * OPERATIONS_MAX;
            let writes: Vec<Write> = (first..first + OPERATIONS_MAX).map(put).collect();
            a.write("/lead", since, &writes).await.unwrap();
        }
        let refused = b.write("/lead", since + 1, &[put(9999)]).await;
        assert!(matches!(refused, Err(Error::NotHolder)), "{refused:?}");
        a.write("/lead", since, &[Write::Delete("/r/0000".into())])
            .await
            .unwrap();
        let records = b.range("/r/").await.unwrap();
        assert_eq!(records.len(), 5 * OPERATIONS_MAX - 1);
        assert_eq!(records[0], ("/r/0001".into(), "1".into()));
        assert!(records.is_sorted());

        a.revoke(lease_a).await.unwrap();
        assert!(!a.keep_alive(lease_a).await.unwrap());
        let Holder::Us(later) = b.campaign("/lead", "b", lease_b).await.unwrap() else {
            panic!("the lease was given back");
        };
        assert!(later > since);
        let stale = a.write("/lead", since, &[put(1)]).await;
        assert!(matches!(stale, Err(Error::NotHolder)), "{stale:?}");
    });
}
