//! Step 3: a root file system of its own.

use std::{fs, os::unix::fs::symlink};

use anyhow::{Result, ensure};
use tempfile::TempDir;
use tests::{
    chance::Chance,
    machine::Machine,
    programs::program,
    run::finish,
    scenario::{PRIVILEGED, Scenario},
    view,
};

use crate::{
    snapshot,
    steps::{ProbeRoot, step},
};

const STEP: &str = "step03-mnt-pivot";

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("step03::files_are_apart", PRIVILEGED, files_are_apart),
        Scenario::new("step03::mounts_stay_inside", PRIVILEGED, mounts_stay_inside),
        Scenario::new("step03::read_only", PRIVILEGED, read_only),
        Scenario::new("step03::links_in_the_root_lead_nowhere", PRIVILEGED, links_lead_nowhere),
        Scenario::new("step03::no_root", PRIVILEGED, no_root),
    ]
}

fn files_are_apart() -> Result<()> {
    let mut chance = Chance::new("files");
    let outside = TempDir::new()?;
    let outside = outside.path().join(chance.needle());
    fs::write(&outside, "")?;
    let inside = format!("/tmp/{}", chance.needle());
    let script = format!("ls {} 2>/dev/null; echo > {inside} && ls {inside}", outside.display());
    let done = finish(&mut step(STEP, &["sh", "-c", &script]))?.success()?;
    ensure!(done.stdout == format!("{inside}\n"), "inside, these are seen: {}", done.stdout);
    ensure!(!fs::exists(&inside)?, "{inside} is seen outside");
    Ok(())
}

/// `/` is shared here, as on most machines: without `make_private`, the mount would be seen outside.
fn mounts_stay_inside() -> Result<()> {
    finish(&mut step(STEP, &["true"]))?.success()?;
    let before = Machine::now();
    let needle = Chance::new("mounts").needle();
    let script = format!("mount -t tmpfs {needle} /mnt && grep -c {needle} /proc/self/mountinfo");
    let done = finish(&mut step(STEP, &["sh", "-c", &script]))?.success()?;
    ensure!(done.stdout == "1\n", "the mount isn't seen inside: {}", done.stdout);
    before.is_back()
}

fn read_only() -> Result<()> {
    let write = ["--", "sh", "-c", "echo > /file"];
    let refused = finish(program(STEP).arg("--read-only").args(write))?;
    ensure!(refused.code != 0 && refused.stderr.contains("Read-only"), "{}", refused.stderr);
    let script = ["--read-only", "--", "sh", "-c", "echo > /tmp/file && echo > /dev/null"];
    finish(program(STEP).args(script))?.success()?;
    Ok(())
}

/// A root file system may come from anybody: its links mustn't make us mount over the host's files.
fn links_lead_nowhere() -> Result<()> {
    let before = Machine::now();
    let host = TempDir::new()?;
    let root = ProbeRoot::new()?;
    for name in ["proc", "sys", "dev", "tmp"] {
        let place = root.path().join(name);
        fs::remove_dir(&place)?;
        symlink(host.path(), &place)?;
    }
    finish(program(STEP).arg("--rootfs").arg(root.path()).args(["--", "/probe"]))?;
    let found: Vec<_> = fs::read_dir(host.path())?.collect();
    ensure!(found.is_empty(), "outside of the root there is now {found:?}");
    drop((host, root));
    before.is_back()
}

fn no_root() -> Result<()> {
    let dir = TempDir::new()?;
    let file = dir.path().join("file");
    fs::write(&file, "")?;
    let mut told = String::new();
    for root in ["/no/such/directory".as_ref(), file.as_path(), "/".as_ref()] {
        let refused = finish(program(STEP).arg("--rootfs").arg(root).args(["--", "true"]))?;
        told += &refused.with_code(125)?.stderr;
    }
    // An empty directory is a root without any program.
    let empty = TempDir::new()?;
    let refused = finish(program(STEP).arg("--rootfs").arg(empty.path()).args(["--", "true"]))?;
    told += &refused.with_code(127)?.stderr;
    let place = dir.path().display().to_string();
    snapshot::check("step03-error-no-root", &view::normalise(&told, &[(&place, "DIR")]));
    Ok(())
}
