//! A throw-away certificate authority.

use std::path::PathBuf;

use anyhow::Context;
// Only for its features: rcgen and the daemons then share one build of the C library.
use aws_lc_rs as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::world::World;

/// An authority that lives as long as the world whose folder its files are in.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, PEM.
    pub certificate: PathBuf,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority, its certificate in `NAME.pem`.
    ///
    /// # Errors
    /// When it can't be made or written.
    pub fn new(world: &World, name: &str) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("plimsoll test authority {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let made = params.self_signed(&key)?;
        let certificate = world.file(&format!("{name}.pem"));
        std::fs::write(&certificate, made.pem())
            .with_context(|| format!("{} can't be written", certificate.display()))?;
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// A certificate for these host names and addresses, good for a server and for a client, in `NAME.pem` and
    /// `NAME.key`.
    ///
    /// # Errors
    /// When a name is none, or the files can't be written.
    pub fn issue(&self, world: &World, name: &str, hosts: &[&str]) -> anyhow::Result<Identity> {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name.push(DnType::CommonName, name);
        let made = params.signed_by(&key, &self.issuer)?;
        let identity = Identity {
            certificate: world.file(&format!("{name}.pem")),
            key: world.file(&format!("{name}.key")),
        };
        std::fs::write(&identity.certificate, made.pem())?;
        std::fs::write(&identity.key, key.serialize_pem())?;
        Ok(identity)
    }
}
