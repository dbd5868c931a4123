//! The oldest compiler that the workspace promises to build with, compared with what the locked packages ask for.
//! It knows nothing of whether our own code keeps the promise: clippy's `incompatible_msrv` sees to that.
#![expect(clippy::unwrap_used, reason = "a test may")]

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

const MINIMUM: &str = env!("CARGO_PKG_RUST_VERSION");

fn version(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|part| part.parse().ok()).collect()
}

/// The packages of `cargo metadata` that ask for a newer compiler than `minimum`.
fn newer(metadata: &Value, minimum: &str) -> Vec<String> {
    let minimum = version(minimum).unwrap();
    let asks = |package: &Value| {
        let asked = package["rust_version"].as_str()?;
        let is_newer = version(asked).is_none_or(|asked| asked > minimum);
        is_newer.then(|| format!("{} asks for Rust {asked}", package["id"].as_str().unwrap_or_default()))
    };
    metadata["packages"].as_array().unwrap().iter().filter_map(asks).collect()
}

/// What cargo says, if it can.
fn cargo(arguments: &[&str]) -> Result<String, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output =
        Command::new(cargo).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that checks less says so")]
fn no_locked_package_asks_for_a_newer_compiler() {
    const METADATA: [&str; 5] = ["metadata", "--format-version", "1", "--locked", "--offline"];
    // Nothing is fetched. Where the packages of other systems are not on this machine, only its own are looked at.
    let all = cargo(&METADATA).or_else(|_| {
        let about = cargo(&["--version", "--verbose"])?;
        let host = about.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        eprintln!("only the packages for {host}: `cargo fetch --locked` brings the others");
        cargo(&[&METADATA[..], &["--filter-platform", host]].concat())
    });
    let metadata: Value = serde_json::from_str(&all.unwrap()).unwrap();
    assert!(metadata["packages"].as_array().unwrap().len() > 100);
    let newer = newer(&metadata, MINIMUM);
    assert!(newer.is_empty(), "raise rust-version in Cargo.toml, now {MINIMUM}:\n{}", newer.join("\n"));
}

#[test]
fn the_readme_names_the_minimum() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    assert!(readme.contains(&format!("Rust {MINIMUM} or newer")), "README.md does not say Rust {MINIMUM}");
}

#[test]
fn a_newer_package_is_found() {
    let package = |asked: Value| json!({ "id": "p@1.0.0", "rust_version": asked });
    for (asked, is_newer) in [
        (json!("1.91"), true),
        (json!("2.0"), true),
        (json!("1.90.1"), true),
        (json!("soon"), true),
        (json!("1.90"), false),
        (json!("1.9.9"), false),
        (Value::Null, false),
    ] {
        let metadata = json!({ "packages": [package(asked.clone())] });
        assert_eq!(newer(&metadata, "1.90").len(), usize::from(is_newer), "{asked}");
    }
}
