//! The generated code under `src/pb/` is what the protos say.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::{fs, path::Path};

/// The code of one proto, with a first line that says where it comes from.
fn generate(proto: &str, package: &str) -> String {
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("protos");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pb-{package}"));
    fs::create_dir_all(&out).unwrap();
    let descriptors = protox::compile([protos.join(proto)], [protos]).unwrap();
    tonic_prost_build::configure()
        // How a connection is made is ours to say.
        .build_transport(false)
        .build_server(package == "tidegate.healing.v1")
        .out_dir(&out)
        .compile_fds(descriptors)
        .unwrap();
    let code = fs::read_to_string(out.join(format!("{package}.rs"))).unwrap();
    format!("//! Generated from `protos/{proto}`; see `tests/protos_are_current.rs`.\n{code}")
}

/// Goal: nobody needs a compiler of protos to build, and nobody edits what one made. Method: generate the
/// code and compare. `TIDEGATE_BLESS=1` writes it anew.
#[test]
fn generated_code_is_current() {
    for (proto, package, name) in [
        (
            "tidegate/healing/v1/healing.proto",
            "tidegate.healing.v1",
            "healing",
        ),
        ("etcd/rpc.proto", "etcdserverpb", "etcd"),
    ] {
        let code = generate(proto, package);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/pb/{name}.rs"));
        if std::env::var_os("TIDEGATE_BLESS").is_some() {
            fs::write(&path, &code).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == code,
            "src/pb/{name}.rs is out of date: run `TIDEGATE_BLESS=1 cargo test -p tidegate-xds`"
        );
    }
}
