//! The configuration that runs when no file is given: a gateway in front of demo applications.

use std::net::SocketAddr;

/// The YAML for `run` without a file. Its endpoints are placeholders on loopback; the process, which
/// starts the demo applications, puts their real addresses in with [`demo_config`].
pub fn embedded_default() -> &'static str {
    include_str!("demo.yaml")
}

/// [`embedded_default`] with the addresses of the applications that run: those of the shop, and the
/// one of its canary.
pub fn demo_config(shop: &[SocketAddr], canary: SocketAddr) -> String {
    let shop: Vec<String> = shop
        .iter()
        .map(|address| format!("\"{address}\""))
        .collect();
    embedded_default()
        .replace(SHOP, &format!("[{}]", shop.join(", ")))
        .replace(CANARY, &format!("[\"{canary}\"]"))
}

/// Placeholders of [`embedded_default`].
const SHOP: &str = "[127.0.0.1:8081, 127.0.0.1:8082]";
const CANARY: &str = "[127.0.0.1:8083]";
