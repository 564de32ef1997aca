//! Compiles the BPF programs and generates their skeleton into `OUT_DIR`.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libbpf_cargo::SkeletonBuilder;

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Printed as it is: the Debug form that a returned error gets is hard to read.
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    println!("cargo:rerun-if-env-changed=CLANG");
    println!("cargo:rustc-env=NETSPY_VERSION={}", version(&root)?);
    let sources = root.join("src/bpf");
    for directory in [&sources, &root.join("vmlinux")] {
        track(directory)?;
    }
    check_clang(&clang)?;
    let arch = target_arch()?;
    // Objects of their own fail by themselves.
    for object in ["connect", "drops"] {
        let (source, target) = (format!("{object}.bpf.c"), format!("{object}.skel.rs"));
        skeleton(&clang, &root, arch, &sources.join(source), &out.join(target))?;
    }
    if env::var_os("CARGO_FEATURE_BENCH_PEERS").is_some() {
        // The tracers that the overhead bench compares with.
        let peers = root.join("benches/overhead/probes.bpf.c");
        println!("cargo:rerun-if-changed={}", peers.display());
        skeleton(&clang, &root, arch, &peers, &out.join("probes.skel.rs"))?;
    }
    Ok(())
}

/// The version of the package, and the commit that it was built from where that is known.
fn version(root: &Path) -> Result<String, Box<dyn Error>> {
    let version = env::var("CARGO_PKG_VERSION")?;
    println!("cargo:rerun-if-env-changed=NETSPY_COMMIT");
    // For those who build from an archive.
    let named = env::var("NETSPY_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = named.or_else(|| commit(root));
    let commit = commit.filter(|commit| commit.bytes().all(|b| b.is_ascii_alphanumeric()));
    Ok(commit.map_or_else(|| version.clone(), |commit| format!("{version} ({commit})")))
}

/// The commit that is checked out, if the package is at the top of a repository.
fn commit(root: &Path) -> Option<String> {
    // In a repository of something else, its commit says nothing of this package.
    if Path::new(&git(root, &["rev-parse", "--show-toplevel"])?).canonicalize().ok()
        != root.canonicalize().ok()
    {
        return None;
    }
    let commit = git(root, &["rev-parse", "--short=12", "HEAD"])?;
    // HEAD changes with the branch, the branch with the commit, which may be among packed ones.
    let branch = git(root, &["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "packed-refs", "logs/HEAD"].into_iter().chain(branch.as_deref()) {
        let path = root.join(git(root, &["rev-parse", "--git-path", name])?);
        if path.exists() {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
    Some(commit)
}

fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Rebuilds when a file of the directory changes, and when one is added.
fn track(directory: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={}", directory.display());
    for entry in std::fs::read_dir(directory)? {
        println!("cargo:rerun-if-changed={}", entry?.path().display());
    }
    Ok(())
}

fn check_clang(clang: &str) -> Result<(), Box<dyn Error>> {
    let output = Command::new(clang).arg("--print-targets").output().map_err(|e| {
        format!(
            "cannot run {clang} ({e}), which compiles the BPF programs; install it \
             (Debian, Ubuntu: apt-get install clang; Fedora: dnf install clang), \
             or name another in the environment variable CLANG"
        )
    })?;
    let targets = String::from_utf8_lossy(&output.stdout);
    // Before clang 11 the option is unknown; then its own error about the target has to do.
    if output.status.success() && !targets.contains("bpf") {
        return Err(
            format!("{clang} was built without the BPF target; install LLVM's clang").into()
        );
    }
    Ok(())
}

/// The name that bpf_tracing.h has for the architecture built for.
fn target_arch() -> Result<&'static str, Box<dyn Error>> {
    match env::var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "x86_64" => Ok("x86"),
        "aarch64" => Ok("arm64"),
        other => Err(format!(
            "netspy does not know how to read system-call arguments on {other}; \
             known are x86_64 and aarch64 (see vmlinux/vmlinux.h)"
        )
        .into()),
    }
}

fn skeleton(
    clang: &str,
    root: &Path,
    arch: &str,
    source: &Path,
    target: &Path,
) -> Result<(), Box<dyn Error>> {
    let vmlinux = root.join("vmlinux");
    SkeletonBuilder::new()
        .source(source)
        .clang(clang)
        .clang_args([
            "-I".as_ref(),
            vmlinux.as_os_str(),
            format!("-D__TARGET_ARCH_{arch}").as_ref(),
            "-Wall".as_ref(),
            "-Wextra".as_ref(),
            "-Wno-unused-parameter".as_ref(),
            "-Wno-missing-field-initializers".as_ref(),
            "-Werror".as_ref(),
            // Later versions of the instruction set have atomics that 5.10 does not know.
            "-mcpu=v2".as_ref(),
        ])
        .build_and_generate(target)
        .map_err(|e| format!("{e:#}").into())
}
