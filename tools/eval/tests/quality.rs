//! The scores of the real default model do not fall below the kept ones.

use std::process::Command;

/// The scores of the kept sample do not fall; `benches/quality/README.md` describes how to keep new ones.
#[test]
fn scores_of_kept_sample_do_not_fall() {
    let Some(model) = taper_engine::testing::real_model() else { return };
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/quality");
    let output = Command::new(env!("CARGO_BIN_EXE_taper-eval"))
        .args(["run", "sample.jsonl", "--check", "sample.csv", "--model"])
        .arg(model)
        .current_dir(kept)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}\n{}", String::from_utf8_lossy(&output.stdout));
    assert!(stderr.contains("no score fell"), "{stderr}");
}
