//! Where a daemon really listens: with port 0 only it knows, and who started it wants to.

use std::{collections::BTreeMap, io, net::SocketAddr, path::Path};

/// Writes the bound addresses as a JSON object, `{"http": "127.0.0.1:40123"}`. The file appears whole or not at all.
///
/// # Errors
/// When the file or its temporary neighbour can't be written.
pub fn write(path: &Path, addresses: &BTreeMap<&str, SocketAddr>) -> io::Result<()> {
    let mut neighbour = path.as_os_str().to_owned();
    neighbour.push(".new");
    std::fs::write(&neighbour, serde_json::to_vec(addresses)?)?;
    std::fs::rename(&neighbour, path)
}
