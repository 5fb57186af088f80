//! Diagnostics of a configuration on a terminal: the lines of the file, what is wrong with them, what to
//! do about it.

use std::fmt;

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity as Shown, SourceCode,
};
use tidegate_core::config::{Diagnostic, Severity};

/// All diagnostics of one file, one after the other, coloured if standard error is a terminal.
pub(crate) fn diagnostics(diagnostics: &[Diagnostic], text: &str) -> String {
    let theme = if super::colour_stderr() {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(100)
        .with_context_lines(1)
        .with_links(false);
    let mut out = String::new();
    for diagnostic in diagnostics {
        let report = Report {
            diagnostic,
            source: NamedSource::new(&diagnostic.file, text.to_owned()),
        };
        // Writing to a String does not fail, and the spans are within the text.
        if handler.render_report(&mut out, &report).is_err() {
            out += &format!("{diagnostic}\n");
        }
        out.push('\n');
    }
    out
}

/// One diagnostic, as the renderer wants it.
struct Report<'a> {
    diagnostic: &'a Diagnostic,
    source: NamedSource<String>,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Report<'_> {}

impl miette::Diagnostic for Report<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.diagnostic.code))
    }

    fn severity(&self) -> Option<Shown> {
        Some(match self.diagnostic.severity {
            Severity::Error => Shown::Error,
            Severity::Warning => Shown::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let help = self.diagnostic.help.as_ref()?;
        Some(Box::new(help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let diagnostic = self.diagnostic;
        let label = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let first =
            LabeledSpan::new_primary_with_span(label(&diagnostic.label), diagnostic.span.clone());
        let related = diagnostic
            .related
            .iter()
            .map(move |one| LabeledSpan::new_with_span(label(&one.label), one.span.clone()));
        Some(Box::new(std::iter::once(first).chain(related)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Goal: a person sees file, line, column, the span, its label and the help. Method: one
    /// diagnostic, literally, as standard error is no terminal in tests.
    #[test]
    fn diagnostics_look_like_the_interface_says() {
        let text = "version: 1\nlisteners:\n  to: ordres\n";
        let start = text.find("ordres").unwrap();
        let diagnostic = Diagnostic {
            severity: Severity::Error,
            code: "TG-C014",
            message: "cluster `ordres` not found".into(),
            file: "edge.yaml".into(),
            line: 3,
            column: 7,
            span: start..start + 6,
            label: "not defined under `clusters`".into(),
            help: Some("did you mean `orders`?".into()),
            related: Vec::new(),
        };
        let shown = diagnostics(&[diagnostic], text);
        for expected in [
            "TG-C014",
            "× cluster `ordres` not found",
            "edge.yaml:3:7",
            "to: ordres",
            "not defined under `clusters`",
            "help: did you mean `orders`?",
        ] {
            assert!(shown.contains(expected), "{expected}\n{shown}");
        }
        assert!(!shown.contains('\u{1b}'));
    }
}
