//! TLS 1.3 between agents and planners: PEM files in, rustls configurations out.

use std::{
    fmt,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use anyhow::Context;
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    server::WebPkiClientVerifier,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};

/// A certificate chain and its key.
pub struct Identity {
    /// The chain, the end entity first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the end entity.
    pub key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Files that may be replaced while the process runs.
#[derive(Debug)]
pub struct Watched {
    files: Vec<(PathBuf, Stamp)>,
}

/// What changes when a file is replaced or written: `None` where it is not there.
type Stamp = Option<(u64, u64, SystemTime)>;

impl Watched {
    /// Files as they are now. To be made before they are read: what changes in between is seen then.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        Self { files: paths.into_iter().map(|path| (path.to_owned(), stamp(path))).collect() }
    }

    /// Whether one of them changed since this was asked last.
    pub fn changed(&mut self) -> bool {
        let mut changed = false;
        for (path, known) in &mut self.files {
            let now = stamp(path);
            changed |= std::mem::replace(known, now) != now;
        }
        changed
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.modified().ok()?))
}

/// Makes aws-lc-rs the process's only crypto provider; first thing in `main`.
pub fn install_crypto() {
    // It fails only where a provider is already installed, and there is no other in this build.
    let _ = aws_lc_rs::default_provider().install_default();
}

impl Identity {
    /// Reads a chain and a key from PEM files.
    ///
    /// # Errors
    /// When a file can't be read or holds no certificate or key.
    pub fn from_pem_files(cert: &Path, key: &Path) -> anyhow::Result<Self> {
        let chain = certificates(cert)?;
        let key = PrivateKeyDer::from_pem_file(key)
            .with_context(|| format!("no private key can be read from {}", key.display()))?;
        Ok(Self { chain, key })
    }

    /// A throw-away certificate for these host names and URIs, signed by itself, and its PEM. For `--dev` and tests.
    ///
    /// # Errors
    /// When a name is no host name or address.
    pub fn throw_away(names: &[&str]) -> anyhow::Result<(Self, String)> {
        let (uris, hosts): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains("://"));
        let hosts: Vec<String> = hosts.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(hosts).context("no throw-away certificate can be made")?;
        for uri in uris {
            let uri = uri.try_into().with_context(|| format!("'{uri}' is no URI"))?;
            params.subject_alt_names.push(SanType::URI(uri));
        }
        let signing = KeyPair::generate().context("no throw-away key can be made")?;
        let made = params.self_signed(&signing).context("no throw-away certificate can be made")?;
        let key = PrivateKeyDer::try_from(signing.serialize_der())
            .map_err(|error| anyhow::anyhow!("the throw-away key can't be used: {error}"))?;
        Ok((Self { chain: vec![made.der().clone()], key }, made.pem()))
    }
}

/// Certificates of a PEM file.
///
/// # Errors
/// When the file can't be read or holds none.
pub fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .with_context(|| format!("no certificate can be read from {}", path.display()))?;
    anyhow::ensure!(!chain.is_empty(), "{} holds no certificate in PEM form", path.display());
    Ok(chain)
}

/// Trust in the authorities of a PEM file.
///
/// # Errors
/// When the file can't be read or holds something that is no authority.
pub fn trust(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).with_context(|| format!("{} holds no usable authority", path.display()))?;
    }
    Ok(roots)
}

/// A server that shows `identity` and, with `clients`, demands a certificate signed by one of those authorities.
///
/// # Errors
/// When key and certificate don't fit.
pub fn server(
    identity: Identity,
    clients: Option<RootCertStore>,
    alpn: &[u8],
) -> anyhow::Result<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3 is not to be had")?;
    let builder = match clients {
        Some(roots) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .context("the client authorities can't be used")?,
        ),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(identity.chain, identity.key)
        .context("the server's certificate and key can't be used together")?;
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

/// Whom a client trusts.
#[derive(Debug)]
pub enum Trust {
    /// Servers with a certificate signed by one of these.
    Roots(RootCertStore),
    /// Anybody. Only for `--dev`.
    Anybody,
}

/// A client that trusts `trust` and shows `identity` where it has one.
///
/// # Errors
/// When key and certificate don't fit.
pub fn client(trust: Trust, identity: Option<Identity>, alpn: &[u8]) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3 is not to be had")?;
    let builder = match trust {
        Trust::Roots(roots) => builder.with_root_certificates(roots),
        Trust::Anybody => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(BelieveAnybody(provider)))
        }
    };
    let mut config = match identity {
        Some(identity) => builder
            .with_client_auth_cert(identity.chain, identity.key)
            .context("the client's certificate and key can't be used together")?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

/// Believes that a server is who it says, but still checks that it holds its certificate's key.
#[derive(Debug)]
struct BelieveAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for BelieveAnybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_hold_no_certificate_are_named() {
        let error = certificates(Path::new("/nowhere/cert.pem")).unwrap_err();
        assert!(format!("{error:#}").contains("/nowhere/cert.pem"), "{error:#}");
        let error = certificates(Path::new("/dev/null")).unwrap_err();
        assert!(format!("{error:#}").contains("no certificate"), "{error:#}");
    }

    #[test]
    fn a_replaced_file_is_seen_once() {
        let folder = std::env::temp_dir().join(format!("plimsoll-watched-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (path, other) = (folder.join("cert.pem"), folder.join("new.pem"));
        let mut watched = Watched::new([path.as_path()]);
        assert!(!watched.changed());
        for content in ["one", "two"] {
            std::fs::write(&other, content).unwrap();
            std::fs::rename(&other, &path).unwrap();
            assert!(watched.changed() && !watched.changed(), "{content}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(watched.changed());
    }

    #[test]
    fn a_key_is_never_printed() {
        let (identity, _) = Identity::throw_away(&["localhost"]).unwrap();
        assert_eq!(format!("{identity:?}"), "Identity { chain: 1, .. }");
    }

    #[test]
    fn a_throw_away_identity_serves() {
        let (identity, pem) = Identity::throw_away(&["localhost", "127.0.0.1"]).unwrap();
        assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"));
        let config = server(identity, None, b"x/1").unwrap();
        assert_eq!(config.alpn_protocols, [b"x/1".to_vec()]);
    }
}
