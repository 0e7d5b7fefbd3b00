//! Whether an agent is who it says it is: the node that a hello claims must be the node that was proven.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Mutex, PoisonError},
};

use anyhow::Context;
use aws_lc_rs::{constant_time, digest};
use plimsoll_common::{ids::NodeName, wire::Token};
use plimsoll_shell::tls::Watched;
use rustls_pki_types::CertificateDer;

/// The longest key file that is read.
const MAX_KEY_FILE_BYTES: u64 = 16 << 20;

/// What an agent says, and what it shows for it.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The node that it claims to be on.
    pub node: &'a NodeName,
    /// Its certificate, which TLS has checked to come from a trusted authority.
    pub certificate: Option<&'a CertificateDer<'a>>,
    /// The token of its hello.
    pub token: Option<&'a Token>,
}

/// Why a claim is not believed. The reason is told to the agent; it holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unproven(pub String);

/// How a claim is checked; asking somebody else for it may take a while.
pub type Checked<'a> = Pin<Box<dyn Future<Output = Result<(), Unproven>> + Send + 'a>>;

/// Who decides whether a claim is believed.
pub trait NodeVerifier: fmt::Debug + Send + Sync {
    /// Checks a claim.
    fn check<'a>(&'a self, claim: Claim<'a>) -> Checked<'a>;
}

/// Believes every claim: for one machine, and where one certificate serves all agents.
#[derive(Debug, Clone, Copy)]
pub struct Anybody;

impl NodeVerifier for Anybody {
    fn check<'a>(&'a self, _claim: Claim<'a>) -> Checked<'a> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Believes what a certificate says: one of its URI names must be `spiffe://TRUST_DOMAIN/node/NODE`.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The trust domain.
    pub trust_domain: String,
}

impl NodeVerifier for Certificates {
    fn check<'a>(&'a self, claim: Claim<'a>) -> Checked<'a> {
        Box::pin(std::future::ready(self.check_now(claim)))
    }
}

impl Certificates {
    fn check_now(&self, claim: Claim<'_>) -> Result<(), Unproven> {
        let certificate = claim.certificate.ok_or_else(|| Unproven("no certificate was shown".to_owned()))?;
        let parsed = webpki::EndEntityCert::try_from(certificate)
            .map_err(|error| Unproven(format!("the certificate can't be read: {error}")))?;
        let wanted = format!("spiffe://{}/node/{}", self.trust_domain, claim.node);
        if parsed.valid_uri_names().any(|name| name == wanted) {
            return Ok(());
        }
        Err(Unproven(format!("the certificate does not name {wanted}")))
    }
}

/// Believes whoever knows a node's secret: a file tells the SHA-256 of each node's token.
///
/// One node a line, `NODE SHA256` with the hash in hexadecimal; empty lines and those that begin with `#` do not count. The
/// file is read anew when it changes.
pub struct Keys {
    path: PathBuf,
    known: Mutex<Known>,
}

struct Known {
    watched: Watched,
    hashes: BTreeMap<NodeName, [u8; 32]>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Keys {
    /// Reads the file.
    ///
    /// # Errors
    /// When it can't be read or holds something else.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let watched = Watched::new([path]);
        let hashes = read(path)?;
        Ok(Self { path: path.to_owned(), known: Mutex::new(Known { watched, hashes }) })
    }

    fn check_now(&self, claim: Claim<'_>) -> Result<(), Unproven> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.watched.changed() {
            match read(&self.path) {
                Ok(hashes) => known.hashes = hashes,
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "the nodes' keys can't be read anew; those read before count");
                }
            }
        }
        let token = claim.token.ok_or_else(|| Unproven("no token was shown".to_owned()))?;
        // An unknown node takes as long as a wrong token and is told the same.
        let unknown = [0; 32];
        let expected = known.hashes.get(claim.node);
        let shown = digest::digest(&digest::SHA256, token.as_bytes());
        let same =
            constant_time::verify_slices_are_equal(shown.as_ref(), expected.unwrap_or(&unknown)).is_ok();
        if same && expected.is_some() {
            return Ok(());
        }
        Err(Unproven(format!("the token does not prove node {}", claim.node)))
    }
}

impl NodeVerifier for Keys {
    fn check<'a>(&'a self, claim: Claim<'a>) -> Checked<'a> {
        Box::pin(std::future::ready(self.check_now(claim)))
    }
}

fn read(path: &Path) -> anyhow::Result<BTreeMap<NodeName, [u8; 32]>> {
    let length = std::fs::metadata(path).with_context(|| format!("{} can't be read", path.display()))?.len();
    anyhow::ensure!(length <= MAX_KEY_FILE_BYTES, "{} has {length} bytes, too many", path.display());
    let text = std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
    node_keys(&text).with_context(|| format!("{} can't be used", path.display()))
}

/// Takes a text as nodes' keys: a line `NODE SHA256` for each node, the hash in hexadecimal; empty lines and those that begin
/// with `#` do not count.
///
/// # Errors
/// When a line is something else, or there is none. The line's number is told, not its text.
pub fn node_keys(text: &str) -> anyhow::Result<BTreeMap<NodeName, [u8; 32]>> {
    let mut hashes = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // What a line holds is not repeated: somebody may have put a token there by mistake.
        let parsed = line
            .split_once(char::is_whitespace)
            .and_then(|(node, hash)| Some((NodeName::parse(node).ok()?, from_hex(hash.trim())?)));
        let (node, hash) =
            parsed.with_context(|| format!("line {number} is not NODE and 64 hexadecimal digits"))?;
        hashes.insert(node, hash);
    }
    anyhow::ensure!(!hashes.is_empty(), "no node is named");
    Ok(hashes)
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high * 16 + low).collect();
    rest.is_empty().then_some(bytes)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use plimsoll_shell::tls::Identity;

    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).unwrap()
    }

    #[test]
    fn a_certificate_proves_the_nodes_that_it_names_and_no_other() {
        let names = ["agent.example", "spiffe://fleet.example/node/a", "spiffe://other.example/node/b"];
        let (identity, _) = Identity::throw_away(&names).unwrap();
        let verifier = Certificates { trust_domain: "fleet.example".to_owned() };
        let check = |name: &str, certificate| {
            verifier.check_now(Claim { node: &node(name), certificate, token: None })
        };
        assert_eq!(check("a", Some(&identity.chain[0])), Ok(()));
        for other in ["b", "agent.example", "a/", "A"] {
            let refused = check(other, Some(&identity.chain[0])).unwrap_err();
            assert!(refused.0.contains("does not name spiffe://fleet.example/node/"), "{refused}");
        }
        assert!(check("a", None).is_err());
        assert!(check("a", Some(&CertificateDer::from(vec![0x30, 0x80]))).is_err());
    }

    #[test]
    fn a_token_proves_the_node_of_its_key_and_keys_are_read_anew() {
        let folder = std::env::temp_dir().join(format!("plimsoll-keys-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("keys");
        // The SHA-256 of "abc", of FIPS 180-2's first example.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        std::fs::write(&path, format!("# nodes\n\n a {abc}\nb {}\n", "0".repeat(64))).unwrap();
        let keys = Keys::read(&path).unwrap();
        let check = |name: &str, token: Option<&str>| {
            let token = token.and_then(Token::parse);
            keys.check_now(Claim { node: &node(name), certificate: None, token: token.as_ref() })
        };
        assert_eq!(check("a", Some("abc\n")), Ok(()));
        for (name, token) in [("a", Some("abd")), ("a", None), ("b", Some("abc")), ("nobody", Some("abc"))] {
            let refused = check(name, token).unwrap_err();
            assert!(!refused.0.contains("abc") && !refused.0.contains("abd"), "{refused}");
        }
        std::fs::write(&path, format!("c {abc}\n")).unwrap();
        assert!(check("a", Some("abc")).is_err());
        assert_eq!(check("c", Some("abc")), Ok(()));
        // A file that was cut short does not lock everybody out.
        std::fs::write(&path, "c ba78\n").unwrap();
        assert_eq!(check("c", Some("abc")), Ok(()));
        assert!(!format!("{keys:?}").contains("ba78"));
        std::fs::write(&path, "c my-secret-token\n").unwrap();
        let error = format!("{:#}", Keys::read(&path).unwrap_err());
        assert!(error.contains("line 1") && !error.contains("secret"), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
