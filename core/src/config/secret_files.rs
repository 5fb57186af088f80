//! What is wrong with the files of secrets, at the place of the configuration that names them. The files are
//! looked at by others: a configuration is text, and can be read without them.

use std::{ops::Range, sync::Arc};

use super::{
    codes,
    diagnostic::{Diagnostic, Problem, Report},
    tree,
};
use crate::encryption::secret::SecretFault;

/// Reports `faults`, each of the secret of that name, in the file that `text` was read from.
pub fn secret_faults(
    file: &str,
    text: &str,
    faults: &[(Arc<str>, SecretFault)],
) -> Vec<Diagnostic> {
    let report = Report::new(file, text);
    let root = tree::read(text, &report);
    for (name, fault) in faults {
        let place = root.as_deref().and_then(|root| find(root, name, fault));
        let (span, path) = place.unwrap_or((0..0, ""));
        let message = format!("secret `{name}`: `{path}`: {}", fault.cause);
        let problem = Problem::new(codes::SECRET_FILE, span, message);
        report.add(problem.label("this file").help(fault.remedy.as_str()));
    }
    report.finish()
}

/// Where the file at fault is named, and how.
fn find<'t>(
    root: &'t tree::Node,
    name: &str,
    fault: &SecretFault,
) -> Option<(Range<usize>, &'t str)> {
    let below = |node: &'t tree::Node, key: &str| {
        let mut entries = node.entries().iter();
        entries
            .find(|entry| entry.key == key)
            .map(|entry| &*entry.value)
    };
    let secret = below(below(root, "secrets")?, name)?;
    let node = below(secret, fault.part.key())?;
    match &node.value {
        tree::Value::Scalar { text, .. } => Some((node.span.clone(), text)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;
    use crate::encryption::secret::SecretPart;

    /// Goal: a fault is shown where its file is named, with cause and remedy; one that is found nowhere is
    /// reported all the same. Method: a fault of each kind in a small configuration.
    #[test]
    fn faults_stand_where_the_file_is_named() {
        let text =
            "version: 1\nsecrets:\n  web:\n    certificate: web.pem\n    private_key: web.key\n";
        let fault = SecretFault {
            part: SecretPart::PrivateKey,
            cause: "there is no such file".into(),
            remedy: "write it".into(),
        };
        let faults = ["web", "gone"].map(|name| (Arc::from(name), fault.clone()));
        let found = secret_faults("edge.yaml", text, &faults);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].line, found[0].column), (1, 1), "found nowhere");
        assert_eq!((found[1].line, found[1].column), (5, 18));
        assert_eq!(
            found[1].message,
            "secret `web`: `web.key`: there is no such file"
        );
        assert_eq!(found[1].help.as_deref(), Some("write it"));
        assert_eq!(&text[found[1].span.clone()], "web.key");
    }
}
