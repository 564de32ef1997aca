//! Compiles BPF programs to skeletons in `OUT_DIR`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_BENCH_PEERS").is_some() {
        bench_peers()?;
    }
    Ok(())
}

/// The programs that `benches/overhead` compares with. `bpf/bpf_helpers.h` and its kin are
/// embedded in libbpf-cargo, which hands them to clang by itself; no other header is used.
fn bench_peers() -> Result<(), Box<dyn Error>> {
    const SOURCE: &str = "benches/overhead/naive.bpf.c";
    println!("cargo::rerun-if-changed={SOURCE}");
    let out = std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    libbpf_cargo::SkeletonBuilder::new()
        .source(SOURCE)
        .clang_args(["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"])
        .build_and_generate(std::path::Path::new(&out).join("naive.skel.rs"))
        .map_err(|e| format!("{SOURCE}: {e:#} (is clang installed? package clang)").into())
}
