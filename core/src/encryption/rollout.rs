//! Which links ought to be encrypted (E3, E5): a pure function of what the server announced and of the
//! client's rule.

/// How a link carries its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// As they are.
    #[default]
    Plaintext,
    /// In TLS.
    Tls,
}
