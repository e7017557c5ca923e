//! How long a container takes: `/bin/true`, from the start of the runtime to its end.
//!
//!   cargo bench --bench start -- [SAMPLES]
//!
//! There are two yardsticks. *The floor* is the least: six namespaces and the pivot. *The floor, with all
//! that final does* makes what `final` makes, with the fewest calls that do it; what is left between it
//! and `final` is the price of reading an image and options, of checks, and of cleaning up come what may.
//!
//! All contenders run the same static program in the same root file system, in the six namespaces
//! of the ladder, as root of a user namespace, and clean up before they end. What they do besides
//! differs, and their names say it. Run it as root: a plain user may set no limits.
#![allow(missing_docs)]

#[path = "../shared/mod.rs"]
mod shared;

use std::{
    env, fs,
    os::unix::fs::{lchown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use shared::{Contender, build, cargo, number, open_dir, print_machine, race, run, target_dir};
use tempfile::TempDir;

/// The limits that those have who have limits.
const LIMITS: [&str; 6] = ["--memory", "64m", "--cpus", "1", "--pids", "100"];
const LIMITS_IN_SPEC: &str = r#"{"memory": {"limit": 67108864, "swap": 67108864},
    "cpu": {"quota": 100000, "period": 100000}, "pids": {"limit": 100}}"#;

/// The two yardsticks: what no runtime can do without, and all of what `final` does.
const FLOOR: &str = "the floor";
const FULL_FLOOR: &str = "the floor, with all that final does";

fn main() -> Result<()> {
    let samples = env::args().skip(1).find_map(|arg| arg.parse().ok());
    let samples = samples.map_or_else(|| number("BENCH_SAMPLES", 40), Ok)?;
    let stage = Stage::build()?;
    show_one_generation();
    print_machine();
    let both = [FLOOR, FULL_FLOOR];
    race("Start to finish of /bin/true", &both, samples, contenders(&stage)?)?;
    race("The ladder, step by step", &[FLOOR], samples, ladder(&stage))
}

/// On a machine with both generations of control groups, hides v2, which has no limits to set
/// there: crun refuses such machines. Only this process and its children don't see it any more.
fn show_one_generation() {
    let hide = || -> nix::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
        umount2("/sys/fs/cgroup/unified", MntFlags::MNT_DETACH)
    };
    // It isn't there on most machines, and a plain user may not do it.
    let _ = hide();
}

/// What the contenders are given.
struct Stage {
    dir: TempDir,
    /// A place on a tmpfs.
    in_memory: TempDir,
    /// The folder with the programs of this workspace.
    programs: PathBuf,
    /// `final` as one static file.
    static_final: PathBuf,
}

impl Stage {
    fn build() -> Result<Self> {
        let mut what = vec!["--package", "final"];
        what.extend(tests::programs::STEPS.iter().flat_map(|step| ["--package", *step]));
        what.push("--bins");
        let programs = build(&what)?;
        let static_final = build_static()?;
        let (dir, in_memory) = (open_dir(&env::temp_dir())?, open_dir(Path::new("/dev/shm"))?);
        let stage = Stage { dir, in_memory, programs, static_final };
        stage.make_root().context("busybox, static (Debian: busybox-static)")?;
        stage.compile_floor()?;
        Ok(stage)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A root file system that is one program, as a directory and as a tar.
    fn make_root(&self) -> Result<()> {
        let root = self.path("root");
        for dir in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(root.join(dir))?;
        }
        for dir in ["own", "merged"] {
            fs::create_dir_all(self.path("floor-dir").join(dir))?;
        }
        let busybox = run(Command::new("sh").args(["-c", "command -v busybox"]))?;
        fs::copy(busybox, root.join("bin/busybox"))?;
        symlink("busybox", root.join("bin/true"))?;
        let mut tar = Command::new("tar");
        tar.args(["--owner=0", "--group=0", "-cf"]).arg(self.path("busybox.tar"));
        run(tar.arg("-C").arg(&root).arg("."))?;
        // The owner that all contenders map to root inside.
        let files = run(Command::new("find").arg(&root))?;
        files.lines().for_each(|file| drop(lchown(file, Some(100_000), Some(100_000))));
        Ok(())
    }

    fn compile_floor(&self) -> Result<()> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/floor/main.rs");
        let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc.args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static"]);
        rustc.args(["-C", "panic=abort", "-o"]).arg(self.path("floor")).arg(source);
        run(&mut rustc).map(drop)
    }

    /// A command that has the same line each time.
    fn contender<S: AsRef<std::ffi::OsStr>>(
        &self,
        name: &str,
        program: impl Into<PathBuf>,
        args: &[S],
    ) -> Contender {
        let program = program.into();
        let args: Vec<_> = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
        Contender::new(name, move || {
            let mut command = Command::new(&program);
            command.args(&args);
            Ok(command)
        })
    }

    /// `final run`, with a store that has the image unpacked after the first time.
    fn runtime(&self, name: &str, program: &Path, store: &Path, options: &[&str]) -> Contender {
        let (store, image) = (store.to_owned(), self.path("busybox.tar"));
        let program = program.to_owned();
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        Contender::new(name, move || {
            let mut command = Command::new(&program);
            command.arg("run").arg("--store").arg(&store).args(&options).arg(&image);
            command.args(["--", "/bin/true"]);
            Ok(command)
        })
    }

    /// `PROGRAM run` of a runtime that takes a bundle, as podman and containerd do.
    fn oci(
        &self,
        name: &str,
        program: &'static str,
        options: &[&str],
        limits: &str,
    ) -> Result<Contender> {
        let bundle = self.path(&name.replace([' ', ','], "-"));
        fs::create_dir(&bundle)?;
        fs::write(bundle.join("config.json"), spec(&self.path("root"), limits))?;
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let state = bundle.join("state");
        let mut number = 0;
        Ok(Contender::new(name, move || {
            number += 1;
            let id = format!("bench-{}-{number}", std::process::id());
            let mut command = Command::new(program);
            command.arg("--root").arg(&state).args(&options).args(["run", "--bundle"]);
            command.arg(&bundle).arg(id);
            Ok(command)
        }))
    }
}

/// Has cargo build `final` as README says that it starts fastest, and says where it lies.
fn build_static() -> Result<PathBuf> {
    let target = target_dir()?;
    cargo(&["static"], &target)?;
    let about =
        run(Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-vV"))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(target.join(host.context("rustc -vV has a line host:")?).join("release/final"))
}

fn contenders(stage: &Stage) -> Result<Vec<Contender>> {
    let root = stage.path("root");
    let root = root.to_str().context("a temporary directory has a plain name")?;
    let is_true = format!("{root}/bin/true");
    let unshare: Vec<&str> =
        "--uts --pid --fork --mount --map-root-user --net --ipc --root".split(' ').collect();
    let bwrap = ["--unshare-all", "--bind", root, "/", "--proc", "/proc", "--dev", "/dev"];
    let floor = stage.path("floor");
    let floor_dir = stage.path("floor-dir");
    let floor_dir = floor_dir.to_str().context("so has a file in it")?;
    let (store, in_memory) = (stage.path("store"), &stage.in_memory);
    let (ours, dynamic) = (&*stage.static_final, &*stage.programs.join("final"));
    let with = |options: &[&'static str]| [options, &LIMITS].concat();
    Ok(vec![
        stage.contender::<&str>("fork and exec alone", is_true, &[]),
        stage.contender(FLOOR, &floor, &[root, "/bin/true"]),
        stage.contender(FULL_FLOOR, &floor, &["--all", floor_dir, root, "/bin/true"]),
        stage.contender(
            "the floor, on the host's network",
            &floor,
            &["--net-host", root, "/bin/true"],
        ),
        stage.contender(
            "unshare, with chroot",
            "unshare",
            &[&unshare[..], &[root, "/bin/true"]].concat(),
        ),
        stage.contender("bwrap", "bwrap", &[&bwrap[..], &["/bin/true"]].concat()),
        stage.runtime("final, overlay", ours, &store, &["--net", "none"]),
        stage.runtime("final, overlay, limits", ours, &store, &with(&["--net", "none"])),
        stage.runtime("final, overlay, limits, cable", ours, &store, &with(&["--net", "veth"])),
        stage.runtime(
            "final, overlay on tmpfs, limits",
            ours,
            in_memory.path(),
            &with(&["--net", "none"]),
        ),
        stage.runtime(
            "final, not static, overlay, limits",
            dynamic,
            &store,
            &with(&["--net", "none"]),
        ),
        stage.oci("crun", "crun", &["--cgroup-manager=disabled"], "{}")?,
        stage.oci("crun, limits", "crun", &[], LIMITS_IN_SPEC)?,
        stage.oci("runc, limits", "runc", &[], LIMITS_IN_SPEC)?,
        stage.oci("youki, limits", "youki", &[], LIMITS_IN_SPEC)?,
    ])
}

/// What each step adds. The first three do without a user namespace.
fn ladder(stage: &Stage) -> Vec<Contender> {
    let root = stage.path("root");
    let floor =
        stage.contender(FLOOR, stage.path("floor"), &[root.as_os_str(), "/bin/true".as_ref()]);
    let steps = tests::programs::STEPS.iter().enumerate().map(|(n, step)| {
        let mut args: Vec<std::ffi::OsString> = Vec::new();
        match n {
            0 | 1 => args.push(root.join("bin/true").into()),
            7 => args.extend([
                "--layer".into(),
                stage.path("busybox.tar").into(),
                "/bin/true".into(),
            ]),
            _ => args.extend(["--rootfs".into(), root.clone().into(), "/bin/true".into()]),
        }
        stage.contender(step, stage.programs.join(step), &args)
    });
    [floor].into_iter().chain(steps).collect()
}

/// A specification as `final` makes it for itself.
fn spec(root: &Path, resources: &str) -> String {
    let root = root.display();
    let capabilities = r#"["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
        "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT"]"#;
    format!(
        r#"{{
  "ociVersion": "1.0.2",
  "hostname": "bench",
  "root": {{"path": "{root}"}},
  "process": {{
    "args": ["/bin/true"], "env": ["PATH=/bin"], "cwd": "/", "user": {{"uid": 0, "gid": 0}},
    "noNewPrivileges": true,
    "capabilities": {{
      "bounding": {capabilities}, "effective": {capabilities}, "permitted": {capabilities}
    }}
  }},
  "mounts": [
    {{"destination": "/proc", "type": "proc", "source": "proc"}},
    {{"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
      "options": ["nosuid", "mode=755", "size=64k"]}},
    {{"destination": "/dev/pts", "type": "devpts", "source": "devpts",
      "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}},
    {{"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
      "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=64m"]}},
    {{"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
      "options": ["nosuid", "noexec", "nodev"]}},
    {{"destination": "/sys", "type": "sysfs", "source": "sysfs",
      "options": ["nosuid", "noexec", "nodev", "ro"]}}
  ],
  "linux": {{
    "namespaces": [{{"type": "uts"}}, {{"type": "pid"}}, {{"type": "mount"}}, {{"type": "user"}},
      {{"type": "network"}}, {{"type": "ipc"}}],
    "uidMappings": [{{"containerID": 0, "hostID": 100000, "size": 65536}}],
    "gidMappings": [{{"containerID": 0, "hostID": 100000, "size": 65536}}],
    "resources": {resources},
    "maskedPaths": ["/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys",
      "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug", "/proc/scsi",
      "/sys/firmware"],
    "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
  }}
}}"#
    )
}
