//! A throw-away certificate authority.

use std::path::PathBuf;

use anyhow::Context;
// Only for its features: rcgen and the daemons then share one build of the C library.
use aws_lc_rs as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};

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

    /// A certificate for these host names, addresses and URIs, good for a server and for a client, in `NAME.pem` and
    /// `NAME.key`.
    ///
    /// # Errors
    /// When a name is none, or the files can't be written.
    pub fn issue(&self, world: &World, name: &str, hosts: &[&str]) -> anyhow::Result<Identity> {
        self.issue_until(world, name, hosts, None)
    }

    /// The same, good only until the first day of `year`. An identity of the same name is replaced.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_until(
        &self,
        world: &World,
        name: &str,
        hosts: &[&str],
        year: Option<i32>,
    ) -> anyhow::Result<Identity> {
        let (uris, hosts): (Vec<&str>, Vec<&str>) = hosts.iter().partition(|name| name.contains("://"));
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(hosts.into_iter().map(str::to_owned).collect::<Vec<_>>())?;
        for uri in uris {
            params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        }
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(year) = year {
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
        }
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
