//! The text of a NACK.

use std::fmt;

use super::ERROR_TEXT_MAX;

/// The text of a NACK: `name: reason`, one a line, cut at [`ERROR_TEXT_MAX`].
#[derive(Default)]
pub(super) struct ErrorText {
    text: String,
    left_out: usize,
}

impl ErrorText {
    pub(super) fn add(&mut self, name: &str, reason: fmt::Arguments<'_>) {
        let name = if name.is_empty() { "(no name)" } else { name };
        let line = format!("{name}: {reason}");
        // Room is kept for the last line, which counts what was left out.
        if self.text.len() + line.len() + 32 > ERROR_TEXT_MAX {
            self.left_out += 1;
            return;
        }
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(&line);
    }

    pub(super) fn finish(mut self) -> Option<String> {
        if self.left_out > 0 {
            self.text.push_str(&format!("\nand {} more", self.left_out));
        }
        (!self.text.is_empty()).then_some(self.text)
    }
}
