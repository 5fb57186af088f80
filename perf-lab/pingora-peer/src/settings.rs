//! What the lab asks for: a file with a word and mostly a value on each line, in any order.
//!
//! | word | value | |
//! |---|---|---|
//! | `listen` | address | where |
//! | `upstream` | address | an endpoint; may be repeated |
//! | `route` | path prefix | what goes there; may be repeated, and without any everything does |
//! | `h2` | | clients speak HTTP/2: over TLS if they agree on it, in plain text if they begin with its preface |
//! | `certificate`, `key` | file | clients speak TLS |
//! | `client_authority` | file | and show a certificate of this authority |
//! | `upstream_h2` | | endpoints speak HTTP/2 |
//! | `upstream_name`, `upstream_authority` | name, file | endpoints speak TLS, and this is whom they have to be |
//! | `upstream_certificate`, `upstream_key` | file | what they are shown |

use std::fs;

/// The file's contents.
#[derive(Debug, Default)]
pub struct Settings {
    pub listen: String,
    pub upstreams: Vec<String>,
    pub routes: Vec<String>,
    pub h2: bool,
    pub certificate: Option<String>,
    pub key: Option<String>,
    pub client_authority: Option<String>,
    pub upstream_h2: bool,
    pub upstream_name: Option<String>,
    pub upstream_authority: Option<String>,
    pub upstream_certificate: Option<String>,
    pub upstream_key: Option<String>,
}

impl Settings {
    /// Panics on a word that it does not know: the lab shows that.
    pub fn read(path: &str) -> Settings {
        let text = fs::read_to_string(path).expect("the lab writes its files before it starts a peer");
        let mut settings = Settings::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (word, value) = line.split_once(' ').unwrap_or((line, ""));
            let value = value.to_owned();
            match word {
                "listen" => settings.listen = value,
                "upstream" => settings.upstreams.push(value),
                "route" => settings.routes.push(value),
                "h2" => settings.h2 = true,
                "certificate" => settings.certificate = Some(value),
                "key" => settings.key = Some(value),
                "client_authority" => settings.client_authority = Some(value),
                "upstream_h2" => settings.upstream_h2 = true,
                "upstream_name" => settings.upstream_name = Some(value),
                "upstream_authority" => settings.upstream_authority = Some(value),
                "upstream_certificate" => settings.upstream_certificate = Some(value),
                "upstream_key" => settings.upstream_key = Some(value),
                _ => panic!("`{word}` is no setting"),
            }
        }
        settings
    }
}
