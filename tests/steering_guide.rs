//! The worked example of docs/steering.md is run: its configuration, its commands, and what it says comes of them.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::{fs, process::Command};

use common::{Origin, Proxy};

const GUIDE: &str = include_str!("../docs/steering.md");

/// The blocks of the guide in this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let opening = format!("```{language}\n");
    let blocks = GUIDE.split(&*opening).skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

/// The lines of the guide that begin with this, without it.
fn commands(beginning: &str) -> Vec<&'static str> {
    GUIDE
        .lines()
        .filter_map(|line| line.strip_prefix(beginning))
        .collect()
}

/// Goal: who follows the guide sees what it says. Method: its file, with addresses of this machine; its requests, its
/// explanation and its commands in order.
#[test]
fn the_guide_is_true() {
    let origins = ["unit1", "unit2", "transfers"].map(|name| (name, Origin::named(name)));
    let mut config = blocks("yaml")[0]
        .replace("version: 1\n", "")
        .replace("admin: 127.0.0.1:9901\n", "");
    config = config.replace("127.0.0.1:8080", "127.0.0.1:0");
    for ((_, origin), address) in
        origins
            .iter()
            .zip(["10.1.0.1:8080", "10.2.0.1:8080", "10.3.0.1:8080"])
    {
        assert!(config.contains(address));
        config = config.replace(address, &format!("\"{origin}\""));
    }
    let proxy = Proxy::start(&config);
    let get = |path: &str, headers: &str| {
        proxy.client().exchange(format!(
            "GET {path} HTTP/1.1\r\nHost: pay.example\r\n{headers}\r\n"
        ))
    };
    assert_eq!(get("/", "").text(), "unit1");
    assert_eq!(get("/", "X-Colour: green\r\n").text(), "unit2");
    let moved = get("/pay.Transfer/Create", "");
    assert_eq!(moved.text(), "transfers");
    assert_eq!(
        moved.head.get("x-tidegate-steer"),
        Some("transfers@1:unit1>transfers")
    );
    assert!(GUIDE.contains("steer=transfers@1:unit1→transfers"));

    let run = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(words)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let file = proxy.folder().join("edge.yaml");
    fs::write(&file, format!("version: 1\n{config}")).unwrap();
    let explain = commands("$ tidegate explain ")[0].replace("edge.yaml", file.to_str().unwrap());
    let words: Vec<&str> = ["explain"].into_iter().chain(explain.split(' ')).collect();
    let told = run(&words);
    let said = GUIDE
        .split("\nsteering  pay")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    assert!(told.contains(&format!("steering  pay{said}")), "{told}");

    let admin = proxy.admin().to_string();
    let ctl = |line: &str| {
        let words: Vec<&str> = ["ctl", "--admin", &admin]
            .into_iter()
            .chain(line.split(' '))
            .collect();
        run(&words)
    };
    let lines = commands("$ tidegate ctl ");
    assert_eq!(lines.len(), 4);
    assert_eq!(ctl(lines[0]), "canary: set\n");
    assert_eq!(ctl(lines[1]), "canary: set\n");
    let shown = ctl(lines[2]);
    assert!(
        shown.contains("rule canary@2 of me (by hand): shift 10 % to unit2\n"),
        "{shown}"
    );
    assert!(GUIDE.contains("\nrule canary@2 of me (by hand): shift 10 % to unit2\n"));
    assert!(
        shown.starts_with("epoch 3, on every shard after "),
        "{shown}"
    );
    assert_eq!(ctl(lines[3]), "canary: withdrawn\n");

    // The ramp stands without its rule.
    let ramp = blocks("yaml")[1].trim().replace('\n', "\n      ");
    let rule = format!(
        "\n    - id: grow\n      owner: me\n      match: {{ application: pay }}\n      {ramp}\n"
    );
    proxy.reload(format!("{}{rule}", config.trim_end()));
    common::eventually("the ramp of the guide", || {
        ctl("shift").contains("ramp at 1 %, running").then_some(())
    });
}
