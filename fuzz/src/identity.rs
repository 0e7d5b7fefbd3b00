//! What somebody shows to prove who they are.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use plimsoll_common::{ids::NodeName, wire::Token};
use plimsoll_planner::ingest::{Certificates, Claim, NodeVerifier as _, node_keys};
use plimsoll_shell::{http::shown_token, secret};
use rustls_pki_types::CertificateDer;

/// Reads bytes as a certificate, as files of tokens and keys, and as an `Authorization` header.
pub fn proofs(data: &[u8]) {
    certificate(data);
    header(data);
    let text = String::from_utf8_lossy(data);
    if let Ok(keys) = node_keys(&text) {
        let lines = keys.iter().map(|(node, hash)| {
            let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{node} {hex}\n")
        });
        // A node's name may hold blanks within only where it could never be read, so that what is written is read back.
        assert_eq!(node_keys(&lines.collect::<String>()).expect("keys as they are written"), keys);
    }
    if let Ok(tokens) = secret::tokens(&text) {
        assert!(tokens.iter().all(|token| secret::token(token) == Ok(*token)));
    }
    if let Some(token) = Token::parse(&text) {
        assert_eq!(token.as_bytes(), text.trim().as_bytes());
    }
}

/// A certificate proves a node only where it holds the node's whole name.
fn certificate(data: &[u8]) {
    let Ok(node) = NodeName::parse("gpu-7") else { return };
    let verifier = Certificates { trust_domain: "plimsoll".to_owned() };
    let certificate = CertificateDer::from(data);
    let claim = Claim { node: &node, certificate: Some(&certificate), token: None };
    let checked = pin!(verifier.check(claim)).poll(&mut Context::from_waker(Waker::noop()));
    if checked == Poll::Ready(Ok(())) {
        let name = b"spiffe://plimsoll/node/gpu-7";
        assert!(data.windows(name.len()).any(|window| window == name), "proven without the name");
    }
}

fn header(data: &[u8]) {
    if let Some(token) = shown_token(data) {
        assert!(!token.is_empty() && token.len() < data.len());
    }
}
