//! Writes files below one directory, and nowhere else, whatever their names say.
//!
//! A name out of an archive is looked up in two halves. The directory above it is opened by
//! `openat2(2)` with `RESOLVE_BENEATH`: the kernel refuses to leave the root, be it by `..` or by
//! a symbolic link that the archive itself put there. The last component is then only ever used
//! with calls that don't follow a link. What stands at a name already is replaced, never written
//! through.
//!
//! Directories get their permissions and times last: a read-only one must first be filled, a
//! set-group-id one would hand its group on to what is made in it, and making a file in a
//! directory changes its time.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    rc::Rc,
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::XattrFlags,
    fs::{
        AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps,
        UTIME_OMIT, Uid, chmodat, chownat, fchmod, fchown, fremovexattr, fsetxattr, fstat,
        ftruncate, futimens, linkat, lsetxattr, mkdirat, mknodat, openat, openat2, statat,
        symlinkat, unlinkat, utimensat,
    },
    io::{Errno, Result as Io, pwrite},
};
use uts::call::{Arg, CallError, Shown};

use crate::{
    Marks,
    archive::shown,
    remove::{expect_empty, remove},
};

/// The properties of a file, besides what it is.
#[derive(Clone, Default)]
pub(crate) struct Attributes {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Names and values, in order: a later one replaces an earlier one.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A directory that is filled.
pub(crate) struct Tree {
    root: OwnedFd,
    marks: Marks,
    /// The directory that was used last: archives list a directory's files one after the other.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// What is still to be done to directories.
    unfinished: Vec<Unfinished>,
    /// How many extended attributes the kernel refused.
    pub refused_xattrs: u64,
}

struct Unfinished {
    path: Vec<u8>,
    /// By which it is told that this is still the same directory.
    inode: u64,
    mode: u32,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A place for a file: an open directory, and a name in it.
pub(crate) struct Place<'a> {
    dir: Rc<OwnedFd>,
    name: &'a [u8],
    /// The whole name, for error messages and as a key.
    path: &'a [u8],
}

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

impl Tree {
    /// Begins to fill `dir`: an empty directory, made if there is none.
    pub fn new(dir: &Path, marks: Marks) -> Result<Self> {
        match mkdirat(CWD, dir, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => {}
            result => result.map_err(failed("mkdir", &dir))?,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, dir, flags, Mode::empty()).map_err(failed("open", &dir))?;
        expect_empty(&root, dir)?;
        // What was set for this place by hand mustn't be inherited by the files of a layer.
        for list in ["system.posix_acl_default", "system.posix_acl_access"] {
            let _ = fremovexattr(&root, list); // There is hardly ever one.
        }
        fchmod(&root, Mode::from_raw_mode(0o755)).map_err(failed("fchmod", &dir))?;
        Ok(Tree { root, marks, last: None, unfinished: vec![], refused_xattrs: 0 })
    }

    /// The place that `path` names: made of names and single slashes, neither `.` nor `..`.
    /// Directories that are missing above it are made.
    pub fn place<'a>(&mut self, path: &'a [u8]) -> Result<Place<'a>> {
        let (dir, name) = split(path);
        Ok(Place { dir: self.directory(dir)?, name, path })
    }

    /// A regular file, open for writing. It is finished by [`finish_file`](Tree::finish_file).
    pub fn file(&mut self, place: &Place, attributes: &Attributes) -> Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        // Attributes can be set only on a file that its owner may write to.
        let open = if attributes.xattrs.is_empty() { attributes.mode & 0o777 } else { 0o600 };
        let mode = Mode::from_raw_mode(open);
        self.make(place, "openat", |dir, name| openat(dir, name, flags | OFlags::CLOEXEC, mode))
    }

    /// Sets what `attributes` says, after all data was written: each step would undo later ones.
    pub fn finish_file(&mut self, file: &OwnedFd, place: &Place, to: &Attributes) -> Result<()> {
        let stat = fstat(file).map_err(failed_at("fstat", place.path))?;
        if (stat.st_uid, stat.st_gid) != (to.uid, to.gid) {
            let (uid, gid) = (Uid::from_raw(to.uid), Gid::from_raw(to.gid));
            fchown(file, Some(uid), Some(gid)).map_err(failed_at("fchown", place.path))?;
        }
        self.set_xattrs(file, place.path, &to.xattrs)?;
        if stat.st_mode & 0o7777 != to.mode {
            let mode = Mode::from_raw_mode(to.mode);
            fchmod(file, mode).map_err(failed_at("fchmod", place.path))?;
        }
        futimens(file, &times(to.mtime)).map_err(failed_at("futimens", place.path))
    }

    /// A directory. If there is one already, it keeps what is in it.
    pub fn make_dir(&mut self, path: &[u8], attributes: Attributes) -> Result<()> {
        let dir = if path.is_empty() { self.open(b"")? } else { self.make_or_keep_dir(path)? };
        let stat = fstat(&dir).map_err(failed_at("fstat", path))?;
        if (stat.st_uid, stat.st_gid) != (attributes.uid, attributes.gid) {
            let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
            chownat(&dir, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
                .map_err(failed_at("fchown", path))?;
        }
        self.unfinished.push(Unfinished {
            path: path.to_vec(),
            inode: stat.st_ino,
            mode: attributes.mode,
            mtime: Some(attributes.mtime),
            xattrs: attributes.xattrs,
        });
        Ok(())
    }

    fn make_or_keep_dir(&mut self, path: &[u8]) -> Result<OwnedFd> {
        let place = self.place(path)?;
        let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
        let mut hides_lower = false;
        loop {
            match mkdirat(&place.dir, place.name, mode) {
                Err(Errno::EXIST) => {}
                result => break result.map_err(failed_at("mkdirat", path))?,
            }
            let there = self.stat(&place)?;
            if is(&there, FileType::Directory) {
                break;
            }
            hides_lower = is_whiteout(&there);
            self.replace(&place)?;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(&place.dir, place.name, flags, Mode::empty())
            .map_err(failed_at("openat", path))?;
        if hides_lower {
            self.mark_opaque(&dir, path)?;
        }
        Ok(dir)
    }

    /// A symbolic link, which may lead anywhere: nobody follows it here.
    pub fn symlink(&mut self, place: &Place, target: &[u8], to: &Attributes) -> Result<()> {
        self.make(place, "symlinkat", |dir, name| symlinkat(target, dir, name))?;
        self.set_by_name(place, to, false)
    }

    /// A device or a FIFO. `false` says that the kernel doesn't allow it to this process.
    pub fn node(
        &mut self,
        place: &Place,
        kind: FileType,
        device: Dev,
        to: &Attributes,
    ) -> Result<bool> {
        let mode = Mode::from_raw_mode(to.mode & 0o777);
        let made = self.try_make(place, |dir, name| mknodat(dir, name, kind, mode, device))?;
        if made == Err(Errno::PERM) {
            return Ok(false);
        }
        made.map_err(failed_at("mknodat", place.path))?;
        self.set_by_name(place, to, true)?;
        Ok(true)
    }

    /// A second name for the file `target`, which must not be reached through symbolic links.
    pub fn hard_link(&mut self, place: &Place, target: &[u8]) -> Result<()> {
        let (above, name) = split(target);
        let from = self.open_with(above, BENEATH | ResolveFlags::NO_SYMLINKS);
        let from = from.map_err(|errno| why_no_place(errno, above))?;
        let link = |dir: BorrowedFd, to: &[u8]| linkat(&from, name, dir, to, AtFlags::empty());
        let mut made = link(place.dir.as_fd(), place.name);
        if made == Err(Errno::EXIST) {
            let old = statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| failed_link(errno, target, place.path))?;
            let there = self.stat(place)?;
            if (old.st_dev, old.st_ino) == (there.st_dev, there.st_ino) {
                return Ok(()); // To replace it would be to lose it.
            }
            self.replace(place)?;
            made = link(place.dir.as_fd(), place.name);
        }
        made.map_err(|errno| failed_link(errno, target, place.path))
    }

    /// Hides `path` of the layers below. What this layer itself has there stays: a whiteout is
    /// about lower layers alone, in whatever order the archive has the two.
    pub fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        let place = self.place(path)?;
        match mknodat(&place.dir, place.name, FileType::CharacterDevice, Mode::empty(), WHITEOUT) {
            Err(Errno::EXIST) if is(&self.stat(&place)?, FileType::Directory) => self.opaque(path),
            Err(Errno::EXIST) => Ok(()),
            result => Ok(result.map_err(failed_at("mknodat", path))?),
        }
    }

    /// Hides whatever layers below have in the directory `path`.
    pub fn opaque(&mut self, path: &[u8]) -> Result<()> {
        let dir = self.directory(path)?;
        self.mark_opaque(&dir, path)
    }

    fn mark_opaque(&self, dir: &OwnedFd, path: &[u8]) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let set = openat(dir, ".", flags, Mode::empty())
            .and_then(|dir| fsetxattr(dir, self.marks.opaque(), b"y", XattrFlags::empty()));
        set.map_err(failed_at("fsetxattr", path)).with_context(|| {
            format!("the mark {} that hides lower layers can't be set", self.marks.opaque())
        })
    }

    /// Sets permissions, attributes and times of all directories, and says that all is done.
    pub fn finish(mut self) -> Result<u64> {
        self.last = None;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Deeper ones first, or what is above might already be closed to a plain user.
        let mut unfinished = std::mem::take(&mut self.unfinished);
        unfinished.sort_by_key(|dir| std::cmp::Reverse(depth(&dir.path)));
        for dir in &unfinished {
            let path = if dir.path.is_empty() { b".".as_slice() } else { &dir.path };
            // It may have been replaced by something else since.
            let fd = match beneath(&self.root, path, flags, BENEATH) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => continue,
                result => result.map_err(failed_at("openat2", path))?,
            };
            let stat = fstat(&fd).map_err(failed_at("fstat", path))?;
            if stat.st_ino != dir.inode {
                continue;
            }
            self.set_xattrs(&fd, path, &dir.xattrs)?;
            if stat.st_mode & 0o7777 != dir.mode {
                let mode = Mode::from_raw_mode(dir.mode);
                fchmod(&fd, mode).map_err(failed_at("fchmod", path))?;
            }
            if let Some(mtime) = dir.mtime {
                futimens(&fd, &times(mtime)).map_err(failed_at("futimens", path))?;
            }
        }
        Ok(self.refused_xattrs)
    }

    /// Opens a directory, and makes it and those above it if they are missing.
    fn directory(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>> {
        if let Some((last, dir)) = &self.last
            && last == path
        {
            return Ok(dir.clone());
        }
        let dir = match self.open_with(path, BENEATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_dirs(path)?,
            result => result.map_err(|errno| why_no_place(errno, path))?,
        };
        let dir = Rc::new(dir);
        self.last = Some((path.to_vec(), dir.clone()));
        Ok(dir)
    }

    fn open(&self, path: &[u8]) -> Result<OwnedFd> {
        self.open_with(path, BENEATH).map_err(|errno| why_no_place(errno, path))
    }

    fn open_with(&self, path: &[u8], resolve: ResolveFlags) -> Io<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        beneath(&self.root, if path.is_empty() { b"." } else { path }, flags, resolve)
    }

    fn make_dirs(&mut self, path: &[u8]) -> Result<OwnedFd> {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let ends: Vec<_> = slashes.map(|(at, _)| at).chain([path.len()]).collect();
        let mut above = self.open(b"")?;
        for end in ends {
            let part = &path[..end];
            above = match self.open_with(part, BENEATH) {
                Err(Errno::NOENT | Errno::NOTDIR) => self.make_missing(&above, part)?,
                result => result.map_err(|errno| why_no_place(errno, part))?,
            };
        }
        Ok(above)
    }

    /// Makes a directory that no member of the archive has described, or not yet.
    fn make_missing(&mut self, above: &OwnedFd, path: &[u8]) -> Result<OwnedFd> {
        let (_, name) = split(path);
        let mode = Mode::from_raw_mode(0o755);
        let mut hides_lower = false;
        let mut made = mkdirat(above, name, mode);
        if made == Err(Errno::EXIST) {
            let there = statat(above, name, AtFlags::SYMLINK_NOFOLLOW);
            hides_lower = is_whiteout(&there.map_err(failed_at("fstatat", path))?);
            if !hides_lower {
                bail!("{} is no directory, and something is to be put into it", shown(path));
            }
            unlinkat(above, name, AtFlags::empty()).map_err(failed_at("unlinkat", path))?;
            made = mkdirat(above, name, mode);
        }
        made.map_err(failed_at("mkdirat", path))?;
        let dir = self.open(path)?;
        let stat = fstat(&dir).map_err(failed_at("fstat", path))?;
        let (path, inode, xattrs) = (path.to_vec(), stat.st_ino, vec![]);
        if hides_lower {
            self.mark_opaque(&dir, &path)?;
        }
        self.unfinished.push(Unfinished { path, inode, mode: 0o755, mtime: None, xattrs });
        Ok(dir)
    }

    /// Makes something at `place`; what is there already gives way.
    fn make<T>(
        &mut self,
        place: &Place,
        call: &str,
        make: impl Fn(BorrowedFd, &[u8]) -> Io<T>,
    ) -> Result<T> {
        self.try_make(place, make)?.map_err(failed_at(call, place.path))
    }

    fn try_make<T>(
        &mut self,
        place: &Place,
        make: impl Fn(BorrowedFd, &[u8]) -> Io<T>,
    ) -> Result<Io<T>> {
        match make(place.dir.as_fd(), place.name) {
            Err(Errno::EXIST) => {
                self.replace(place)?;
                Ok(make(place.dir.as_fd(), place.name))
            }
            made => Ok(made),
        }
    }

    fn replace(&mut self, place: &Place) -> Result<()> {
        // The directory that was used last may have been this one, or reached through this link.
        self.last = None;
        remove(&*place.dir, place.name)
            .map_err(failed_at("unlinkat", place.path))
            .context("what another member of the archive put there can't be removed")
    }

    fn stat(&self, place: &Place) -> Result<Stat> {
        let stat = statat(&*place.dir, place.name, AtFlags::SYMLINK_NOFOLLOW);
        stat.map_err(failed_at("fstatat", place.path))
    }

    /// Sets the attributes of what can't be opened.
    fn set_by_name(&mut self, place: &Place, to: &Attributes, has_mode: bool) -> Result<()> {
        let (dir, name) = (&*place.dir, place.name);
        let stat = self.stat(place)?;
        if (stat.st_uid, stat.st_gid) != (to.uid, to.gid) {
            let (uid, gid) = (Uid::from_raw(to.uid), Gid::from_raw(to.gid));
            chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failed_at("fchownat", place.path))?;
        }
        // It was made a moment ago in a directory that is nobody else's: it is no link.
        if has_mode && stat.st_mode & 0o7777 != to.mode {
            chmodat(dir, name, Mode::from_raw_mode(to.mode), AtFlags::empty())
                .map_err(failed_at("fchmodat", place.path))?;
        }
        for (key, value) in &to.xattrs {
            let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
            path.extend_from_slice(name);
            let set = lsetxattr(path, key.as_slice(), value, XattrFlags::empty());
            self.count_refused(set, place.path)?;
        }
        utimensat(dir, name, &times(to.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed_at("utimensat", place.path))
    }

    fn set_xattrs(
        &mut self,
        fd: &OwnedFd,
        path: &[u8],
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<()> {
        for (key, value) in xattrs {
            let set = fsetxattr(fd, key.as_slice(), value, XattrFlags::empty());
            self.count_refused(set, path)?;
        }
        Ok(())
    }

    /// An attribute that this file system or this user can't have is left out.
    fn count_refused(&mut self, set: Io<()>, path: &[u8]) -> Result<()> {
        match set {
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL) => self.refused_xattrs += 1,
            result => result.map_err(failed_at("setxattr", path))?,
        }
        Ok(())
    }
}

/// Writes all of `data` at `offset`, in bytes.
pub(crate) fn write_at(file: &OwnedFd, place: &Place, data: &[u8], offset: u64) -> Result<()> {
    let mut written = 0;
    while written < data.len() {
        match pwrite(file, &data[written..], offset + written as u64) {
            Err(Errno::INTR) => {}
            Ok(0) => bail!("write({}) wrote nothing", shown(place.path)),
            result => written += result.map_err(failed_at("write", place.path))?,
        }
    }
    Ok(())
}

/// Gives `file` its size, in bytes: what wasn't written is a hole.
pub(crate) fn set_size(file: &OwnedFd, place: &Place, size: u64) -> Result<()> {
    ftruncate(file, size).map_err(failed_at("ftruncate", place.path))
}

/// The device number of a whiteout.
pub(crate) const WHITEOUT: Dev = 0;

pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    is(stat, FileType::CharacterDevice) && stat.st_rdev == WHITEOUT
}

pub(crate) fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

/// Opens below `root`. The kernel answers EAGAIN if something was renamed meanwhile, anywhere.
fn beneath(root: &OwnedFd, path: &[u8], flags: OFlags, resolve: ResolveFlags) -> Io<OwnedFd> {
    loop {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

/// The directory above, and the last component.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn depth(path: &[u8]) -> usize {
    if path.is_empty() { 0 } else { 1 + path.iter().filter(|byte| **byte == b'/').count() }
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let last_modification = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access, last_modification }
}

fn why_no_place(errno: Errno, path: &[u8]) -> anyhow::Error {
    let path = shown(path);
    match errno {
        Errno::XDEV => anyhow::anyhow!("{path} leads out of the layer, through a symbolic link"),
        Errno::LOOP => anyhow::anyhow!("{path} leads through symbolic links where none may be"),
        Errno::NOENT => anyhow::anyhow!("there is no directory {path} in the layer"),
        errno => failed_at("openat2", path.as_bytes())(errno),
    }
}

fn failed_link(errno: Errno, target: &[u8], path: &[u8]) -> anyhow::Error {
    let names = [target, path].map(String::from_utf8_lossy);
    let args = names.each_ref().map(|name| &**name);
    CallError::new(&Shown("linkat", &[&args[0], &args[1]]), errno).into()
}

/// A failed call on a path in the layer. These calls aren't part of the story that `--explain`
/// tells: a layer takes tens of thousands.
fn failed_at(call: &str, path: &[u8]) -> impl FnOnce(Errno) -> anyhow::Error {
    move |errno| {
        let path = String::from_utf8_lossy(path);
        CallError::new(&Shown(call, &[&&*path]), errno).into()
    }
}

fn failed(call: &str, arg: &dyn Arg) -> impl FnOnce(Errno) -> anyhow::Error {
    move |errno| CallError::new(&Shown(call, &[arg]), errno).into()
}
