//! A root file system made from this machine's own programs.
//!
//! A container needs a directory to be its root. So that every step works with no download, this
//! module makes one: it copies `sh`, `ls`, `ps` and their like, the libraries that they link to and
//! the loader that brings the two together, each to the path where it is looked up. [`from_host`]
//! does so once; later it finds the copy in a cache directory:
//!
//! ```text
//! /var/cache/containers-from-scratch/      for root; ~/.cache/… for others
//!     lock                                 held while one is made: only one at a time
//!     rootfs-8d2fe0c49ab31f77/             the key: a hash of all that it was made from
//!         manifest                         what to look at to see that it is still right
//!         root/                            the root file system: bin, etc, lib, …
//!     new-4711/                            one in the making; if it's left over, it is removed
//! ```
//! A copy serves as long as no program or library on the machine has changed, and nobody inside a
//! container has damaged it. Else another one is made, and the old one is removed as soon as
//! nobody uses it: who does, holds a lock on its manifest, which ends with the process, however
//! that ends.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    env,
    ffi::{CStr, CString, OsStr},
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read, Write},
    ops::Deref,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{
            ffi::OsStrExt,
            fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink},
        },
    },
    path::{Component, Path, PathBuf},
    process,
};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{AccessFlags, Gid, Uid, eaccess};
use rustix::fs::{
    AtFlags, Dir, FlockOperation, Mode, OFlags, ResolveFlags, flock, openat2, unlinkat,
};

use crate::loader::{Loader, Tree, musl_path_file};

/// The programs of the root file system. Those that the machine doesn't have are left out, but
/// for `sh`.
#[rustfmt::skip]
pub const PROGRAMS: &[&str] = &[
    // A shell, and what scripts are written with.
    "sh", "bash", "[", "basename", "dirname", "echo", "env", "expr", "false", "mktemp", "printf",
    "pwd", "readlink", "realpath", "seq", "sleep", "tee", "test", "timeout", "true", "xargs", "yes",
    // Files.
    "cat", "chgrp", "chmod", "chown", "cp", "dd", "df", "du", "find", "ln", "ls", "mkdir", "mkfifo",
    "mknod", "mv", "rm", "rmdir", "stat", "sync", "touch", "truncate",
    // Text.
    "awk", "cmp", "cut", "diff", "grep", "head", "less", "md5sum", "od", "sed", "sha256sum", "sort",
    "tail", "tr", "uniq", "wc",
    // Processes, users and the machine.
    "clear", "date", "free", "getent", "groups", "hostname", "id", "kill", "logname", "nice",
    "nproc", "pgrep", "pkill", "prlimit", "ps", "pstree", "stty", "taskset", "top", "tty", "uname",
    "uptime", "who", "whoami",
    // What a container is made of: mounts, namespaces, capabilities, IPC, networks.
    "capsh", "chroot", "findmnt", "getcap", "ip", "ipcmk", "ipcrm", "ipcs", "lsns", "mount",
    "mountpoint", "nc", "nsenter", "ping", "pivot_root", "setpriv", "ss", "umount", "unshare",
    // All of them in one file, where there is such a file.
    "busybox",
];

/// Where programs are looked up; the last is NixOS's.
const PROGRAM_DIRS: [&str; 5] =
    ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/run/current-system/sw/bin"];

/// Libraries that glibc opens while a program runs, so that no file names them: for user names
/// (before glibc 2.34), and to end threads.
const OPENED_LATER: &[&str] = &["libnss_files.so.2", "libgcc_s.so.1"];

/// How glibc's loader finds libraries in directories that aren't built into it.
const LD_SO_CACHE: &str = "/etc/ld.so.cache";

/// What programs such as `top` and `less` need to know of a terminal.
const TERMINALS: [&str; 8] = [
    "d/dumb",
    "l/linux",
    "s/screen",
    "s/screen-256color",
    "t/tmux-256color",
    "v/vt100",
    "x/xterm",
    "x/xterm-256color",
];
const TERMINAL_DIRS: [&str; 3] = ["/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo"];

/// Directories that are there from the beginning, and their modes.
const DIRS: &[(&str, u32)] = &[
    ("/dev", 0o755),
    ("/etc", 0o755),
    ("/home", 0o755),
    ("/mnt", 0o755),
    ("/proc", 0o755),
    ("/root", 0o700),
    ("/run", 0o755),
    ("/sys", 0o755),
    ("/tmp", 0o1777),
    ("/usr/bin", 0o755),
    ("/var/tmp", 0o1777),
];

/// All programs lie in one directory, so that a `PATH` of any user finds them.
const LINKS: &[(&str, &str)] = &[
    ("/bin", "usr/bin"),
    ("/sbin", "usr/bin"),
    ("/usr/sbin", "bin"),
    ("/etc/mtab", "../proc/self/mounts"),
];

const TEXTS: &[(&str, &str)] = &[
    ("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("/etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
];

/// A part of the key: raise it when this module makes something else out of the same files.
const VERSION: u32 = 1;

/// A root file system that is kept for as long as this value lives, or whoever inherited it: a
/// process that goes on without exec(2), as step 2's init does, keeps it too.
#[derive(Debug)]
pub struct Rootfs {
    path: PathBuf,
    left_out: Vec<String>,
    _in_use: Option<File>,
}

impl Rootfs {
    /// The programs that the machine has but that weren't copied, each with the reason.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

impl Deref for Rootfs {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for Rootfs {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// A root file system that somebody else takes care of: the argument of `--rootfs`.
impl From<PathBuf> for Rootfs {
    fn from(path: PathBuf) -> Self {
        Rootfs { path, left_out: Vec::new(), _in_use: None }
    }
}

/// What to make a root file system from, and where.
#[derive(Clone, Copy, Debug)]
pub struct Recipe<'a> {
    /// The root of the machine that the programs are taken from: `/`.
    pub host: &'a Path,
    /// The names of the programs. The first has to be there, the others may be missing.
    pub programs: &'a [&'a str],
    /// The cache directory.
    pub cache: &'a Path,
    /// Whose the files are to be: the ids as this process sees them.
    pub owner: (Uid, Gid),
}

/// Gives a small root file system with this machine's own [`PROGRAMS`], out of the cache if it has
/// one that is up to date.
///
/// All of it belongs to `owner`: ids as this process sees them, so for a container with shifted
/// ids those that its root has outside.
///
/// # Errors
/// If there is no directory for a cache, no room in it, `sh` or one of its libraries isn't found,
/// or if `owner` is somebody else and this process may not give files away (`EPERM`).
///
/// Source: [hier(7)](https://man7.org/linux/man-pages/man7/hier.7.html).
pub fn from_host(owner: (Uid, Gid)) -> Result<Rootfs> {
    let cache = cache_dir()?;
    make(&Recipe { host: Path::new("/"), programs: PROGRAMS, cache: &cache, owner })
}

/// As [`from_host`], with all that it decides as arguments.
///
/// # Errors
/// As [`from_host`].
pub fn make(recipe: &Recipe) -> Result<Rootfs> {
    let cache = recipe.cache;
    let advice = || {
        format!(
            "no root file system could be made in {}; give one of your own with --rootfs DIR",
            cache.display()
        )
    };
    let host = Host::look_at(recipe).with_context(advice)?;
    if let Some(ready) = find_ready(&host, recipe) {
        return Ok(ready);
    }
    let alone = || {
        create_dirs(cache)?;
        let lock = OpenOptions::new().create(true).append(true).open(cache.join("lock"))?;
        while let Err(error) = flock(&lock, FlockOperation::LockExclusive) {
            ensure!(error == rustix::io::Errno::INTR, error);
        }
        anyhow::Ok(lock)
    };
    let _alone = alone().with_context(advice)?;
    // While this waited for the lock, somebody else may have made it.
    if let Some(ready) = find_ready(&host, recipe) {
        return Ok(ready);
    }
    sweep(&host, cache).and_then(|()| build(&host, recipe)).with_context(advice)
}

/// The directory for what is made once: one for the whole machine if this is root, else the user's.
///
/// # Errors
/// If there is none that can be written to.
///
/// Source: [XDG base directories](https://specifications.freedesktop.org/basedir-spec/latest/).
pub fn cache_dir() -> Result<PathBuf> {
    let system = Uid::effective().is_root().then(|| PathBuf::from("/var/cache"));
    let variable = |name| env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let user = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let mut tried = Vec::new();
    // Root of a user namespace is nobody in the machine's own directories, but has a home.
    for dir in [system, user].into_iter().flatten() {
        let dir = dir.join("containers-from-scratch");
        let usable = create_dirs(&dir)
            .and_then(|()| Ok(eaccess(&dir, AccessFlags::W_OK | AccessFlags::X_OK)?));
        match usable {
            Ok(()) => return Ok(dir),
            Err(error) => tried.push(format!("{}: {error}", dir.display())),
        }
    }
    let tried = if tried.is_empty() { "HOME isn't set".into() } else { tried.join("; ") };
    bail!(
        "there is no place to make a root file system in ({tried}). Give one of your own with \
         --rootfs DIR, or name a directory for it with XDG_CACHE_HOME=DIR"
    )
}

/// Creates a directory and those above it. All may look into it, whatever the umask: root of a
/// container isn't always the user who starts it.
fn create_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    fs::set_permissions(dir, Permissions::from_mode(0o755))
}

/// The machine that programs are taken from.
struct Host {
    tree: Tree,
    /// Where each program is, and what identifies its file.
    programs: Vec<(String, PathBuf, Stamp)>,
}

/// What changes when a file is replaced or rewritten: size, time of last change, inode number.
type Stamp = (u64, i64, i64, u64);

fn stamp(meta: &fs::Metadata) -> Stamp {
    (meta.size(), meta.mtime(), meta.mtime_nsec(), meta.ino())
}

impl Host {
    fn look_at(recipe: &Recipe) -> Result<Self> {
        let tree = Tree::open_root(recipe.host).with_context(|| format!("{:?}", recipe.host))?;
        let find = |name: &&str| {
            PROGRAM_DIRS.iter().find_map(|dir| {
                let path = Path::new(dir).join(name);
                let meta = tree.stat(&path).ok()?;
                let executable = meta.is_file() && meta.mode() & 0o111 != 0;
                executable.then(|| (name.to_string(), path, stamp(&meta)))
            })
        };
        let programs: Vec<_> = recipe.programs.iter().filter_map(find).collect();
        let first = recipe.programs.first().context("there are no programs to make it from")?;
        let found = programs.first().is_some_and(|(name, ..)| name == first);
        ensure!(found, "this machine has no program {first:?} in {}", PROGRAM_DIRS.join(", "));
        Ok(Host { tree, programs })
    }

    /// The key of a root file system that is made now from the programs and the files in `watch`.
    fn key(&self, owner: (u32, u32), watch: &BTreeSet<PathBuf>) -> String {
        let mut hash = DefaultHasher::new();
        (VERSION, owner, &self.programs).hash(&mut hash);
        for path in watch {
            (path, self.tree.stat(path).ok().as_ref().map(stamp)).hash(&mut hash);
        }
        format!("{:016x}", hash.finish())
    }
}

/// A root file system in the cache, locked, so that nobody removes it.
struct Stored {
    dir: PathBuf,
    manifest: Manifest,
    lock: File,
}

impl Stored {
    /// Opens what lies in `dir` if it's whole and nobody is at work on it in a way that `lock`
    /// excludes.
    fn open(dir: PathBuf, lock: FlockOperation) -> Option<Self> {
        let path = dir.join("manifest");
        let mut file = File::open(&path).ok()?;
        flock(&file, lock).ok()?;
        // Only now it is sure to stay; it may have been moved away since it was opened.
        let (here, held) = (fs::metadata(&path).ok()?, file.metadata().ok()?);
        ((here.dev(), here.ino()) == (held.dev(), held.ino())).then_some(())?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).ok()?;
        Some(Stored { dir, manifest: Manifest::parse(&text), lock: file })
    }

    /// Whether it would become the same if it were made anew, and still is as it was made.
    fn is_right(&self, host: &Host) -> bool {
        let Manifest { owner, watch, holds, state, .. } = &self.manifest;
        let name = self.dir.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let key = name.strip_prefix("rootfs-").and_then(|name| name.split('.').next());
        key == Some(&host.key(*owner, watch))
            && state_of(&self.dir.join("root"), holds).is_ok_and(|now| now == *state)
    }

    fn into_rootfs(self) -> Rootfs {
        let Stored { dir, manifest, lock } = self;
        Rootfs { path: dir.join("root"), left_out: manifest.left_out, _in_use: Some(lock) }
    }
}

/// The directories in the cache, by the first part of their names.
fn stored(cache: &Path, prefixes: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    let fits = |path: &PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        prefixes.iter().any(|prefix| name.starts_with(prefix))
    };
    entries.map(|entry| entry.path()).filter(fits).collect()
}

fn find_ready(host: &Host, recipe: &Recipe) -> Option<Rootfs> {
    let owner = (recipe.owner.0.as_raw(), recipe.owner.1.as_raw());
    stored(recipe.cache, &["rootfs-"])
        .into_iter()
        .filter_map(|dir| Stored::open(dir, FlockOperation::NonBlockingLockShared))
        .find(|stored| stored.manifest.owner == owner && stored.is_right(host))
        .map(Stored::into_rootfs)
}

/// What is written down beside a root file system, as lines of a word and a value.
#[derive(Default)]
struct Manifest {
    owner: (u32, u32),
    /// The files on the host, besides the programs, that it was made from.
    watch: BTreeSet<PathBuf>,
    /// The paths in it, from its top.
    holds: Vec<PathBuf>,
    /// What [`state_of`] said of them when they were new.
    state: u64,
    left_out: Vec<String>,
}

impl Manifest {
    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        writeln!(to, "owner {}:{}\nstate {}", self.owner.0, self.owner.1, self.state)?;
        let watch = self.watch.iter().map(|path| ("watch", path.as_os_str()));
        let holds = self.holds.iter().map(|path| ("holds", path.as_os_str()));
        let left_out = self.left_out.iter().map(|line| ("left-out", OsStr::new(line)));
        for (word, value) in watch.chain(holds).chain(left_out) {
            to.write_all(&[word.as_bytes(), b" ", value.as_bytes(), b"\n"].concat())?;
        }
        Ok(())
    }

    /// A line that isn't understood is passed over: the key won't fit then.
    fn parse(text: &[u8]) -> Self {
        let mut manifest = Manifest::default();
        for line in text.split(|&byte| byte == b'\n') {
            let space = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
            let (word, value) = line.split_at(space);
            let value = OsStr::from_bytes(value.get(1..).unwrap_or_default());
            let text = value.to_str().unwrap_or_default();
            match word {
                b"owner" => {
                    let ids = text.split_once(':');
                    manifest.owner = ids
                        .and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)))
                        .unwrap_or_default();
                }
                b"state" => manifest.state = text.parse().unwrap_or_default(),
                b"watch" => drop(manifest.watch.insert(value.into())),
                b"holds" => manifest.holds.push(value.into()),
                b"left-out" => manifest.left_out.push(value.to_string_lossy().into()),
                _ => {}
            }
        }
        manifest
    }
}

/// A number that changes if any of these files is replaced or changed: root of a container may do
/// that. What lies in /etc may be edited.
fn state_of(root: &Path, holds: &[PathBuf]) -> io::Result<u64> {
    let mut hash = DefaultHasher::new();
    let mut path = PathBuf::new();
    for held in holds {
        path.clear();
        path.push(root);
        path.push(held);
        let meta = fs::symlink_metadata(&path)?;
        (meta.mode(), meta.uid(), meta.gid()).hash(&mut hash);
        if !meta.is_dir() && !held.starts_with("etc") {
            // Not the time of the last modification: anybody can set that to any value.
            (meta.size(), meta.ctime(), meta.ctime_nsec(), meta.ino()).hash(&mut hash);
        }
    }
    Ok(hash.finish())
}

/// Removes what nobody needs any more. Only who holds the cache's lock may call this.
fn sweep(host: &Host, cache: &Path) -> Result<()> {
    for dir in stored(cache, &["rootfs-", "old-", "new-"]) {
        // While this is held, nobody begins to use it.
        let held = Stored::open(dir.clone(), FlockOperation::NonBlockingLockExclusive);
        let remove = match &held {
            Some(stored) => !stored.is_right(host),
            // In use; or it was never finished, and has no manifest.
            None => !dir.join("manifest").exists(),
        };
        if remove {
            // Under another name first: if this process is killed, half a root must not stay.
            let old = cache.join(format!("old-{}", fs::symlink_metadata(&dir)?.ino()));
            fs::rename(&dir, &old)?;
            // If a container gave files to others, this user can't; the next sweep tries again.
            let _ = remove_dir(&old);
        }
    }
    Ok(())
}

/// Removes a directory and all that is in it.
fn remove_dir(dir: &Path) -> Result<()> {
    let parent = File::open(dir.parent().context("it's the root")?)?;
    let name = CString::new(dir.file_name().context("it's the root")?.as_bytes())?;
    Ok(remove_tree(parent.as_fd(), &name)?)
}

/// Goes into no file system that is mounted somewhere below: a mount that was forgotten must not
/// cost somebody's files.
fn remove_tree(parent: BorrowedFd, name: &CStr) -> rustix::io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(rustix::io::Errno::ISDIR) => {}
        result => return result,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = openat2(parent, name, flags, Mode::empty(), ResolveFlags::NO_XDEV)?;
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            remove_tree(dir.as_fd(), entry.file_name())?;
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Makes a new root file system. Only who holds the cache's lock may call this.
fn build(host: &Host, recipe: &Recipe) -> Result<Rootfs> {
    let plan = Plan::new(host)?;
    let owner = (recipe.owner.0.as_raw(), recipe.owner.1.as_raw());
    // Before it's copied: if a file changes meanwhile, the key won't fit the next time.
    let key = host.key(owner, &plan.watch);
    let new = recipe.cache.join(format!("new-{}", process::id()));
    let stored = fill(&new, host, plan, owner).and_then(|mut stored| {
        // Another one of this key is there if a container damaged it and still runs.
        let suffixes = (1..).map(|n| format!(".{n}"));
        let names = std::iter::once(String::new()).chain(suffixes);
        let mut dirs = names.map(|suffix| recipe.cache.join(format!("rootfs-{key}{suffix}")));
        stored.dir = dirs.find(|dir| !dir.exists()).context("no name is free")?;
        fs::rename(&new, &stored.dir)?;
        Ok(stored)
    });
    if stored.is_err() {
        let _ = remove_dir(&new);
    }
    Ok(stored?.into_rootfs())
}

/// Carries out a plan in the new directory `dir`, and writes the manifest.
fn fill(dir: &Path, host: &Host, plan: Plan, owner: (u32, u32)) -> Result<Stored> {
    let root = dir.join("root");
    // For this user only until it's ready.
    DirBuilder::new().mode(0o700).create(dir).with_context(|| format!("mkdir {dir:?}"))?;
    place(host, &root, &Entry::Dir(0o755), owner)?;
    for (path, entry) in &plan.entries {
        let to = root.join(path.strip_prefix("/").unwrap_or(path));
        place(host, &to, entry, owner).with_context(|| format!("can't make {}", to.display()))?;
    }
    let strip = |path: &PathBuf| path.strip_prefix("/").unwrap_or(path).to_owned();
    let holds: Vec<_> = plan.entries.keys().map(strip).collect();
    let state = state_of(&root, &holds)?;
    let manifest = Manifest { owner, watch: plan.watch, holds, state, left_out: plan.left_out };
    let path = dir.join("manifest");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path)?;
    let mut text = Vec::new();
    manifest.write(&mut text)?;
    file.write_all(&text).with_context(|| format!("can't write {}", path.display()))?;
    // In use from before the moment that others can see it.
    flock(&file, FlockOperation::NonBlockingLockShared)?;
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    Ok(Stored { dir: dir.into(), manifest, lock: file })
}

/// Makes one entry of the new root. The directories above it are there, and none of them is a link.
fn place(host: &Host, to: &Path, entry: &Entry, owner: (u32, u32)) -> Result<()> {
    let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let mode = match entry {
        Entry::Dir(mode) => {
            fs::create_dir(to)?;
            Some(*mode)
        }
        Entry::Text(text) => {
            create()?.write_all(text.as_bytes())?;
            Some(0o644)
        }
        Entry::Copy(from) => {
            let mut source = host.tree.open(from)?;
            let executable = source.metadata()?.mode() & 0o111 != 0;
            // A copy by the kernel, which takes no room where the file system can share blocks.
            // Never a hard link: root of a container could write to the machine's own program.
            io::copy(&mut source, &mut create()?)?;
            // Never set-user-id: `mount` would give its user's rights to everybody on the machine.
            Some(if executable { 0o755 } else { 0o644 })
        }
        Entry::Link(target) => {
            symlink(target, to)?;
            None
        }
    };
    let made = fs::symlink_metadata(to)?;
    if (made.uid(), made.gid()) != owner {
        lchown(to, Some(owner.0), Some(owner.1))
            .with_context(|| format!("only root may give files to user {}:{}", owner.0, owner.1))?;
    }
    // After the owner, whose change takes bits away; and not at creation, since the umask would.
    if let Some(mode) = mode {
        fs::set_permissions(to, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// What a root file system is to hold.
#[derive(Default)]
struct Plan {
    /// By absolute path, so that a directory comes before what is in it.
    entries: BTreeMap<PathBuf, Entry>,
    watch: BTreeSet<PathBuf>,
    left_out: Vec<String>,
    /// Where each program file was put, by device and inode number: many names may be one file.
    copied: HashMap<(u64, u64), PathBuf>,
}

#[derive(Debug)]
enum Entry {
    /// With its mode.
    Dir(u32),
    Text(&'static str),
    /// Of this file on the host.
    Copy(PathBuf),
    /// To this path.
    Link(PathBuf),
}

impl Plan {
    fn new(host: &Host) -> Result<Self> {
        let mut plan = Plan::default();
        for (path, mode) in DIRS {
            plan.put(Path::new(path).into(), Entry::Dir(*mode))?;
        }
        for (path, target) in LINKS {
            plan.put(Path::new(path).into(), Entry::Link(target.into()))?;
        }
        for (path, text) in TEXTS {
            plan.put(Path::new(path).into(), Entry::Text(text))?;
        }
        let mut loader = Loader::new(&host.tree);
        for (n, (name, path, _)) in host.programs.iter().enumerate() {
            match plan.add_program(&host.tree, &mut loader, name, path) {
                Ok(()) => {}
                Err(error) if n == 0 => return Err(error.context(format!("{}", path.display()))),
                Err(error) => plan.left_out.push(format!("{name}: {error:#}")),
            }
        }
        for dir in TERMINAL_DIRS {
            for path in TERMINALS.map(|terminal| Path::new(dir).join(terminal)) {
                if host.tree.stat(&path).is_ok() {
                    plan.add(&host.tree, &path)?;
                }
            }
        }
        Ok(plan)
    }

    /// Adds a program by its name, in /usr/bin wherever the host has it, and all that it needs.
    fn add_program(
        &mut self,
        tree: &Tree,
        loader: &mut Loader,
        name: &str,
        path: &Path,
    ) -> Result<()> {
        let (file, _) = follow(tree, path)?;
        let needs = loader.needs(&file, OPENED_LATER)?;
        if let Some(loader) = needs.first() {
            let settings = musl_path_file(loader).unwrap_or(LD_SO_CACHE.into());
            if tree.stat(&settings).is_ok() {
                self.add(tree, &settings)?;
            }
            // Also if there are none: once there are, the loader finds other libraries.
            self.watch.insert(settings);
        }
        for library in needs {
            self.add(tree, &library)?;
            self.watch.insert(library);
        }
        self.add_name(tree, name, file)
    }

    /// Adds the file of a program, unless it's there by another name, and the program's name.
    fn add_name(&mut self, tree: &Tree, name: &str, file: PathBuf) -> Result<()> {
        let wanted = Path::new("/usr/bin").join(name);
        let meta = tree.stat(&file)?;
        let copy = match self.copied.get(&(meta.dev(), meta.ino())) {
            Some(copy) => copy.clone(),
            None => {
                let copy = in_one_bin(&file);
                self.put(copy.clone(), Entry::Copy(file))?;
                self.copied.insert((meta.dev(), meta.ino()), copy.clone());
                copy
            }
        };
        if copy != wanted {
            let target = copy.strip_prefix("/usr/bin").map(Path::to_owned).unwrap_or(copy);
            self.put(wanted, Entry::Link(target))?;
        }
        Ok(())
    }

    /// Adds a file of the host at the very same path, with the links that lead there.
    fn add(&mut self, tree: &Tree, path: &Path) -> Result<()> {
        let (file, links) = follow(tree, path)?;
        for (link, target) in links {
            self.put(link, Entry::Link(target))?;
        }
        self.put(file.clone(), Entry::Copy(file))
    }

    /// Adds an entry, if there isn't one of this path already, and the directories above it.
    fn put(&mut self, path: PathBuf, entry: Entry) -> Result<()> {
        for dir in path.ancestors().skip(1).filter(|dir| dir.parent().is_some()) {
            match self.entries.get(dir) {
                None => drop(self.entries.insert(dir.into(), Entry::Dir(0o755))),
                Some(Entry::Dir(_)) => {}
                Some(_) => bail!("{} can't be put below {}", path.display(), dir.display()),
            }
        }
        self.entries.entry(path).or_insert(entry);
        Ok(())
    }
}

/// The path of a program's file in the new root, where /bin, /sbin and /usr/sbin are /usr/bin.
fn in_one_bin(file: &Path) -> PathBuf {
    let rest = ["/bin", "/sbin", "/usr/sbin"].iter().find_map(|dir| file.strip_prefix(dir).ok());
    rest.map_or(file.into(), |rest| Path::new("/usr/bin").join(rest))
}

/// Where `path` leads: the path of the file itself, without any link, and the links on the way.
fn follow(tree: &Tree, path: &Path) -> Result<(PathBuf, Vec<(PathBuf, PathBuf)>)> {
    let mut links = Vec::new();
    let mut done = PathBuf::from("/");
    let mut rest = path.to_owned();
    while let Some(part) = rest.components().next() {
        let mut after = rest.components().skip(1).collect::<PathBuf>();
        match part {
            Component::RootDir => done = "/".into(),
            Component::ParentDir => drop(done.pop()),
            Component::Normal(name) => {
                done.push(name);
                if let Some(target) = tree.read_link(&done) {
                    ensure!(links.len() < 40, "{} is a loop of links", path.display());
                    after = target.join(after);
                    links.push((done.clone(), target));
                    done.pop();
                }
            }
            Component::CurDir | Component::Prefix(_) => {}
        }
        rest = after;
    }
    Ok((done, links))
}
