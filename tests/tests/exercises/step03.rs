//! The exercises of step 3: a root file system of its own.

use std::{
    fs,
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::pivot_root,
};
use tempfile::TempDir;
use tests::{
    chance::Chance,
    held::Held,
    programs::{clean, probe, program},
    run::finish,
    scenario::{IN_LAB, PRIVILEGED, Scenario},
};

use crate::{
    step01::{Question, of_io},
    step02::children,
};

const STEP: &str = "step03-mnt-pivot";
const ANSWERS: &str = "step03-mnt-pivot/exercises/errno.toml";

pub fn scenarios() -> Vec<Scenario> {
    let mut all = vec![
        Scenario::new("exercises::3.1::the_old_root_is_gone", PRIVILEGED, the_old_root_is_gone),
        Scenario::new("exercises::3.2::the_host_sees_no_mount", PRIVILEGED, the_host_sees_no_mount),
        Scenario::new(
            "exercises::3.2::a_root_on_another_mount",
            PRIVILEGED,
            a_root_on_another_mount,
        ),
        Scenario::new("exercises::3.3::nothing_is_written", PRIVILEGED, nothing_is_written),
        Scenario::new("exercises::3.5::out_of_a_chroot", PRIVILEGED, out_of_a_chroot),
        Scenario::new("exercises::3.6::a_root_in_memory", PRIVILEGED, a_root_in_memory),
    ];
    all.extend(QUESTIONS.map(|question| {
        let name = format!("exercises::3.4::{}", question.key);
        Scenario::new(name, IN_LAB, move || question.is_answered(ANSWERS))
    }));
    all
}

/// Whoever enters the mount namespace lands in its root, and not in that of a process: there, a
/// chroot would show the whole host, and so would an old root that is still mounted.
fn the_old_root_is_gone() -> Result<()> {
    let mut chance = Chance::new("root");
    let outside = TempDir::new()?;
    let outside = outside.path().join(chance.needle());
    fs::write(&outside, "")?;
    let inside = format!("/tmp/{}", chance.needle());
    let script = format!("echo >{inside}; echo ready; read end");
    let mut held = Held::start(program(STEP).args(["--", "sh", "-c", &script]))?;
    held.says("ready")?;
    let init = *children(held.pid() as i32)?.first().context("the step has no child")?;
    let seen = |file: &Path| -> Result<bool> {
        let mut command = clean("nsenter");
        let command = command.args(["--target", &init.to_string(), "--mount", "ls"]).arg(file);
        Ok(finish(command)?.code == 0)
    };
    ensure!(
        !seen(&outside)?,
        "the host's {} can still be reached from inside of the mount namespace. chroot(2) changes \
         where names begin, and nothing else: pivot_root(2) puts the new root into the old one's \
         place, and umount2(2) takes the old one away. See pivot_root(2).",
        outside.display()
    );
    ensure!(seen(Path::new(&inside))?, "what was written to {inside} inside isn't there");
    Ok(())
}

/// The mounts of this namespace, without their numbers, and whether they are shared.
fn mounts() -> Result<Vec<String>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mount = |line: &str| {
        let place = line.split(' ').skip(3).take(2).collect::<Vec<_>>().join(" at ");
        if line.contains(" shared:") { place + ", shared" } else { place + ", private" }
    };
    Ok(table.lines().map(mount).collect())
}

/// No mount is seen here that wasn't there before, while the step runs and after it.
fn the_host_sees_no_mount() -> Result<()> {
    let before = mounts()?;
    let new = || -> Result<String> {
        let now = mounts()?;
        let new = now.iter().filter(|mount| !before.contains(mount));
        Ok(new.map(|mount| format!("\n  {mount}")).collect())
    };
    let mut command = program(STEP);
    let mut held = Held::start(command.args(["--", "sh", "-c", "echo ready; read end"]))?;
    held.says("ready")?;
    let during = new()?;
    held.end()?;
    let after = new()?;
    for (when, seen) in [("while the step runs", during), ("when the step has ended", after)] {
        ensure!(
            seen.is_empty(),
            "{when}, the host has these mounts, and hadn't before:{seen}\nHere, as on most \
             machines, all mounts are shared: what is mounted in a copy of the list appears in the \
             original, too. So in the copy all of them, recursively, have to be made private, and \
             before the first one is mounted. See mount_namespaces(7), \"Shared subtrees\"."
        );
    }
    Ok(())
}

/// The root file system lies in `/tmp`, which is a mount of its own here, and shared.
fn a_root_on_another_mount() -> Result<()> {
    let dir = TempDir::new()?;
    for name in ["dev", "proc", "sys", "tmp"] {
        fs::create_dir(dir.path().join(name))?;
    }
    fs::copy(probe(), dir.path().join("probe"))?;
    let root = dir.path().display().to_string();
    let before = mounts()?;
    let done = finish(program(STEP).args(["--rootfs", &root, "--", "/probe"]))?;
    ensure!(
        done.code == 0,
        "with --rootfs {root}, which lies on another mount than / does, the step fails:\n{}Have all \
         mounts been made private, or the topmost one only?",
        done.stderr
    );
    ensure!(before == mounts()?, "the host's mounts are now {:#?}", mounts()?);
    Ok(())
}

fn nothing_is_written() -> Result<()> {
    let needle = Chance::new("read-only").needle();
    let script = format!("echo >/{needle} && echo written; echo >/tmp/{needle} && echo temporary");
    let done = finish(program(STEP).args(["--read-only", "--", "sh", "-c", &script]))?;
    ensure!(!done.stdout.contains("written"), "with --read-only, /{needle} could be written");
    ensure!(
        done.stdout.contains("temporary"),
        "with --read-only, /tmp has to stay writable, as it is another mount:\n{}",
        done.stderr
    );
    let done =
        finish(program(STEP).args(["--", "sh", "-c", &format!("echo >/{needle}; rm /{needle}")]))?;
    done.success().context("without --read-only, the root can be written to")?;
    Ok(())
}

/// A directory to try things on, in which all mounts are private.
fn private_dir() -> Result<TempDir, Errno> {
    let dir = TempDir::new().map_err(of_io)?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?;
    Ok(dir)
}

fn bind(source: &Path, target: &Path) -> Result<(), Errno> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
}

/// An empty file system in memory, which is unmounted when this process's lab ends.
fn memory(flags: MsFlags) -> Result<PathBuf, Errno> {
    let dir = private_dir()?.keep();
    mount(Some("tmpfs"), &dir, Some("tmpfs"), flags, None::<&str>)?;
    Ok(dir)
}

const QUESTIONS: [Question; 6] = [
    Question {
        key: "root_is_shared",
        ask: || {
            let dir = TempDir::new().map_err(of_io)?;
            bind(dir.path(), dir.path())?;
            pivot_root(dir.path(), dir.path())
        },
        try_it: "cargo course lab -- sh -c 'mkdir /tmp/x; mount --bind /tmp/x /tmp/x; \
                 pivot_root /tmp/x /tmp/x'",
    },
    Question {
        key: "old_root_has_no_place",
        ask: || {
            let dir = private_dir()?;
            bind(dir.path(), dir.path())?;
            pivot_root(dir.path(), &dir.path().join("old"))
        },
        try_it: "cargo course lab -- sh -c 'mount --make-rprivate /; mkdir /tmp/x; \
                 mount --bind /tmp/x /tmp/x; pivot_root /tmp/x /tmp/x/old'",
    },
    Question {
        key: "a_file_is_open",
        ask: || {
            let dir = memory(MsFlags::empty())?;
            let _open = fs::File::create(dir.join("file")).map_err(of_io)?;
            umount2(&dir, MntFlags::empty())
        },
        try_it: "cargo course lab -- sh -c 'mount -t tmpfs x /mnt; exec 9>/mnt/file; umount /mnt'",
    },
    Question {
        key: "file_onto_directory",
        ask: || bind(Path::new("/etc/passwd"), private_dir()?.path()),
        try_it: "cargo course lab -- mount --bind /etc/passwd /mnt; man 2 mount",
    },
    Question {
        key: "write_to_read_only",
        ask: || {
            let dir = memory(MsFlags::MS_RDONLY)?;
            fs::write(dir.join("file"), "").map_err(of_io)
        },
        try_it: "cargo course lab -- sh -c 'mount -t tmpfs -o ro x /mnt; echo >/mnt/file'",
    },
    Question {
        key: "execute_from_noexec",
        ask: || {
            let program = memory(MsFlags::MS_NOEXEC)?.join("true");
            fs::copy("/bin/true", &program).map_err(of_io)?;
            fs::set_permissions(&program, Permissions::from_mode(0o755)).map_err(of_io)?;
            Command::new(program).status().map(drop).map_err(of_io)
        },
        try_it: "cargo course lab -- sh -c 'mount -t tmpfs -o noexec x /mnt; cp /bin/true /mnt; \
                 /mnt/true'",
    },
];

/// A jail that has the machine's programs and libraries, and not the file that is to be read.
fn out_of_a_chroot() -> Result<()> {
    let mut chance = Chance::new("jail");
    let dir = TempDir::new()?;
    let (jail, secret) = (dir.path().join("jail"), dir.path().join(chance.needle()));
    let needle = chance.needle();
    fs::create_dir(&jail)?;
    fs::write(&secret, &needle)?;
    let in_jail = |program: &Path| {
        let mut command = clean("unshare");
        command.args(["--mount", "sh", "-c", include_str!("jail.sh"), "sh"]);
        finish(command.arg(&jail).arg(program).args(["cat"]).arg(&secret))
    };
    // So that the jail is one: `env cat FILE` runs in there and doesn't find it.
    let held = in_jail(Path::new("/usr/bin/env"))?;
    ensure!(held.code == 1, "the jail isn't one: {}{}", held.stdout, held.stderr);
    let done = in_jail(Path::new(program("escape").get_program()))?;
    ensure!(
        done.stdout == needle,
        "in the chroot, `escape cat {}` prints {:?} and not what stands in the file outside. A \
         process may have a working directory that isn't below its root: then `..` leads on and \
         on, up to the true one. See chroot(2).\n{}",
        secret.display(),
        done.stdout,
        done.stderr
    );
    Ok(())
}

/// The program, under a name that nobody can have guessed, is alone in a root that is memory.
fn a_root_in_memory() -> Result<()> {
    let name = Chance::new("ramdisk").needle();
    let dir = TempDir::new()?;
    let host = dir.path().join(&name);
    fs::copy(probe(), &host)?;
    let files = || fs::read_dir(std::env::temp_dir()).map(Iterator::count);
    let before = (mounts()?, files()?);
    let seen = finish(program("ramdisk").arg(&host))?.success()?.stdout;
    let lines = |from: &str| -> Vec<String> {
        let list = seen.lines().skip_while(|line| !line.starts_with(from)).skip(1);
        list.take_while(|line| line.starts_with("  ")).map(|line| line.trim().to_owned()).collect()
    };
    let roots = lines("mounts:").into_iter().filter(|mount| mount.starts_with("/: "));
    let roots: Vec<String> = roots.collect();
    ensure!(
        roots.len() == 1 && roots[0].starts_with("/: tmpfs"),
        "at / there is to be one mount, a tmpfs, and there is {roots:?}"
    );
    let entries = lines("entries of /:");
    let expected = ["dev", &name, "proc", "sys", "tmp"];
    ensure!(entries == expected, "in the root there are {entries:?} and not {expected:?}");
    ensure!(
        before == (mounts()?, files()?),
        "the host has got another mount, or another file in /tmp: mount first, then copy, or the \
         file is put into the directory that is covered a moment later"
    );
    Ok(())
}
