//! Where a student's code is built and run: nobody has read it, and it may be anything.
//!
//! It is the lab, seen from a place that was prepared for it:
//!
//! ```text
//!   grade                          reads the student's files; knows all the answers
//!   └ step: mounts of its own      a root with the machine's programs, the toolchain and the
//!     │                            reference, all read-only, and a thin layer for the student's files
//!     ├ lab: cargo build           ids that are nobody outside; no network; limits
//!     └ lab: one test each         the same, and what was built is read-only too
//! ```
//! What a lab inherits from the level above it, it can't unmount nor make writable: the kernel
//! locks what comes from a namespace with more rights.

use std::{
    convert::Infallible,
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::CloneFlags,
    unistd::{chdir, geteuid, pivot_root},
};

use crate::{
    mounts::{self, Kept},
    namespaces::{self, Ids, Range},
};

/// Where things are inside.
pub const WORKSPACE: &str = "/course";
pub const HARNESS: &str = "/harness";
const TOOLCHAIN: &str = "/toolchain";
const CARGO_HOME: &str = "/cargo";

/// What of the machine is there to be read.
const SYSTEM: [&str; 11] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/proc", "/sys", "/dev",
];

/// The workspace as it is seen inside.
pub enum Layer {
    /// The base itself, to be built in.
    Base,
    /// What is written goes to memory, up to so many MiB, and is gone in the end.
    Scratch(u32),
}

/// What the sandbox is made of.
pub struct View<'a> {
    /// A folder for mounts, of this user and nobody else.
    pub stage: &'a Path,
    /// The reference's sources and what was built of them.
    pub base: &'a Path,
    /// The grader's programs.
    pub harness: &'a Path,
    /// What becomes of what is written.
    pub layer: Layer,
}

/// Runs `life` in the prepared place, and waits for its end.
pub fn enter(view: &View, life: &mut dyn FnMut() -> Result<Infallible>) -> Result<ExitCode> {
    let mut namespaces = CloneFlags::CLONE_NEWNS;
    let mut ids = None;
    if !geteuid().is_root() {
        namespaces |= CloneFlags::CLONE_NEWUSER;
        ids = Some(Ids::own()?);
    }
    let toolchain = toolchain()?;
    namespaces::run(
        namespaces,
        |child| ids.as_ref().map_or(Ok(()), |ids| ids.write(child)),
        |gate| {
            gate.wait()?;
            if ids.is_some() {
                namespaces::become_root()?;
            }
            prepare(view, &toolchain)?;
            life()
        },
    )
}

/// Makes the root file system and moves into it.
fn prepare(view: &View, toolchain: &Path) -> Result<()> {
    mounts::spread(MsFlags::MS_PRIVATE)?;
    let stage = view.stage;
    let size = match view.layer {
        Layer::Base => 64,
        Layer::Scratch(size) => size,
    };
    mounts::new("tmpfs", stage, MsFlags::MS_NODEV, Some(&format!("mode=755,size={size}m")))?;
    for part in SYSTEM {
        show(Path::new(part), stage)?;
    }
    for folder in ["/tmp", "/run", "/var/cache", "/var/lib", "/var/tmp", "/root"] {
        fs::create_dir_all(stage.join(&folder[1..]))?;
    }
    let registry = cargo_home().join("registry");
    let shown = [(toolchain, TOOLCHAIN), (&registry, "/cargo/registry"), (view.harness, HARNESS)];
    for (folder, at) in shown.into_iter().filter(|(folder, _)| folder.is_dir()) {
        Kept::open(folder)?.make_read_only()?.restore_at(&stage.join(&at[1..]))?;
    }
    // Cargo locks its folder, and is content if it can't.
    fs::create_dir_all(stage.join(&CARGO_HOME[1..]))?;
    let workspace = stage.join(&WORKSPACE[1..]);
    match view.layer {
        Layer::Base => Kept::open(view.base)?.restore_at(&workspace)?,
        Layer::Scratch(_) => mount_overlay(view, &workspace)?,
    }
    chdir(stage)?;
    pivot_root(".", ".").context("pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    Ok(())
}

/// Shows a folder of the machine below `stage`, read-only; a link to one stays a link.
fn show(folder: &Path, stage: &Path) -> Result<()> {
    let at = stage.join(folder.strip_prefix("/").unwrap_or(folder));
    if let Ok(target) = fs::read_link(folder) {
        return Ok(symlink(target, at)?);
    }
    if !folder.is_dir() {
        return Ok(());
    }
    let kept = Kept::open(folder)?;
    // The lab mounts its own over these, which takes the old ones as they are.
    let own = ["/proc", "/sys", "/dev"].iter().any(|own| folder == Path::new(own));
    if own { kept.restore_at(&at) } else { kept.make_read_only()?.restore_at(&at) }
}

fn mount_overlay(view: &View, at: &Path) -> Result<()> {
    let (upper, work) = (view.stage.join("layer/upper"), view.stage.join("layer/work"));
    for folder in [&upper, &work, &at.to_owned()] {
        fs::create_dir_all(folder)?;
    }
    fs::set_permissions(view.stage.join("layer"), fs::Permissions::from_mode(0o700))?;
    let marks = if ids_of_lab()?.from_user { ",userxattr" } else { "" };
    let options = format!(
        "lowerdir={},upperdir={},workdir={}{marks}",
        view.base.display(),
        upper.display(),
        work.display()
    );
    mounts::new("overlay", at, MsFlags::empty(), Some(&options))
}

/// Makes the workspace read-only, for good: the labs inherit it so.
pub fn freeze() -> Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(None::<&str>, WORKSPACE, None::<&str>, flags, None::<&str>).context("can't freeze")
}

/// Covers a folder with an empty one.
pub fn cover(folder: &Path) -> Result<()> {
    mounts::new("tmpfs", folder, MsFlags::MS_RDONLY, Some("size=4k"))
}

/// The ids of the labs in here.
pub struct LabIds {
    pub ids: Ids,
    /// Whether they're a part of a user's ids, in a user namespace.
    pub from_user: bool,
}

/// Ids that own nothing of the machine nor of the level above, as far as there are any.
pub fn ids_of_lab() -> Result<LabIds> {
    let map = namespaces::ranges(&fs::read_to_string("/proc/self/uid_map")?);
    let total: u32 = map.iter().map(|range| range.2).fold(0, u32::saturating_add);
    let from_user = total < u32::MAX;
    let range: Range = match total {
        1 => (0, 0, 1),
        _ if from_user => (0, 1, total - 1),
        _ => {
            let (first, count) =
                namespaces::given("/etc/subuid", 0.into()).unwrap_or((100_000, 65_536));
            (0, first, count)
        }
    };
    Ok(LabIds { ids: Ids { users: vec![range], groups: vec![range] }, from_user })
}

/// Gives a folder, and what is in it, to root of the labs.
pub fn give_to_lab(folder: &Path) -> Result<()> {
    let owner = ids_of_lab()?.ids.users[0].1;
    fs::create_dir_all(folder)?;
    chown(folder, Some(owner), Some(owner)).with_context(|| folder.display().to_string())
}

/// A command in a lab, in which nothing is known of what is outside.
pub fn lab(words: &[&str]) -> Command {
    let mut command = Command::new(Path::new(HARNESS).join("course"));
    command.args(["lab", "--sandboxed", "--"]).args(words).env_clear();
    command.env("PATH", format!("{TOOLCHAIN}/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
    command.env("HOME", "/root").env("CARGO_HOME", CARGO_HOME).env("LANG", "C.UTF-8");
    command.env("CARGO_NET_OFFLINE", "true").env("CARGO_INCREMENTAL", "0");
    command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_TERM_COLOR", "never");
    command.current_dir(WORKSPACE);
    command
}

/// The folder of the Rust that is in use, behind whatever chooses it.
fn toolchain() -> Result<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let done = Command::new(rustc).args(["--print", "sysroot"]).output().context("no rustc")?;
    Ok(String::from_utf8(done.stdout)?.trim().into())
}

fn cargo_home() -> PathBuf {
    let home = || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cargo");
    std::env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from)
}
