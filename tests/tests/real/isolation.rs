//! What the command can't see and can't do, although it may be root inside.

use std::fs;

use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags};
use tests::{
    chance::Chance,
    run::finish,
    scenario::{AS_ROOT, Place, Scenario},
};

use crate::{
    images,
    running::{command, says, sh},
};

const MACHINE: &[Place] = &[Place::Root, Place::User];

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("real::masked_paths", MACHINE, masked_paths),
        Scenario::new("real::no_way_out", MACHINE, no_way_out),
        Scenario::new("real::open_files_stay_outside", MACHINE, open_files),
        Scenario::new("real::open_files_stay_outside_of_users", AS_ROOT, open_files_of_users),
        Scenario::new("real::closed_files_become_null", MACHINE, closed_files),
        Scenario::new("real::capabilities", MACHINE, capabilities),
        Scenario::new("real::hostile_images", AS_ROOT, hostile_images),
    ]
}

fn masked_paths() -> Result<()> {
    let image = images::small()?;
    let script = "for f in kcore keys timer_list interrupts; do
            [ ! -e /proc/$f ] || [ -z \"$(cat /proc/$f)\" ] || echo /proc/$f can be read
        done
        for d in /proc/acpi /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do
            [ ! -e $d ] || [ -z \"$(ls $d)\" ] || echo $d is not empty
        done
        for f in sys/kernel/domainname sys/vm/swappiness sysrq-trigger irq/default_smp_affinity; do
            [ ! -e /proc/$f ] || ! (cat /proc/$f >/proc/$f) 2>/dev/null || echo /proc/$f can be written
        done";
    let seen = says(&[], &image, script)?;
    ensure!(seen.is_empty(), "{seen}");
    // The test itself finds what isn't masked.
    let seen = says(&[], &image, &script.replace("interrupts", "interrupts uptime"))?;
    ensure!(seen == "/proc/uptime can be read", "{seen}");
    Ok(())
}

fn no_way_out() -> Result<()> {
    let image = images::small()?;
    for attempt in [
        "mount -t tmpfs none /tmp",
        "mount -o bind / /tmp",
        "mount -o remount,rw /sys",
        "mount -t cgroup -o memory none /tmp",
        "mount -t cgroup2 none /tmp",
        "umount /proc/sys",
        "umount -l /proc",
        "mknod /tmp/disk b 8 0",
        "hostname other",
        "ip link set lo down",
        "ls /proc/1/root/",
        "ls /proc/1/fd",
        "ls /proc/1/cwd/",
        "chroot /proc/1/root /bin/true",
        "dmesg",
        "kill -9 1; sleep 0; false", // Number 1 doesn't take it.
    ] {
        let tried = sh(&[], &image, &format!("{attempt} && echo possible"))?;
        let possible = tried.stdout.contains("possible");
        ensure!(!possible && (1..125).contains(&tried.code), "`{attempt}`: {tried:?}");
    }
    Ok(())
}

/// A file that is open outside must not be a door: neither the command's own, nor number 1's.
fn open_files() -> Result<()> {
    let image = images::small()?;
    let dir = rustix::fs::open("/", OFlags::DIRECTORY, Mode::empty())?;
    // Without close-on-exec, so `final` inherits it.
    rustix::io::fcntl_setfd(&dir, rustix::io::FdFlags::empty())?;
    let script = "ls -l /proc/self/fd /proc/1/fd";
    for options in [&[][..], &["--cap-add", "ALL"], &["--user", "0:0"]] {
        let seen = finish(&mut command(options, &image, &["sh", "-c", script]))?;
        let leaks = seen.stdout.lines().any(|line| line.ends_with("-> /"));
        ensure!(!leaks && seen.stderr.contains("/proc/1/fd"), "{options:?}: {seen:?}");
    }
    Ok(())
}

/// The same for a plain user, whose ids don't change on the way in.
fn open_files_of_users() -> Result<()> {
    let image = images::small()?;
    let dir = rustix::fs::open("/", OFlags::DIRECTORY, Mode::empty())?;
    rustix::io::fcntl_setfd(&dir, rustix::io::FdFlags::empty())?;
    let run =
        command(&["--cap-add", "ALL"], &image, &["sh", "-c", "ls -l /proc/self/fd /proc/1/fd"]);
    let mut user = tests::programs::clean("setpriv");
    user.args(["--reuid=1000", "--regid=1000", "--clear-groups"]).arg(run.get_program());
    let seen = finish(user.args(run.get_args()))?;
    if seen.code == 125 || !seen.stdout.contains("/proc/self/fd") {
        return tests::scenario::skip(format!("user 1000 can't run it: {}", seen.stderr.trim()));
    }
    ensure!(!seen.stdout.lines().any(|line| line.ends_with("-> /")), "{seen:?}");
    ensure!(
        seen.stderr.contains("/proc/1/fd: Permission denied")
            || seen.stderr.contains("/proc/1/fd'"),
        "{seen:?}"
    );
    Ok(())
}

/// Who closes standard input and output gives the command none of what `final` opens in their place.
fn closed_files() -> Result<()> {
    let image = images::small()?;
    let kinds = "echo $(stat -L -c %t:%T /proc/$$/fd/0 /proc/$$/fd/1) >&2";
    let run = command(&["--net", "none"], &image, &["sh", "-c", kinds]);
    let mut closed = tests::programs::clean("sh");
    closed.args(["-c", "exec \"$0\" \"$@\" <&- >&-"]).arg(run.get_program()).args(run.get_args());
    let seen = finish(&mut closed)?;
    ensure!(seen.code == 0 && seen.stderr.trim() == "1:3 1:3", "{seen:?}"); // The numbers of /dev/null.
    Ok(())
}

fn capabilities() -> Result<()> {
    let image = images::small()?;
    let effective = |options: &[&str]| -> Result<u64> {
        let line = says(options, &image, "grep CapEff /proc/self/status")?;
        Ok(u64::from_str_radix(line.trim_start_matches("CapEff:").trim(), 16)?)
    };
    const NET_ADMIN: u64 = 1 << 12;
    const CHOWN: u64 = 1 << 0;
    let usual = effective(&[])?;
    ensure!(usual & CHOWN != 0 && usual & NET_ADMIN == 0, "{usual:x}");
    for name in ["NET_ADMIN", "CAP_NET_ADMIN", "net_admin"] {
        ensure!(effective(&["--cap-add", name])? == usual | NET_ADMIN);
    }
    ensure!(effective(&["--cap-drop", "CHOWN"])? == usual & !CHOWN);
    ensure!(effective(&["--cap-drop", "ALL"])? == 0);
    ensure!(effective(&["--cap-drop", "all", "--cap-add", "chown"])? == CHOWN);
    ensure!(effective(&["--cap-add", "ALL"])? & (usual | NET_ADMIN) == usual | NET_ADMIN);
    sh(&["--cap-add", "NO_SUCH"], &image, "true")?.with_code(125)?;
    sh(&["--cap-add", "NET_ADMIN"], &image, "ip link set lo down")?.success()?;
    Ok(())
}

/// What a mount lands on may come from anybody: it must not be the host's.
fn hostile_images() -> Result<()> {
    let needle = Chance::new("hostile").needle();
    fs::create_dir("/tmp/outside")?;
    fs::write("/tmp/outside/file", &needle)?;
    let images = [
        ("proc", "ln -s /tmp/outside proc"),
        ("dev", "ln -s ../../../../../../tmp/outside dev"),
        ("sys", "touch sys"),
        ("fifo", "mkfifo proc"),
        ("null", "mkdir dev; ln -s /tmp/outside/file dev/null"),
        ("passwd", "mkdir etc; ln -s /tmp/outside/file etc/passwd"),
        ("loop", "mkdir etc; ln -s passwd etc/passwd; ln -s proc proc"),
    ];
    for (name, script) in images {
        let image = format!("/tmp/{name}");
        images::directory(image.as_ref(), script)?;
        let seen =
            finish(&mut command(&["-v", "/tmp/outside/file:/v"], &image, &["cat", "/etc/passwd"]))?;
        ensure!([1, 125].contains(&seen.code), "{name}: {seen:?}");
        ensure!(!seen.stdout.contains(&needle), "{name}: {seen:?}");
        let outside = fs::read_dir("/tmp/outside")?.count();
        let file = fs::read_to_string("/tmp/outside/file").context(name)?;
        ensure!(outside == 1 && file == needle, "{name} changed the host");
    }
    Ok(())
}
