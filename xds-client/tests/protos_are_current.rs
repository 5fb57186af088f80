//! The generated code under `src/pb/` is what the protos say.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The code of one proto, with a first line that says where it comes from.
fn generate(proto: &str, package: &str) -> String {
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("protos");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pb-{package}"));
    fs::create_dir_all(&out).unwrap();
    let descriptors = protox::compile([protos.join(proto)], [protos]).unwrap();
    tonic_prost_build::configure()
        // How a connection is made is ours to say.
        .build_transport(false)
        .build_server(package != "etcdserverpb")
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
        (
            "envoy/discovery.proto",
            "envoy.service.discovery.v3",
            "discovery",
        ),
        ("envoy/status.proto", "envoy.service.status.v3", "status"),
    ] {
        let code = generate(proto, package);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/pb/{name}.rs"));
        if env::var_os("TIDEGATE_BLESS").is_some() {
            fs::write(&path, &code).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == code,
            "src/pb/{name}.rs is out of date: run `TIDEGATE_BLESS=1 cargo test -p tidegate-xds`"
        );
    }
}

/// Goal: the descriptors by which resources are read are those of the API, and nobody edits them. Method: write
/// them anew by the package `xds-protos` and compare; without it nothing is said.
#[test]
fn descriptors_are_current() {
    let python = env::var_os("TIDEGATE_TEST_PYTHON").map_or("python3".into(), PathBuf::from);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("envoy.binpb");
    let output = Command::new(python)
        .arg(folder.join("protos/envoy/descriptors.py"))
        .arg(&made)
        .output();
    if !output.as_ref().is_ok_and(|output| output.status.success()) {
        assert!(
            env::var_os("TIDEGATE_TEST_PEERS").is_none(),
            "a Python with xds-protos is not there: {output:?}"
        );
        eprintln!("skipped: a Python with xds-protos is not installed");
        return;
    }
    let committed = folder.join("src/pb/envoy.binpb");
    let made = fs::read(made).unwrap();
    if env::var_os("TIDEGATE_BLESS").is_some() {
        fs::write(&committed, &made).unwrap();
    }
    assert!(
        fs::read(committed).unwrap_or_default() == made,
        "src/pb/envoy.binpb is out of date: run `TIDEGATE_BLESS=1 cargo test -p tidegate-xds`"
    );
}
