//! What the tests share: archives made by hand, and running a test as other users too.
#![allow(dead_code)] // Each test file uses its part.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File, Permissions},
    io::{BufRead, BufReader, Read},
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use overlay::{Expected, Marks, Unpacked, unpack};
use tar::{Builder, EntryType, Header};

/// A tar, member by member, with whatever nonsense in it.
pub struct Tar(Builder<Vec<u8>>);

impl Tar {
    pub fn new() -> Self {
        Tar(Builder::new(Vec::new()))
    }

    /// Adds a member; `change` sees its header last.
    pub fn add(
        mut self,
        kind: EntryType,
        name: impl AsRef<[u8]>,
        data: impl AsRef<[u8]>,
        change: impl FnOnce(&mut Header),
    ) -> Self {
        let (name, data) = (name.as_ref(), data.as_ref());
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_size(data.len() as u64);
        header.set_mtime(1_000_000_000);
        header.set_uid(0);
        header.set_gid(0);
        change(&mut header);
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    pub fn file(self, name: &str, data: impl AsRef<[u8]>) -> Self {
        self.add(EntryType::Regular, name, data, |_| {})
    }

    pub fn dir(self, name: &str) -> Self {
        self.add(EntryType::Directory, name, "", |_| {})
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.add(EntryType::Symlink, name, "", |header| set_target(header, target))
    }

    pub fn link(self, name: &str, target: &str) -> Self {
        self.add(EntryType::Link, name, "", |header| set_target(header, target))
    }

    pub fn device(self, kind: EntryType, name: &str, major: u32, minor: u32) -> Self {
        self.add(kind, name, "", |header| {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        })
    }

    /// PAX records for the next member.
    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    pub fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn set_target(header: &mut Header, target: &str) {
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
}

/// A directory for one test, removed in the end, also with what a plain user can't just remove.
pub struct Dir(PathBuf);

impl Dir {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let removed = overlay::remove_dir(&self.0);
        if !thread::panicking() {
            removed.unwrap();
        }
    }
}

/// A new directory, to which other users come too.
pub fn temp_dir() -> Dir {
    let dir = tempfile::Builder::new().prefix("overlay-test-").tempdir().unwrap().keep();
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
    Dir(dir)
}

/// Unpacks `tar` into `dir`.
pub fn unpack_into(dir: &Path, tar: &[u8]) -> anyhow::Result<Unpacked> {
    unpack(tar, dir, Marks::here(), &Expected::default())
}

/// Unpacks `tar` into a new directory, which must work.
pub fn unpacked(tar: Tar) -> (Dir, Unpacked) {
    let dir = temp_dir();
    let unpacked = unpack_into(&dir.path().join("layer"), &tar.done()).unwrap();
    (dir, unpacked)
}

/// Bytes that nobody can guess.
pub fn random(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    bytes
}

/// Asks the kernel whether this process may give files to user `id`.
pub fn can_give_to(id: u32) -> bool {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::os::unix::fs::chown(file.path(), Some(id), Some(id)).is_ok()
}

/// Asks the kernel whether this process may make devices.
pub fn can_make_devices() -> bool {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let path = temp_dir();
    let path = path.path().join("null");
    mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), makedev(1, 3)).is_ok()
}

/// The name of overlayfs's attribute for opaque directories, worked out otherwise than the library.
pub fn opaque_name() -> &'static str {
    let dir = temp_dir();
    let set =
        rustix::fs::setxattr(dir.path(), "trusted.test", b"x", rustix::fs::XattrFlags::empty());
    if set.is_ok() { "trusted.overlay.opaque" } else { "user.overlay.opaque" }
}

pub fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 65536];
    let len = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(len);
    Some(value)
}

pub fn is_opaque(path: &Path) -> bool {
    xattr(path, opaque_name()).as_deref() == Some(b"y")
}

pub fn is_whiteout(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::symlink_metadata(path)
        .is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0)
}

/// All names below `dir`, in order.
pub fn names(dir: &Path) -> Vec<String> {
    fn walk(top: &Path, dir: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.strip_prefix(top).unwrap().display().to_string());
            if path.symlink_metadata().unwrap().is_dir() {
                walk(top, &path, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found);
    found.sort();
    found
}

/// Says that a test can't run here, which is a failure where all must run.
pub fn skip(name: &str, reason: &str) {
    println!("SKIP {name}: {reason}");
    assert!(env::var_os("CONTAINERS_MUST_RUN").is_none(), "{name} must run, but {reason}");
}

/// As whom a test runs, besides as itself.
#[derive(Clone, Copy, PartialEq)]
pub enum Who {
    /// The user who runs the tests; with mounts of its own if that is root.
    Me,
    /// Root of a user namespace in which there is no other user.
    RootOfOneId,
    /// The same, where the user outside is nobody.
    NobodysRoot,
    /// A user like any other, without any namespace.
    Nobody,
    /// Root of a user namespace whose ids are shifted: 0 is 200000 outside, and so on.
    ShiftedRoot,
}

use Who::*;

/// For tests that unpack: all of them.
pub const ALL: &[Who] = &[Me, RootOfOneId, NobodysRoot, Nobody, ShiftedRoot];
/// For tests that mount: those who may.
pub const MOUNTING: &[Who] = &[Me, RootOfOneId, NobodysRoot, ShiftedRoot];

const INSIDE: &str = "OVERLAY_TEST_INSIDE";

/// Runs the test `name`, whose body this is, as all of `users`, in a process for each.
pub fn run_as(users: &[Who], name: &str, body: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        return body();
    }
    let is_root = rustix::process::geteuid().is_root();
    // By an open file, for others may not be allowed to enter the directory that it is in.
    let me = File::open(env::current_exe().unwrap()).unwrap();
    rustix::io::fcntl_setfd(&me, rustix::io::FdFlags::empty()).unwrap(); // The child inherits it.
    let program = PathBuf::from(format!("/proc/self/fd/{}", me.as_raw_fd()));
    for who in users {
        let (needs_root, prefix) = prefix(*who, is_root, users);
        if needs_root && !is_root {
            println!("as a plain user, {name} can't run as others");
            continue;
        }
        if let Err(reason) = run_child(*who, &prefix, &program, name) {
            panic!("{name}, run by {prefix:?}:\n{reason}");
        }
    }
}

fn prefix(who: Who, is_root: bool, users: &[Who]) -> (bool, Vec<&'static str>) {
    const NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    const ROOT_OF_ONE: [&str; 4] = ["unshare", "--user", "--map-root-user", "--mount"];
    match who {
        Me if users == ALL => (false, vec!["env"]),
        Me if is_root => (false, vec!["unshare", "--mount"]),
        Me => (false, ROOT_OF_ONE.to_vec()),
        RootOfOneId => (false, ROOT_OF_ONE.to_vec()),
        NobodysRoot => (true, [NOBODY, ROOT_OF_ONE].concat()),
        Nobody => (true, NOBODY.to_vec()),
        ShiftedRoot => (true, vec!["nsenter", "--user", "--mount"]),
    }
}

fn run_child(who: Who, prefix: &[&str], program: &Path, name: &str) -> Result<(), String> {
    let holder = (who == ShiftedRoot).then(hold_shifted_namespaces);
    let target = holder.as_ref().map(|holder| format!("--target={}", holder.id()));
    let mut command = Command::new(prefix[0]);
    command.args(&prefix[1..]).args(target).arg(program).args([name, "--exact", "--nocapture"]);
    command.env(INSIDE, "1").env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    let output = command.output().map_err(|error| error.to_string())?;
    if let Some(mut holder) = holder {
        drop(holder.stdin.take()); // It ends.
        holder.wait().unwrap();
    }
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines().filter(|line| line.starts_with("SKIP")) {
        println!("{line}");
    }
    match output.status.success() && text.contains("1 passed") {
        true => Ok(()),
        false => Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// A process that does nothing but keep a user namespace, whose ids are shifted, and a mount
/// namespace, until its standard input is closed.
fn hold_shifted_namespaces() -> Child {
    let mut child = Command::new("unshare")
        .args(["--user", "--mount", "sh", "-c", "echo in; read end"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It says when it's in them.
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", child.id()), "0 200000 65536").unwrap();
    }
    child
}

pub fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}
