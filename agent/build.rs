//! Generates the messages and the client of the kubelet's pod-resources API. Pure Rust: no `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    const PROTO: &str = "proto/podresources.proto";
    println!("cargo::rerun-if-changed={PROTO}");
    let files = protox::compile([PROTO], ["proto"])?;
    // The server is for tests, which play the kubelet.
    tonic_prost_build::configure()
        .build_transport(false)
        .server_mod_attribute(".", "#[cfg(test)]")
        .compile_fds(files)?;
    Ok(())
}
