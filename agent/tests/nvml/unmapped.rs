//! While NVML is released, its library is not mapped: a driver can be unloaded, and its files be replaced.

use std::{path::Path, process::Command, time::Duration};

use plimsoll_agent::gpu::{self, GpuOptions, Stopped};

use crate::support::{Folder, PATIENCE, until};

/// Builds a library that can be unmapped; why not, where there is no C compiler. A compiler that is there and fails is a
/// failure.
fn build(library: &Path) -> Result<(), String> {
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nvml/small_nvml.c");
    let mut command = Command::new(&compiler);
    let built = command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(library).arg(source).status();
    let status = built.map_err(|error| format!("{} can't be run: {error}", compiler.display()))?;
    assert!(status.success(), "{} failed: {status}", compiler.display());
    Ok(())
}

/// Whether this process has the file mapped.
fn is_mapped(file: &Path) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().any(|line| line.ends_with(file.to_str().unwrap()))
}

#[tokio::test]
async fn a_release_unmaps_the_library() {
    let folder = Folder::new();
    // A name of its own in this process, which other tests share.
    let library = folder.path().join("libnvidia-ml.so.1");
    if let Err(reason) = build(&library) {
        println!("SKIPPED: whether the library is unmapped: {reason}");
        return;
    }
    assert!(!is_mapped(&library));
    let interval = GpuOptions::MIN_INTERVAL;
    let options = GpuOptions { library: Some(library.clone()), interval, ..GpuOptions::default() };
    let monitor = gpu::spawn(options);
    let told = |power: Option<u64>| power == Some(123_000);
    until(&monitor, |now| now.gpus.first().is_some_and(|gpu| told(gpu.power_mw))).await;
    assert!(is_mapped(&library));

    monitor.control().release(Duration::from_secs(60)).unwrap();
    until(&monitor, |now| now.release.is_some()).await;
    assert!(!is_mapped(&library), "a release leaves the library mapped");

    monitor.control().resume().unwrap();
    until(&monitor, |now| now.gpus.first().is_some_and(|gpu| told(gpu.power_mw))).await;
    assert!(is_mapped(&library));
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
    assert!(!is_mapped(&library), "the end leaves the library mapped");
}
