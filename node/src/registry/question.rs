//! A question to a registry, and the document that answers it.

use sha2::{Digest, Sha256};

use crate::login::Login;

/// A kind of document of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentKind {
    /// A manifest or an index.
    Manifest,
    /// A configuration.
    Blob,
}

/// A question about one image.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The repository.
    pub repository: &'a str,
    /// The kind of the document.
    pub kind: DocumentKind,
    /// A digest, or a tag.
    pub reference: &'a str,
    /// The login of the registry.
    pub login: Option<&'a Login>,
}

/// A document, as a host gave it.
pub struct Document {
    /// The host that answered.
    pub host: String,
    /// The digest that it names.
    pub digest: Option<String>,
    /// True for a page for people, by its media type.
    pub has_type_of_page: bool,
    /// The body.
    pub bytes: Vec<u8>,
}

impl Document {
    /// Returns true for a page for people.
    #[must_use]
    pub fn is_page(&self) -> bool {
        self.has_type_of_page || self.bytes.trim_ascii_start().starts_with(b"<")
    }
}

/// Returns the digest of a document.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    let hex = |text: String, byte: &u8| text + &format!("{byte:02x}");
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), hex)
}
