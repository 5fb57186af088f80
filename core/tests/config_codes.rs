//! Every code of the table is real: its example produces it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use tidegate_core::config::{self, CODES, Diagnostic, Severity};

/// What a text brings up, whether it is used or refused.
fn diagnostics(text: &str) -> Vec<Diagnostic> {
    match config::parse("example.yaml", text) {
        Ok((_, warnings)) => warnings,
        Err(all) => all,
    }
}

/// Goal: the table describes what happens. Method: parse each example; its code must come up, with a
/// place and a remedy, and be an error or a warning as the table says.
#[test]
fn examples_produce_their_code() {
    for code in CODES.iter().filter(|code| !code.example.is_empty()) {
        let found = diagnostics(code.example);
        let hit = found.iter().find(|one| one.code == code.id);
        let hit = hit.unwrap_or_else(|| panic!("{} not in {found:#?}", code.id));
        assert_eq!(hit.severity, code.severity, "{}", code.id);
        assert!(hit.help.is_some() && !hit.label.is_empty(), "{hit:#?}");
        let others = found
            .iter()
            .filter(|one| one.code != code.id && one.severity == Severity::Error);
        assert_eq!(others.count(), 0, "{} brings up more: {found:#?}", code.id);
    }
}

/// Goal: codes are stable names. Method: they are unique, ascending and of one form.
#[test]
fn codes_are_unique_and_ascending() {
    for pair in CODES.windows(2) {
        assert!(
            pair[0].id < pair[1].id,
            "{} before {}",
            pair[0].id,
            pair[1].id
        );
    }
    for code in CODES {
        let number = code.id.strip_prefix("TG-C").unwrap();
        assert!(
            number.len() == 3 && number.parse::<u16>().is_ok(),
            "{}",
            code.id
        );
        assert_eq!(
            code.severity == Severity::Warning,
            number > "100",
            "{}",
            code.id
        );
    }
}
