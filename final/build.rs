//! Packs the relocations of a static build.
//!
//! A program that may be loaded anywhere has a list of all its addresses, to be corrected at each start.
//! As a bit map it takes 2 KB instead of 200, which needn't be read then. The C library that is linked
//! into the program has to know this form: glibc does since 2.36.

use std::{env, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    let is_static = features.split(',').any(|feature| feature == "crt-static");
    if is_static && glibc().is_some_and(|version| version >= (2, 36)) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// This machine's glibc, if the program is built with it.
fn glibc() -> Option<(u32, u32)> {
    let is_native = env::var("HOST") == env::var("TARGET");
    let output =
        is_native.then(|| Command::new("getconf").arg("GNU_LIBC_VERSION").output())?.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
