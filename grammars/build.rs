//! Compiles taper's own scanners.

fn main() {
    println!("cargo:rerun-if-changed=scanners");
    let mut build = cc::Build::new();
    build.std("c11").include("scanners").warnings(false);
    // MSVC would read the sources in the machine's code page.
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "msvc") {
        build.flag("-utf-8");
    }
    for grammar in ["bash", "python", "ruby"] {
        build.file(format!("scanners/{grammar}.c"));
    }
    build.compile("taper-scanners");
}
