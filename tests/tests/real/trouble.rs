//! Nothing is left behind, however it ends; and many may run at once.

use std::{fs, process::Stdio, thread};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    chance::Chance,
    machine::Machine,
    programs,
    run::finish,
    scenario::{AS_ROOT, Place, Scenario},
};

use crate::{
    images,
    running::{Running, command, left_in_store, says, sh},
};

const MACHINE: &[Place] = &[Place::Root, Place::User];

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("real::signals", MACHINE, signals),
        Scenario::new("real::leaves_nothing", AS_ROOT, leaves_nothing),
        Scenario::new("real::disk_full", AS_ROOT, disk_full),
        Scenario::new("real::many_at_once", AS_ROOT, many_at_once),
        Scenario::new("real::damaged_images", AS_ROOT, damaged_images),
        Scenario::new("real::another_map_of_ids", AS_ROOT, another_map),
    ]
}

fn signals() -> Result<()> {
    let image = images::small()?;
    let wait = "echo ready; while :; do sleep 1 & wait; done";
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129), (Signal::SIGUSR1, 138)] {
        let mut running = Running::start(&mut command(&[], &image, &["sh", "-c", wait]))?;
        running.line()?;
        running.signal(signal)?;
        let end = running.end()?;
        ensure!(end == Some(code), "{signal}: {end:?}");
    }
    let script = format!("trap 'echo caught; exit 3' TERM; {wait}");
    let mut running = Running::start(&mut command(&[], &image, &["sh", "-c", &script]))?;
    running.line()?;
    running.signal(Signal::SIGTERM)?;
    ensure!(running.line()? == "caught");
    ensure!(running.end()? == Some(3));
    Ok(())
}

fn leaves_nothing() -> Result<()> {
    let image = images::small()?;
    sh(&[], &image, "true")?.success()?; // The layers stay.
    let before = Machine::now();
    let nothing_left = |when: &str| -> Result<()> {
        before.is_back().context(when.to_owned())?;
        let left = left_in_store()?;
        ensure!(left.is_empty(), "{when}: {left:?}");
        Ok(())
    };
    let limits = ["--memory", "64m", "--pids", "64"];
    for more in [&[][..], &["--disk"]] {
        let options = [&limits[..], more].concat();
        sh(&options, &image, "mkdir -p /a/b; chmod 0 /a; sleep 1000 &")?.success()?;
        nothing_left("after success")?;
        finish(&mut command(&options, &image, &["no-such-program"]))?.with_code(127)?;
        nothing_left("after a failure")?;
        let script = "echo x >/file; sleep 1000 & echo ready; sleep 1000";
        let mut running = Running::start(&mut command(&options, &image, &["sh", "-c", script]))?;
        running.line()?;
        running.signal(Signal::SIGKILL)?;
        running.end()?;
        nothing_left("after a kill")?;
    }
    Ok(())
}

fn disk_full() -> Result<()> {
    let image = images::small()?;
    fs::create_dir("/tmp/store")?;
    let mut mount = programs::clean("mount");
    // Room for the folders, and for half of a busybox.
    finish(mount.args(["-t", "tmpfs", "-o", "size=1m,mode=755", "full", "/tmp/store"]))?
        .success()?;
    let full = sh(&[], &image, "true")?.with_code(125)?;
    ensure!(full.stderr.contains("No space left on device"), "{}", full.stderr);
    let layers = || -> Result<Vec<String>> {
        let mut find = programs::clean("find");
        let found = finish(find.args(["/tmp/store", "-size", "+8k"]))?.success()?;
        Ok(found.stdout.lines().map(str::to_owned).collect())
    };
    let left = layers()?;
    ensure!(left.is_empty(), "{left:?}");
    finish(programs::clean("mount").args(["-o", "remount,size=100m", "/tmp/store"]))?.success()?;
    ensure!(says(&[], &image, "cat replaced")? == "second");
    ensure!(!layers()?.is_empty(), "there would have been something to find");
    finish(programs::clean("umount").arg("/tmp/store"))?.success()?;
    Ok(())
}

/// Eight that all want to unpack the same image first, and then forty that needn't.
fn many_at_once() -> Result<()> {
    let image = images::small()?;
    let needle = Chance::new("many").needle();
    for count in [8, 40] {
        let ends: Vec<Result<()>> = thread::scope(|scope| {
            let run = |n: usize| {
                let said = format!("{needle}-{n}");
                let script = format!("echo {said} >/file; cat /file replaced");
                let seen = says(&[], &image, &script)?;
                ensure!(seen == format!("{said}\nsecond"), "{seen}");
                Ok(())
            };
            let all: Vec<_> = (0..count).map(|n| scope.spawn(move || run(n))).collect();
            all.into_iter().map(|one| one.join().expect("no thread panics")).collect()
        });
        ends.into_iter().collect::<Result<()>>().with_context(|| format!("{count} at once"))?;
    }
    ensure!(left_in_store()?.is_empty(), "{:?}", left_in_store()?);
    Ok(())
}

fn damaged_images() -> Result<()> {
    let make = "tar -cf whole.tar --format=gnu /bin/busybox /usr/bin/busybox /bin/sh 2>/dev/null || true
        gzip -k whole.tar; head -c 3000 whole.tar >short.tar; head -c 3000 whole.tar.gz >short.tar.gz
        : >empty; echo text >text; mkdir folder";
    let mut sh = programs::clean("sh");
    finish(sh.args(["-euc", make]).current_dir("/tmp"))?.success()?;
    for image in ["short.tar", "short.tar.gz", "empty", "text", "folder"] {
        let image = format!("/tmp/{image}");
        let seen = finish(command(&[], &image, &["true"]).stdin(Stdio::null()))?.with_code(125)?;
        ensure!(seen.stderr.contains(&image), "{}", seen.stderr);
    }
    Ok(())
}

/// The same layers for other ids inside have other owners outside: they are no others' to use.
fn another_map() -> Result<()> {
    let image = images::small()?;
    let owner = "stat -c %u:%g /home/ada; stat -c %u:%g /";
    for ids in ["200000:1", "200000:65536", "300000:2000"] {
        let seen = says(&["--ids", ids], &image, owner)?;
        let expected = if ids.ends_with(":1") { "0:0\n0:0" } else { "1001:1002\n0:0" };
        ensure!(seen == expected, "--ids {ids}: {seen}");
    }
    Ok(())
}
