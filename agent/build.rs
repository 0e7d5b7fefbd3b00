//! Generates the messages of the gRPC interfaces that the agent speaks: the kubelet's pod-resources API as a client, OTLP
//! traces as a server. Pure Rust: no `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    const FOLDER: &str = "proto";
    println!("cargo::rerun-if-changed={FOLDER}");
    let generate = || tonic_prost_build::configure().build_transport(false);
    // The other side of each is for tests, which play the kubelet and the engine.
    let kubelet = protox::compile(["proto/podresources.proto"], [FOLDER])?;
    generate().server_mod_attribute(".", "#[cfg(test)]").compile_fds(kubelet)?;
    let otlp = protox::compile(["proto/otlp_traces.proto"], [FOLDER])?;
    generate().client_mod_attribute(".", "#[cfg(test)]").compile_fds(otlp)?;
    Ok(())
}
