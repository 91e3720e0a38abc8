//! Hashes that stay the same from release to release.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

/// Hashes texts so that their borders count.
pub fn hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.len().to_be_bytes());
        hasher.update(part);
    }
    BASE64_URL_SAFE_NO_PAD.encode(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_tell_parts_apart() {
        assert_ne!(hash(&["job", "a"]), hash(&["joba", ""]));
        assert_eq!(hash(&["a"]).len(), 43);
    }
}
