//! Whatever the text, it is refused or understood; what is understood can be shown and compared.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use proptest::prelude::*;
use tidegate_core::config;

const EVERYTHING: &str = include_str!("config/everything.yaml");

/// Pieces that YAML and the format give a meaning to.
const PIECES: &[&str] = &[
    "version: 1\n",
    "listeners",
    "clusters",
    "routes",
    "match",
    "to",
    "split",
    "retry",
    "on",
    "host",
    "path",
    "bind",
    "respond",
    "redirect",
    "status",
    "endpoints",
    "static",
    "dns",
    "health",
    "secrets",
    "tls",
    "certificates",
    "subject_alt_names",
    "rollout",
    "mode: follow_peer\n",
    "spiffe://mesh/*",
    "-----BEGIN",
    ": ",
    ":\n",
    "\n",
    "  ",
    "    ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&a ",
    "*a",
    "!!str ",
    "<<",
    "~",
    "|",
    ">",
    "\"",
    "'",
    "#",
    "%",
    "---\n",
    "...\n",
    "127.0.0.1:80",
    "[::1]:80",
    "*.example",
    "/a/**",
    "/{id}",
    "~^/(a",
    "20%",
    "800ms",
    "64KiB",
    "off",
    "null",
    "99999999999999999999",
    "-1",
    "1e9",
    "é",
    "\u{feff}",
    "\t",
    "\r\n",
    "\0",
    "\u{85}",
    "\u{2028}",
    "${1}",
    "$",
];

/// Parses, and uses what comes out.
fn survive(text: &str) {
    let outcome = config::parse("fuzz.yaml", text);
    let diagnostics = match &outcome {
        Ok((config, warnings)) => {
            let dump = config::to_json(config).to_string();
            assert!(config::diff(config, config).is_empty());
            // Only a redacted value may keep a dump from meaning the same.
            if !dump.contains("[redacted]") {
                let (again, _) =
                    config::parse("dump.json", &dump).unwrap_or_else(|e| panic!("{e:#?}\n{dump}"));
                assert_eq!(config::to_json(&again).to_string(), dump);
            }
            warnings
        }
        Err(all) => {
            assert!(
                all.iter()
                    .any(|one| one.severity == config::Severity::Error)
            );
            all
        }
    };
    for one in diagnostics {
        assert!(
            text.get(one.span.clone()).is_some(),
            "{one:?} lies outside of the text"
        );
        assert!(
            !text[one.span.clone()].contains('\n'),
            "{one:?} spans lines"
        );
        assert_eq!(
            text[..one.span.start].matches('\n').count() + 1,
            one.line,
            "{one:?}"
        );
        assert!(
            one.column >= 1 && !one.message.contains(char::is_control),
            "{one:?}"
        );
        one.to_json().to_string();
    }
}

proptest! {
    /// Goal: no bytes panic. Method: arbitrary bytes.
    #[test]
    fn bytes(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = config::parse_bytes("fuzz.yaml", &bytes);
        survive(&String::from_utf8_lossy(&bytes));
    }

    /// Goal: no text that looks like a configuration panics. Method: its pieces in any order.
    #[test]
    fn pieces(picks in proptest::collection::vec(0..PIECES.len(), 0..80)) {
        let text: String = picks.iter().map(|pick| PIECES[*pick]).collect();
        survive(&text);
    }

    /// Goal: no valid file with a few mistakes panics. Method: cut, repeat, replace at random places.
    #[test]
    fn mutations(edits in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..24, 0..PIECES.len()), 1..6)) {
        let mut text: Vec<char> = EVERYTHING.chars().collect();
        for (at, cut, piece) in edits {
            let start = at.index(text.len() + 1);
            let end = (start + cut).min(text.len());
            text.splice(start..end, PIECES[piece].chars());
        }
        survive(&text.into_iter().collect::<String>());
    }

    /// Goal: every value of a good file can be anything. Method: one word of it is replaced by a piece.
    #[test]
    fn values(at in any::<prop::sample::Index>(), piece in 0..PIECES.len()) {
        let words: Vec<&str> = EVERYTHING.split_inclusive([' ', '\n']).collect();
        let at = at.index(words.len());
        let text: String = words.iter().enumerate().map(|(index, word)| {
            if index == at { format!("{} ", PIECES[piece]) } else { (*word).to_owned() }
        }).collect();
        survive(&text);
    }
}
