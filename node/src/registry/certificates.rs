//! Certificates: those that the node trusts, where Go's programs look for them (`crypto/x509`, `root_linux.go`), and those of
//! single registries.

mod verifier;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use prefetch::outcome::NodeReason;
use rustls::{
    ClientConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use self::verifier::{Any, Trusting};
use super::hosts::HostConfig;
use crate::{failure::Failure, host::Host};

/// Files of which the first that is there holds all certificates that are trusted.
const FILES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Folders with further ones.
const FOLDERS: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];
/// Bounds the file of certificates that is read, in bytes.
const MAX_FILE: u64 = 8 << 20;
/// Bounds the links that are followed to a file, one after the other (kernel, `MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// The certificates that a node trusts.
#[derive(Clone, Debug, Default)]
pub struct Certificates(Vec<CertificateDer<'static>>);

impl Certificates {
    /// Reads them, by the variables of an environment where they are set there.
    #[must_use]
    pub fn of(host: &Host, environment: &BTreeMap<String, String>) -> Self {
        let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        let mut certificates = Self::default();
        let files = match variable("SSL_CERT_FILE") {
            Some(file) => vec![file.as_str()],
            None => FILES.to_vec(),
        };
        let bundle = files.iter().find_map(|file| read(host, Path::new(file)));
        certificates.add(&bundle.unwrap_or_default());
        match variable("SSL_CERT_DIR") {
            Some(folders) => folders
                .split(':')
                .for_each(|folder| certificates.add_folder(host, folder)),
            None => FOLDERS.iter().for_each(|folder| certificates.add_folder(host, folder)),
        }
        certificates
    }

    /// Adds what a text holds; tells whether it was any.
    fn add(&mut self, text: &[u8]) -> bool {
        let before = self.0.len();
        // What is no certificate is none that is trusted.
        self.0.extend(CertificateDer::pem_slice_iter(text).flatten());
        self.0.len() > before
    }

    /// Adds what lies in a folder by itself: what is linked there is in the bundle, of which Debian links each.
    fn add_folder(&mut self, host: &Host, folder: &str) {
        for name in host.list(folder) {
            let path = Path::new(folder).join(name);
            let is_file = fs::symlink_metadata(host.path(&path)).is_ok_and(|found| found.is_file());
            if is_file && !FILES.iter().any(|file| Path::new(file) == path) {
                self.add(&read(host, &path).unwrap_or_default());
            }
        }
    }

    /// Makes the settings of TLS for one host: the node's, and those that are its own.
    ///
    /// # Errors
    /// `registry` where a file of its own cannot be used.
    pub fn client_config(&self, host: &Host, settings: &HostConfig) -> Result<ClientConfig, Failure> {
        let mut trusted = self.clone();
        for path in &settings.certificates {
            if !trusted.add(&read(host, path).unwrap_or_default()) {
                return Err(unusable("there is no certificate in", path));
            }
        }
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::new(NodeReason::Registry, format!("TLS cannot be used: {error}")))?;
        let builder = builder.dangerous();
        let builder = if settings.skip_verify == Some(true) {
            builder.with_custom_certificate_verifier(Arc::new(Any::new(provider)))
        } else {
            builder.with_custom_certificate_verifier(Arc::new(Trusting::new(&trusted.0, provider)))
        };
        let Some((certificate, key)) = settings.client_pairs.first() else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = read(host, certificate).unwrap_or_default();
        let key = read(host, key.as_ref().unwrap_or(certificate)).unwrap_or_default();
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| unusable("there is no key for", certificate))?;
        let chain = CertificateDer::pem_slice_iter(&chain).flatten().collect();
        builder
            .with_client_auth_cert(chain, key)
            .map_err(|_| unusable("certificate and key do not fit:", certificate))
    }
}

fn unusable(what: &str, path: &Path) -> Failure {
    Failure::new(NodeReason::Registry, format!("{what} {}", path.display()))
}

/// Reads a file of the host, to which links may lead: those name paths of the host, wherever it is seen from.
fn read(host: &Host, path: &Path) -> Option<Vec<u8>> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(host.path(&path)) {
            Ok(link) => path = path.parent()?.join(link),
            Err(_) => return read_file(&host.path(&path)),
        }
    }
    None
}

fn read_file(path: &PathBuf) -> Option<Vec<u8>> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
