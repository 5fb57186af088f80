//! Secrets while a proxy runs: taken, replaced and refused as files change, tried before they are announced,
//! and never shown (E9, E10).
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
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use nix::sys::signal::Signal;
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, pem::PemObject},
};

use common::{
    Origin, Proxy, eventually,
    tls::{self, Authority, CLIENT_ID, Identity, Leaf, SERVER_NAME, Session, client_config},
};
use serde_json::Value;

/// A secret whose files stand under fixed names, so that others can be renamed over them.
struct Slot {
    certificate: PathBuf,
    private_key: PathBuf,
}

impl Slot {
    fn new(folder: &Path, identity: &Identity) -> Slot {
        let slot = Slot {
            certificate: folder.join("slot.pem"),
            private_key: folder.join("slot.key"),
        };
        slot.put(&identity.certificate, &identity.private_key);
        slot
    }

    /// Replaces both files, each by a rename.
    fn put(&self, certificate: &Path, private_key: &Path) {
        rename_over(certificate, &self.certificate);
        rename_over(private_key, &self.private_key);
    }

    fn config(&self, origin: &Origin) -> String {
        let secrets = format!(
            "  web: {{ certificate: '{}', private_key: '{}' }}\n",
            self.certificate.display(),
            self.private_key.display()
        );
        config(&secrets, origin)
    }
}

fn rename_over(from: &Path, to: &Path) {
    let new = to.with_extension("new");
    fs::copy(from, &new).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(new, to).unwrap();
}

/// A strict listener `web` with the secret `web`.
fn config(secrets: &str, origin: &Origin) -> String {
    format!(
        "secrets:\n{secrets}listeners:\n  web:\n    bind: 127.0.0.1:0\n    tls: {{ certificates: web }}\n    \
         routes: [{{ to: app }}]\nclusters:\n  app: {{ endpoints: {{ static: [\"{origin}\"] }} }}\n"
    )
}

fn der(identity: &Identity) -> Vec<u8> {
    CertificateDer::from_pem_file(&identity.certificate)
        .unwrap()
        .to_vec()
}

/// The certificate that a new connection is shown.
#[track_caller]
fn served(proxy: &Proxy, client: &ClientConfig) -> Vec<u8> {
    let session = Session::connect(proxy.web(), SERVER_NAME, client).unwrap();
    session.server_certificate().unwrap()
}

#[track_caller]
fn wait_until_served(proxy: &Proxy, client: &ClientConfig, identity: &Identity) {
    let expected = der(identity);
    eventually("the new certificate", || {
        (served(proxy, client) == expected).then_some(())
    });
}

#[track_caller]
fn wait_for_log(proxy: &Proxy, part: &str) {
    eventually(&format!("`{part}` in the log"), || {
        proxy.stderr().contains(part).then_some(())
    });
}

/// Goal: a certificate is replaced while traffic runs, without losing a request: by renaming the files over the
/// old ones (E9, E12). Method: a connection kept from before, requests all along, and new connections until they
/// are shown the new certificate.
#[test]
fn rotation_by_rename() {
    let (authority, origin) = (Authority::new(), Origin::echo());
    let client = client_config(&authority, None);
    let (old, new) = (Leaf::server(SERVER_NAME), Leaf::server(SERVER_NAME).rsa());
    let (old, new) = (authority.issue(&old), authority.issue(&new));
    let slot = Slot::new(authority.folder(), &old);
    let proxy = Proxy::start(slot.config(&origin));
    assert_eq!(served(&proxy, &client), der(&old));
    let mut kept = Session::connect(proxy.web(), SERVER_NAME, &client).unwrap();

    slot.put(&new.certificate, &new.private_key);
    eventually("the new certificate, and requests all along", || {
        // A session of its own each time: one that is resumed is shown no certificate.
        let client = client_config(&authority, None);
        let mut session = Session::connect(proxy.web(), SERVER_NAME, &client).unwrap();
        let is_new = session.server_certificate().unwrap() == der(&new);
        let answer = session.get("/").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        is_new.then_some(())
    });
    let answer = kept.get("/kept").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    proxy.wait_for_metric("tidegate_secret_generation", |n| n == 2.0);
    proxy.wait_for_metric("tidegate_self_handshakes_total", |n| n == 2.0);
    assert_eq!(proxy.metric("tidegate_secret_updates_refused_total"), 0.0);
}

/// Goal: the swap of a mounted Kubernetes Secret is taken: links through a directory that is replaced as a whole.
/// Method: such a tree, swapped by one rename.
#[test]
fn rotation_by_swapped_links() {
    let (authority, origin) = (Authority::new(), Origin::echo());
    let client = client_config(&authority, None);
    let folder = authority.folder();
    let issued = [1, 2].map(|version| {
        let identity = authority.issue(&Leaf::server(SERVER_NAME));
        let data = folder.join(format!("data-{version}"));
        fs::create_dir(&data).unwrap();
        fs::copy(&identity.certificate, data.join("tls.crt")).unwrap();
        fs::copy(&identity.private_key, data.join("tls.key")).unwrap();
        identity
    });
    symlink("data-1", folder.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(name), folder.join(name)).unwrap();
    }
    let slot = Slot {
        certificate: folder.join("tls.crt"),
        private_key: folder.join("tls.key"),
    };
    let proxy = Proxy::start(slot.config(&origin));
    assert_eq!(served(&proxy, &client), der(&issued[0]));
    symlink("data-2", folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    wait_until_served(&proxy, &client, &issued[1]);
    assert_eq!(proxy.metric("tidegate_secret_updates_refused_total"), 0.0);
}

/// Goal: what cannot be used is refused as a pair, with place, cause and remedy, and the last good one is served
/// on; repairing the files repairs the secret (E9). Method: each fault in turn over a good pair, then the good
/// one again, then a new one.
#[test]
fn refused_secrets_leave_the_last_good() {
    let (authority, origin) = (Authority::new(), Origin::echo());
    let client = client_config(&authority, None);
    let server = Leaf::server(SERVER_NAME);
    let good = authority.issue(&server);
    let slot = Slot::new(authority.folder(), &good);
    let proxy = Proxy::start(slot.config(&origin));
    let other = authority.issue(&server);
    let expired = authority.issue(&server.clone().expired());
    let not_yet = authority.issue(&server.clone().not_yet());
    let garbage = authority.folder().join("garbage");
    fs::write(&garbage, "garbage").unwrap();
    for (certificate, private_key, cause) in [
        (
            &good.certificate,
            &other.private_key,
            "not the one of the certificate",
        ),
        (&expired.certificate, &expired.private_key, "it has expired"),
        (
            &not_yet.certificate,
            &not_yet.private_key,
            "it is not valid yet",
        ),
        (&garbage, &good.private_key, "no certificate in it"),
        (&good.certificate, &garbage, "no private key"),
    ] {
        slot.put(certificate, private_key);
        wait_for_log(&proxy, cause);
        proxy.wait_for_metric("tidegate_secret_refused", |n| n == 1.0);
        assert_eq!(served(&proxy, &client), der(&good), "{cause}");
    }
    let log = proxy.stderr();
    let place = format!("secret `web`: `{}`: ", slot.private_key.display());
    assert!(log.contains(&place), "{log}");
    assert!(log.contains("generation 1 stays in use"), "{log}");
    let certs = proxy.admin_get("/certs").text();
    assert!(certs.contains("no private key"), "{certs}");

    fs::remove_file(&slot.private_key).unwrap();
    wait_for_log(&proxy, "there is no such file");
    assert_eq!(served(&proxy, &client), der(&good));

    slot.put(&good.certificate, &good.private_key);
    proxy.wait_for_metric("tidegate_secret_refused", |n| n == 0.0);
    assert_eq!(proxy.metric("tidegate_secret_generation"), 1.0);
    slot.put(&other.certificate, &other.private_key);
    wait_until_served(&proxy, &client, &other);
}

/// `tidegate VERB` on this configuration: exit code and everything it said.
fn tidegate(verb: &[&str], folder: &Path, config: &str) -> (Option<i32>, String) {
    let file = folder.join("tidegate.yaml");
    fs::write(&file, format!("version: 1\nadmin: off\n{config}")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(verb)
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    // Diagnostics are wrapped for people.
    let said = said.replace('│', " ");
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    (output.status.code(), said)
}

/// Goal: neither a start nor `tidegate check` accepts secrets that are missing or broken: exit code 3, the file
/// and the remedy. Method: both verbs, over each fault, and over a good pair.
#[test]
fn broken_secrets_fail_start_and_check() {
    let (authority, origin) = (Authority::new(), Origin::echo());
    let folder = authority.folder();
    let good = authority.issue(&Leaf::server(SERVER_NAME));
    let expired = authority.issue(&Leaf::server(SERVER_NAME).expired());
    let slot = Slot::new(folder, &good);
    let config = slot.config(&origin);
    let (code, said) = tidegate(&["check"], folder, &config);
    assert_eq!(code, Some(0), "{said}");
    for (break_it, cause, remedy) in [
        (
            &(|| slot.put(&good.certificate, &expired.private_key)) as &dyn Fn(),
            "not the one of the certificate",
            "rename both into place",
        ),
        (
            &|| slot.put(&expired.certificate, &expired.private_key),
            "it has expired",
            "have it renewed",
        ),
        (
            &|| fs::remove_file(&slot.certificate).unwrap(),
            "there is no such file",
            "correct the path",
        ),
    ] {
        break_it();
        for verb in [&["check"][..], &["run", "-c"]] {
            let (code, said) = tidegate(verb, folder, &config);
            assert_eq!(code, Some(3), "{verb:?}: {said}");
            for part in ["secret `web`", "slot.", cause, remedy] {
                assert!(said.contains(part), "{verb:?} {part}: {said}");
            }
        }
    }
}

/// Goal: a reload that brings a missing secret is refused as a whole, and the proxy serves on as before; once the
/// file is there, the same reload is taken. Method: a second listener whose certificate comes late.
#[test]
fn reload_with_a_missing_secret_keeps_the_old() {
    let (authority, origin) = (Authority::new(), Origin::echo());
    let client = client_config(&authority, None);
    let good = authority.issue(&Leaf::server(SERVER_NAME));
    let proxy = Proxy::start(config(&good.secret("web"), &origin));
    let late = authority.folder().join("late.pem");
    let secrets = format!(
        "{}  late: {{ certificate: '{}', private_key: '{}' }}\n",
        good.secret("web"),
        late.display(),
        good.private_key.display()
    );
    let with_late = config(&secrets, &origin).replace("certificates: web", "certificates: [late]");
    let epoch = proxy.epoch();
    proxy.write_config(&with_late);
    proxy.signal(Signal::SIGHUP);
    wait_for_log(&proxy, "secret `late`");
    assert_eq!(served(&proxy, &client), der(&good));
    assert_eq!(proxy.epoch(), epoch);
    let other = authority.issue(&Leaf::server(SERVER_NAME));
    fs::copy(&other.certificate, &late).unwrap();
    let with_late = with_late.replace(
        &good.private_key.display().to_string(),
        &other.private_key.display().to_string(),
    );
    let with_late = with_late.replacen(
        &other.private_key.display().to_string(),
        &good.private_key.display().to_string(),
        1,
    );
    proxy.reload(with_late);
    assert_eq!(served(&proxy, &client), der(&other));
}

/// Goal: a certificate that ends soon is told of in the log and in the metrics, while it is served (E9). Method:
/// one that has five days of thirty left.
#[test]
fn ending_certificates_raise_an_alarm() {
    let (authority, origin) = (Authority::new(), Origin::echo());
    let ending = authority.issue(&Leaf::server(SERVER_NAME).ending());
    let proxy = Proxy::start(config(&ending.secret("web"), &origin));
    wait_for_log(&proxy, "secret `web` is to be renewed");
    let left_s = proxy.metric("tidegate_secret_expiry_seconds");
    let day_s = 86_400.0;
    assert!((4.0 * day_s..=5.0 * day_s).contains(&left_s), "{left_s}");
    let certs = proxy.admin_get("/certs").text();
    assert!(certs.contains("expiring"), "{certs}");
    assert_eq!(
        served(&proxy, &client_config(&authority, None)),
        der(&ending)
    );
}

/// Goal: TLS is announced only after the listener's handshake with itself, also where clients must show a
/// certificate and where connections begin with a PROXY header (E10). Method: a listener of each kind, and one
/// whose TLS is switched off.
#[test]
fn announced_after_its_own_handshake() {
    let (authority, origin) = (Authority::new(), Origin::echo());
    let identity = authority.issue(&Leaf::server(SERVER_NAME).uri(CLIENT_ID));
    let secrets = identity.secret("web") + &authority.secret("ca");
    let config = config(&secrets, &origin).replace(
        "clusters:",
        "  mutual:\n    bind: 127.0.0.2:0\n    tls: { certificates: web, client_certificate: { trusted_ca: ca } }\n    \
         routes: [{ to: app }]\n  proxied:\n    bind: 127.0.0.3:0\n    proxy_protocol: require\n    \
         tls: { certificates: web, mode: permissive }\n    routes: [{ to: app }]\n  off:\n    \
         bind: 127.0.0.4:0\n    tls: { certificates: web, mode: disabled }\n    routes: [{ to: app }]\nclusters:",
    );
    let proxy = Proxy::start(config);
    proxy.wait_for_metric("tidegate_listener_tls_announced", |n| n == 3.0);
    let metrics = proxy.admin_get("/stats/prometheus").text();
    assert!(metrics.contains("tidegate_listener_tls_announced{listener=\"off\"} 0"));
    assert_eq!(proxy.metric("tidegate_self_handshakes_failed_total"), 0.0);
}

/// Goal: nothing of a key is ever shown (E9), while the names of its files are. Method: a proxy with keys in two
/// secrets, one beside its certificate and readable by all; every page of the admin server, the log at its most
/// talkative, the state dump and the configuration are searched for every line of both keys.
#[test]
fn keys_are_never_shown() {
    let (authority, origin) = (Authority::new(), Origin::echo());
    let web = authority.issue(&Leaf::server(SERVER_NAME));
    let link = authority.issue(&Leaf::client(CLIENT_ID));
    fs::set_permissions(&link.both, fs::Permissions::from_mode(0o644)).unwrap();
    let both = link.both.display();
    let secrets = format!(
        "{}  link: {{ certificate: '{both}', private_key: '{both}' }}\n{}",
        web.secret("web"),
        authority.secret("ca")
    );
    let config = config(&secrets, &origin).replace(
        "clusters:\n",
        "clusters:\n  link:\n    tls: { certificate: link, trusted_ca: ca }\n    endpoints: { static: [\"127.0.0.1:9\"] }\n",
    );
    let mut proxy = Proxy::start(config);
    proxy.admin_post("/logging?level=trace");
    let session = Session::connect(proxy.web(), SERVER_NAME, &client_config(&authority, None));
    session.unwrap().get("/").unwrap();
    proxy.signal(Signal::SIGUSR1);
    // Ticket keys pass to another process, and what is read below is of both.
    proxy.upgrade();
    wait_for_log(&proxy, "every user of this host may read it");
    wait_for_log(&proxy, "TLS works and is announced");

    let mut shown = proxy.stderr();
    for page in [
        "/certs",
        "/config_dump",
        "/encryption",
        "/server_info",
        "/stats",
        "/stats/prometheus",
        "/listeners",
        "/clusters",
        "/",
    ] {
        shown += &proxy.admin_get(page).text();
    }
    assert!(shown.contains(&both.to_string()), "paths are shown");
    for key in [&web.private_key, &link.private_key] {
        let pem = fs::read_to_string(key).unwrap();
        let lines = pem.lines().filter(|line| !line.starts_with("-----"));
        for line in lines {
            assert!(!shown.contains(line), "a line of a key is shown");
        }
    }
    assert!(!shown.contains("PRIVATE KEY-----"));
}

/// Goal: many rotations in a row under load lose no request and end with the last certificate (E6, E12). Method:
/// one client that connects and asks for as long as another thread renames pairs over the files.
#[test]
fn many_rotations_lose_nothing() {
    const ROTATIONS: usize = 12;
    let (authority, origin) = (Authority::new(), Origin::echo());
    let client = client_config(&authority, None);
    let pairs: Vec<Identity> = (0..ROTATIONS)
        .map(|_| authority.issue(&Leaf::server(SERVER_NAME)))
        .collect();
    let slot = Slot::new(authority.folder(), &pairs[0]);
    let proxy = Proxy::start(slot.config(&origin));
    thread::scope(|scope| {
        let rotating = scope.spawn(|| {
            for (i, pair) in pairs.iter().enumerate().skip(1) {
                slot.put(&pair.certificate, &pair.private_key);
                proxy.wait_for_metric("tidegate_secret_generation", |n| n == (i + 1) as f64);
            }
        });
        while !rotating.is_finished() {
            let mut session = Session::connect(proxy.web(), SERVER_NAME, &client).unwrap();
            let answer = session.get("/").unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    });
    wait_until_served(&proxy, &client, &pairs[ROTATIONS - 1]);
}

/// Goal: where links are encrypted, active health checks are, too, with the same certificates and names (H14).
/// Method: an endpoint that wants a client certificate, one whose certificate comes from elsewhere, and one that
/// speaks plaintext, all of a cluster that requires TLS.
#[test]
fn health_checks_speak_tls() {
    let (authority, stranger, plain) = (Authority::new(), Authority::new(), Origin::echo());
    let server = Leaf::server(SERVER_NAME);
    let answer = |peer: &mut tls::Peer| {
        tls::read_head(peer)?;
        peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    };
    let good = tls::Origin::start(&authority.issue(&server), Some(&authority), answer);
    let bad = tls::Origin::start(&stranger.issue(&server), None, answer);
    let link = authority.issue(&Leaf::client(CLIENT_ID));
    let secrets = link.secret("link") + &authority.secret("ca");
    let proxy = Proxy::start(format!(
        "secrets:\n{secrets}listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes: [{{ to: app }}]\nclusters:\n  \
         app:\n    tls: {{ server_name: {SERVER_NAME}, certificate: link, trusted_ca: ca }}\n    \
         health: {{ http: {{ path: /health }}, interval: 2s, timeout: 2s, healthy_after: 1, unhealthy_after: 1 }}\n    \
         endpoints: {{ static: [\"{good}\", \"{bad}\", \"{plain}\"] }}\n"
    ));
    let last = |address: &dyn std::fmt::Display| {
        let clusters: Value = serde_json::from_str(&proxy.admin_get("/clusters").text()).unwrap();
        let endpoints = clusters[0]["endpoints"].as_array().unwrap();
        let mut endpoints = endpoints.iter();
        let endpoint = endpoints.find(|e| e["address"] == address.to_string().as_str());
        let check = &endpoint.unwrap()["health_check"];
        check["last"].as_str().unwrap_or_default().to_owned()
    };
    let wait_for = |address: &dyn std::fmt::Display, part: &str| {
        eventually(&format!("`{part}` of {address}"), || {
            last(address).contains(part).then_some(())
        });
    };
    wait_for(&good.address, "ok");
    wait_for(&bad.address, "TLS handshake: invalid peer certificate");
    eventually("a failed check of the plaintext endpoint", || {
        let last = last(&plain.address);
        assert_ne!(last, "ok", "never in plaintext instead (E16)");
        (!last.is_empty()).then_some(())
    });
}
