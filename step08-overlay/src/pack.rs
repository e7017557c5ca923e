//! Packs what a container changed as a layer: the reverse of unpacking one.
//!
//! The archive is the same, byte for byte, whenever the directory is: names in order, and nothing
//! in it of users' names, access times or inode numbers.
//!
//! Source: [OCI image layers, "Creating"](https://github.com/opencontainers/image-spec/blob/main/layer.md#creating).

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, lgetxattr, llistxattr, major, minor,
        openat, readlinkat, statat,
    },
    io::Errno,
};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::{
    Marks,
    archive::shown,
    stream::text,
    tree::{is, is_whiteout},
    unpack::{OPAQUE_NAME, is_mark, whiteout_name},
};

/// A layer that was packed.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The digest of the plain tar, `sha256:` and 64 hexadecimal digits.
    pub diff_id: String,
    /// How many members it has.
    pub members: u64,
    /// How many sockets were left out: they mean nothing without the process that listens.
    pub sockets: u64,
}

/// Writes what is in `upper`, the upper directory of an overlay, to `to` as a plain tar: files,
/// and as whiteouts what was removed. It must not change meanwhile, so the container has ended.
///
/// # Errors
/// If a file can't be read, or has a name that means something else in a layer (`.wh.…`).
pub fn pack(upper: &Path, to: impl Write) -> Result<Packed> {
    let root = openat(CWD, upper, DIRECTORY, Mode::empty())
        .with_context(|| format!("can't open {}", upper.display()))?;
    let mut packer = Packer {
        tar: Builder::new(Digesting { to, sha: Sha256::new() }),
        linked: HashMap::new(),
        members: 0,
        sockets: 0,
    };
    packer.add_dir(&root, b"").with_context(|| format!("can't pack {}", upper.display()))?;
    let done = packer.tar.into_inner().context("can't end the archive")?;
    let (members, sockets) = (packer.members, packer.sockets);
    Ok(Packed { diff_id: text(done.sha), members, sockets })
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

struct Packer<W: Write> {
    tar: Builder<Digesting<W>>,
    /// By device and inode number, the first name of each file that has several.
    linked: HashMap<(u64, u64), Vec<u8>>,
    members: u64,
    sockets: u64,
}

impl<W: Write> Packer<W> {
    /// Adds what is in `dir`; `path` is its name in the layer, empty for the root.
    fn add_dir(&mut self, dir: &OwnedFd, path: &[u8]) -> Result<()> {
        for name in names(dir)? {
            let path = if path.is_empty() { name.clone() } else { [path, b"/", &name].concat() };
            ensure!(
                !is_mark(&name),
                "{} can't be packed: in a layer, the name means that a file was removed",
                shown(&path)
            );
            self.add(dir, &name, &path).with_context(|| shown(&path))?;
        }
        Ok(())
    }

    fn add(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8]) -> Result<()> {
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if is_whiteout(&stat) {
            let above = &path[..path.len() - name.len()];
            return self.add_mark(&[above, &whiteout_name(name)].concat());
        }
        let (xattrs, opaque) = read_xattrs(dir, name)?;
        let no_data = io::empty();
        if let Some(first) = self.first_name(&stat, path) {
            return self.append(path, &stat, EntryType::Link, &first, vec![], no_data);
        }
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = File::from(openat(dir, name, flags, Mode::empty())?);
                return self.append(path, &stat, EntryType::Regular, b"", xattrs, file);
            }
            FileType::Directory => {
                let inner = openat(dir, name, DIRECTORY, Mode::empty())?;
                let name = [path, b"/"].concat();
                self.append(&name, &stat, EntryType::Directory, b"", xattrs, no_data)?;
                if opaque {
                    self.add_mark(&[&name, OPAQUE_NAME].concat())?;
                }
                return self.add_dir(&inner, path);
            }
            FileType::Symlink => {
                let target = readlinkat(dir, name, vec![])?;
                let target = target.to_bytes();
                return self.append(path, &stat, EntryType::Symlink, target, xattrs, no_data);
            }
            FileType::Socket => {
                self.sockets += 1;
                return Ok(());
            }
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            FileType::Fifo => EntryType::Fifo,
            kind => bail!("it is of a kind that isn't known: {kind:?}"),
        };
        self.append(path, &stat, kind, b"", xattrs, no_data)
    }

    /// The name under which this file was added already, if it has several.
    fn first_name(&mut self, stat: &Stat, path: &[u8]) -> Option<Vec<u8>> {
        if is(stat, FileType::Directory) || stat.st_nlink == 1 {
            return None;
        }
        let first = self.linked.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.to_vec());
        (first != path).then(|| first.clone())
    }

    /// Adds an empty file whose name is its meaning.
    fn add_mark(&mut self, path: &[u8]) -> Result<()> {
        let mut records = Vec::new();
        let mut header = Header::new_ustar();
        set_name(&mut header, path, &mut records);
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        for set in [Header::set_size, Header::set_uid, Header::set_gid, Header::set_mtime] {
            set(&mut header, 0);
        }
        self.write(header, records, io::empty())
    }

    fn append(
        &mut self,
        path: &[u8],
        stat: &Stat,
        kind: EntryType,
        target: &[u8],
        xattrs: Vec<(Vec<u8>, Vec<u8>)>,
        data: impl Read,
    ) -> Result<()> {
        let mut records = Vec::new();
        let mut header = Header::new_ustar();
        set_name(&mut header, path, &mut records);
        set_target(&mut header, target, &mut records);
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        let size = if kind == EntryType::Regular { stat.st_size as u64 } else { 0 };
        set_number(size, 8 << 30, "size", &mut records, |n| header.set_size(n));
        set_number(stat.st_uid.into(), 1 << 21, "uid", &mut records, |n| header.set_uid(n));
        set_number(stat.st_gid.into(), 1 << 21, "gid", &mut records, |n| header.set_gid(n));
        set_time(&mut header, stat, &mut records);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(major(stat.st_rdev))?;
            header.set_device_minor(minor(stat.st_rdev))?;
        }
        let named = |(name, value): (Vec<u8>, _)| ([b"SCHILY.xattr.", &name[..]].concat(), value);
        records.extend(xattrs.into_iter().map(named));
        self.write(header, records, Exactly { data, left: size })
    }

    /// Writes a member, and before it what doesn't fit into its header.
    fn write(&mut self, mut header: Header, records: Records, data: impl Read) -> Result<()> {
        if !records.is_empty() {
            let text =
                records.iter().map(|(key, value)| record(key, value)).collect::<Vec<_>>().concat();
            let mut extension = Header::new_ustar();
            extension.as_old_mut().name[..3].copy_from_slice(b"pax");
            extension.set_entry_type(EntryType::XHeader);
            extension.set_mode(0o644);
            for set in [Header::set_uid, Header::set_gid, Header::set_mtime] {
                set(&mut extension, 0);
            }
            extension.set_size(text.len() as u64);
            extension.set_cksum();
            self.tar.append(&extension, &text[..])?;
        }
        header.set_cksum();
        self.tar.append(&header, data)?;
        self.members += 1;
        Ok(())
    }
}

type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() > len {
        len = rest + len.to_string().len();
    }
    [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn set_name(header: &mut Header, name: &[u8], records: &mut Records) {
    let field = &mut header.as_old_mut().name;
    let len = name.len().min(field.len());
    field[..len].copy_from_slice(&name[..len]);
    if len < name.len() {
        records.push((b"path".to_vec(), name.to_vec()));
    }
}

fn set_target(header: &mut Header, target: &[u8], records: &mut Records) {
    let field = &mut header.as_old_mut().linkname;
    let len = target.len().min(field.len());
    field[..len].copy_from_slice(&target[..len]);
    if len < target.len() {
        records.push((b"linkpath".to_vec(), target.to_vec()));
    }
}

/// Sets a number, in a record if it is `limit` or more.
fn set_number(n: u64, limit: u64, key: &str, records: &mut Records, set: impl FnOnce(u64)) {
    match n < limit {
        true => set(n),
        false => {
            records.push((key.into(), n.to_string().into()));
            set(0);
        }
    }
}

fn set_time(header: &mut Header, stat: &Stat, records: &mut Records) {
    let (seconds, nanos) = (stat.st_mtime, stat.st_mtime_nsec as u32);
    let fits = (0..8 << 30).contains(&seconds);
    header.set_mtime(if fits { seconds as u64 } else { 0 });
    if !fits || nanos > 0 {
        let time = match nanos {
            0 => seconds.to_string(),
            // -1.75 is 250 ms after -2.
            nanos if seconds == -1 => format!("-0.{:09}", 1_000_000_000 - nanos),
            nanos if seconds < 0 => format!("{}.{:09}", seconds + 1, 1_000_000_000 - nanos),
            nanos => format!("{seconds}.{nanos:09}"),
        };
        records.push((b"mtime".to_vec(), time.into()));
    }
}

/// What is in a directory, in order of the bytes of the names.
fn names(dir: &OwnedFd) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    names.sort();
    Ok(names)
}

/// The extended attributes of a file, in order, and whether overlayfs marked it as opaque.
fn read_xattrs(dir: impl AsFd, name: &[u8]) -> Result<(Records, bool)> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let mut list = Vec::with_capacity(65536); // The kernel's limit.
    match llistxattr(&path, rustix::buffer::spare_capacity(&mut list)) {
        Err(Errno::OPNOTSUPP) => return Ok((vec![], false)),
        result => result.context("its extended attributes can't be listed")?,
    };
    let (mut xattrs, mut opaque) = (Vec::new(), false);
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = Vec::with_capacity(65536);
        lgetxattr(&path, name, rustix::buffer::spare_capacity(&mut value))
            .with_context(|| format!("its extended attribute {} can't be read", shown(name)))?;
        match Marks::strip(name) {
            None => xattrs.push((name.to_vec(), value)),
            Some(b"opaque") => opaque |= value == b"y",
            Some(b"redirect" | b"metacopy") => bail!(
                "it is only a note that the rest is in a lower layer: mount the overlay with \
                 redirect_dir=off,metacopy=off"
            ),
            Some(_) => {} // Nothing but notes of overlayfs to itself.
        }
    }
    xattrs.sort();
    Ok((xattrs, opaque))
}

/// Data that must be of the size that was announced, or all that follows would be misread.
struct Exactly<R> {
    data: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.data.by_ref().take(self.left).read(into)?;
        if n == 0 && self.left > 0 && !into.is_empty() {
            return Err(io::Error::other("it became shorter while it was packed"));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

/// A writer that takes the digest of what passes.
struct Digesting<W> {
    to: W,
    sha: Sha256,
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.to.write(bytes)?;
        self.sha.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
