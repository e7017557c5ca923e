//! Step 1: a host name of its own; and the errors of `clone`, `sethostname` and `execve`, which all
//! steps share.

use std::fs;

use anyhow::Result;
use rustix::thread::CapabilitySet;
use tempfile::TempDir;
use tests::{
    programs::program,
    run::finish,
    scenario::{IN_LAB, PRIVILEGED, Scenario},
    view,
};

use crate::{
    snapshot,
    steps::{finish_without, step},
};

const STEP: &str = "step01-uts";

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("step01::names_too_long", PRIVILEGED, names_too_long),
        Scenario::new("step01::not_root", PRIVILEGED, not_root),
        Scenario::new("step01::no_more_namespaces", IN_LAB, no_more_namespaces),
        Scenario::new("step01::no_program", PRIVILEGED, no_program),
    ]
}

fn names_too_long() -> Result<()> {
    finish(program(STEP).args(["--hostname", &"x".repeat(64), "--", "true"]))?.success()?;
    let long = "x".repeat(65);
    let host = finish(program(STEP).args(["--hostname", &long, "--", "true"]))?.with_code(125)?;
    let domain =
        finish(program(STEP).args(["--domainname", &long, "--", "true"]))?.with_code(125)?;
    snapshot::check("step01-error-name-too-long", &(host.stderr + &domain.stderr));
    Ok(())
}

fn not_root() -> Result<()> {
    let refused = finish_without(CapabilitySet::SYS_ADMIN, &mut step(STEP, &["true"]))?;
    snapshot::check("step01-error-not-root", &refused.with_code(125)?.stderr);
    Ok(())
}

fn no_more_namespaces() -> Result<()> {
    fs::write("/proc/sys/user/max_uts_namespaces", "0")?;
    let refused = finish(&mut step(STEP, &["true"]))?.with_code(125)?;
    snapshot::check("step01-error-no-more-namespaces", &refused.stderr);
    Ok(())
}

/// The ways in which execve(2) fails.
fn no_program() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new()?;
    let file = |name: &str, text: &[u8], mode| -> Result<String> {
        let path = dir.path().join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        Ok(path.display().to_string())
    };
    let tried = [
        ("no-such-program".to_owned(), 127),
        ("/no/such/program".to_owned(), 127),
        (file("not-executable", b"#!/bin/sh\n", 0o644)?, 126),
        (file("no-interpreter", b"#!/no/such/interpreter\n", 0o755)?, 127),
        ("/".to_owned(), 126),
    ];
    let mut told = String::new();
    for (program, code) in tried {
        told += &finish(&mut step(STEP, &[program]))?.with_code(code)?.stderr;
    }
    let place = dir.path().display().to_string();
    snapshot::check("step01-error-no-program", &view::normalise(&told, &[(&place, "DIR")]));
    Ok(())
}
