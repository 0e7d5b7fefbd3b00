//! How the shared library is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The driver's library says that its name is `libnvidia-ml.so.1`, and so does this one. The name matters only to
    // programs that are linked against it or look it up by name: loading by path is not touched by it.
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libnvidia-ml.so.1");
        // A board's counters live in the driver and outlive `dlclose`; ours live in the library, so it stays loaded.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
