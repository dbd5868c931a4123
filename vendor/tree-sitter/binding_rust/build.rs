//! Compiles the C library, as upstream's build script does, without what is for WebAssembly and bindgen.

use std::{env, fs, path::PathBuf};

fn main() {
    let out_dir = PathBuf::from(env::var("OUT_DIR").unwrap());
    // The bindings include it.
    fs::write(out_dir.join("stdlib-symbols.txt"), "").unwrap();
    println!("cargo:rerun-if-changed=src");
    println!("cargo:rerun-if-changed=include");
    cc::Build::new()
        .std("c11")
        .flag_if_supported("-fvisibility=hidden")
        .include("src")
        .include("include")
        .define("_POSIX_C_SOURCE", "200112L")
        .define("_DEFAULT_SOURCE", None)
        .define("_BSD_SOURCE", None)
        .define("_DARWIN_C_SOURCE", None)
        .warnings(false)
        .file("src/lib.c")
        .compile("tree-sitter");
}
