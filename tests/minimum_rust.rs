//! The minimum Rust version of the workspace, compared with what the locked packages require. Clippy's
//! `incompatible_msrv` checks our own code.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

const MINIMUM: &str = env!("CARGO_PKG_RUST_VERSION");

fn version(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|part| part.parse().ok()).collect()
}

/// The packages of `cargo metadata` that require a newer compiler than `minimum`.
fn packages_requiring_newer(metadata: &Value, minimum: &str) -> Vec<String> {
    let minimum = version(minimum).unwrap();
    let asks = |package: &Value| {
        let required = package["rust_version"].as_str()?;
        let is_newer = version(required).is_none_or(|required| required > minimum);
        is_newer.then(|| format!("{} requires Rust {required}", package["id"].as_str().unwrap_or_default()))
    };
    metadata["packages"].as_array().unwrap().iter().filter_map(asks).collect()
}

/// Cargo's output, if it succeeds.
fn cargo(arguments: &[&str]) -> Result<String, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output =
        Command::new(cargo).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let decoded = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(decoded(&output.stdout)) } else { Err(decoded(&output.stderr)) }
}

#[test]
fn locked_packages_require_no_newer_compiler() {
    const METADATA: [&str; 5] = ["metadata", "--format-version", "1", "--locked", "--offline"];
    // Nothing is fetched. If the packages of other systems are not on this machine, only its own are checked.
    let all = cargo(&METADATA).or_else(|_| {
        let about = cargo(&["--version", "--verbose"])?;
        let host = about.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        taper_engine::testing::print_skipped(&format!(
            "packages for other systems than {host}; `cargo fetch --locked` brings them"
        ));
        cargo(&[&METADATA[..], &["--filter-platform", host]].concat())
    });
    let metadata: Value = serde_json::from_str(&all.unwrap()).unwrap();
    assert!(metadata["packages"].as_array().unwrap().len() > 100);
    let newer = packages_requiring_newer(&metadata, MINIMUM);
    assert!(newer.is_empty(), "raise rust-version in Cargo.toml, now {MINIMUM}:\n{}", newer.join("\n"));
}

#[test]
fn readme_states_minimum_rust_version() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    assert!(readme.contains(&format!("Rust {MINIMUM} or newer")), "README.md does not name Rust {MINIMUM}");
}

#[test]
fn package_requiring_newer_compiler_is_found() {
    let package = |required: Value| json!({ "id": "p@1.0.0", "rust_version": required });
    for (required, is_newer) in [
        (json!("1.91"), true),
        (json!("2.0"), true),
        (json!("1.90.1"), true),
        (json!("soon"), true),
        (json!("1.90"), false),
        (json!("1.9.9"), false),
        (Value::Null, false),
    ] {
        let metadata = json!({ "packages": [package(required.clone())] });
        assert_eq!(packages_requiring_newer(&metadata, "1.90").len(), usize::from(is_newer), "{required}");
    }
}
