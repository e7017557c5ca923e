//! Unpacks one layer: a tar of what it adds to the layers below it, and of what it takes away.
//!
//! A layer can't hold the *absence* of a file, so there are marks for it. The image format uses
//! names, overlayfs what no program makes by accident; here the one becomes the other:
//!
//! | meaning | in the archive | on disk |
//! |---|---|---|
//! | hide `name` of lower layers | `.wh.name` (a whiteout) | `name`, a character device 0:0 |
//! | hide all that lower layers have in this directory | `.wh..wh..opq` in it | the attribute `overlay.opaque` on it |
//!
//! The archive may come from anybody. Nothing is ever written outside of the directory that it is
//! unpacked into, and an archive that tries is refused with an error that names the member.
//!
//! Source: [OCI image layers](https://github.com/opencontainers/image-spec/blob/main/layer.md),
//! [overlayfs, "whiteouts and opaque directories"](https://docs.kernel.org/filesystems/overlayfs.html#whiteouts-and-opaque-directories).

use std::{
    collections::HashSet,
    fmt,
    io::{BufRead, Read},
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FileType, makedev};

use crate::{
    Marks,
    archive::{Archive, Kind, Member, shown},
    owners::Owners,
    stream::{self, Digests},
    tree::{Attributes, Place, Tree, WHITEOUT, set_size, write_at},
};

/// What a layer must be. Digests are `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected<'a> {
    /// The digest of the bytes as they are read, compressed or not.
    pub blob: Option<&'a str>,
    /// The digest of the plain tar.
    pub diff_id: Option<&'a str>,
}

/// A layer that was unpacked.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// What it was.
    pub digests: Digests,
    /// How many members its archive had.
    pub members: u64,
    /// What couldn't be as the layer has it.
    pub left_out: LeftOut,
}

/// What a layer has and this process isn't allowed to make. Its [`Display`](fmt::Display) says it
/// to people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Files that belong to whoever unpacked them, since their owner has no number here. In a user
    /// namespace that maps a single id, that is every file which isn't root's.
    pub owners: u64,
    /// Devices, which only the machine's root may make.
    pub devices: u64,
    /// Extended attributes that the kernel refused.
    pub xattrs: u64,
}

impl LeftOut {
    /// Whether all is as the layer has it.
    pub fn is_empty(&self) -> bool {
        *self == LeftOut::default()
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let counts = [
            (self.owners, "files belong to you, since their owners aren't mapped here"),
            (self.devices, "devices are missing, since only the machine's root may make them"),
            (self.xattrs, "extended attributes are missing, since the kernel refused them"),
        ];
        let said: Vec<_> = counts.iter().filter(|(count, _)| *count > 0).collect();
        for (n, (count, what)) in said.iter().enumerate() {
            write!(f, "{}{count} {what}", if n > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

/// Unpacks the layer `blob`, a tar that may be compressed with gzip or zstd, into `dir`: an empty
/// directory, made if there is none. Hidden files become what overlayfs understands, with `marks`.
///
/// It needs a few megabytes of memory, however large the layer is, and some for each directory in
/// it. Three threads do the work; all have ended when it returns. After an error, what is in `dir`
/// is of no use, and should be [removed](crate::remove_dir).
///
/// Nothing is synced to disk, and nothing is told to `--explain`.
///
/// # Errors
/// If a digest isn't as `expected`; if the archive is damaged, cut short or hostile, with the
/// member's name; `ENOSPC` if the disk is full.
pub fn unpack(
    blob: impl Read + Send,
    dir: &Path,
    marks: Marks,
    expected: &Expected,
) -> Result<Unpacked> {
    let tree = Tree::new(dir, marks)?;
    let (layer, digests) = stream::decode(blob, |plain| {
        let layer = Layer {
            tree,
            owners: Owners::here(),
            left_out: LeftOut::default(),
            skipped: HashSet::new(),
        };
        layer.fill(Archive::new(plain))
    })?;
    let (members, ended_well, left_out) = layer;
    check(&digests.blob, expected.blob, "the layer's digest")?;
    check(&digests.diff_id, expected.diff_id, "the digest of the layer's plain tar (its diff id)")?;
    // Some tools leave the end mark out. Then a digest must vouch for the layer.
    ensure!(
        ended_well || expected.blob.or(expected.diff_id).is_some(),
        "the archive has no end mark: it is cut short"
    );
    Ok(Unpacked { digests, members, left_out })
}

fn check(is: &str, should: Option<&str>, what: &str) -> Result<()> {
    match should {
        Some(should) if should != is => bail!(
            "{what} is {is} and should be {should}: it was changed or damaged on its way, so \
             fetch it again"
        ),
        _ => Ok(()),
    }
}

/// A layer on its way from an archive to a tree.
struct Layer {
    tree: Tree,
    owners: Owners,
    left_out: LeftOut,
    /// Devices that weren't made: links to them can't be, either.
    skipped: HashSet<Vec<u8>>,
}

impl Layer {
    /// Gives how many members there were, whether the archive's end was marked, and what was left out.
    fn fill(mut self, mut archive: Archive<impl BufRead>) -> Result<(u64, bool, LeftOut)> {
        let mut members = 0;
        while let Some(member) = archive.next()? {
            members += 1;
            let name = shown(&member.name);
            self.add(member, &mut archive).with_context(|| format!("the layer's member {name}"))?;
        }
        self.left_out.xattrs = self.tree.finish()?;
        Ok((members, archive.ended_well(), self.left_out))
    }

    fn add(&mut self, member: Member, archive: &mut Archive<impl BufRead>) -> Result<()> {
        let path = clean(&member.name)?;
        match meaning(&path)? {
            Meaning::Nothing => Ok(()),
            Meaning::Opaque(dir) => self.tree.opaque(dir),
            Meaning::Whiteout(path) => self.tree.whiteout(&path),
            // overlayfs's own form, in archives that were made of an upper directory as it is.
            Meaning::Itself if is_whiteout(&member) && !path.is_empty() => {
                self.tree.whiteout(&path)
            }
            Meaning::Itself => self.make(&path, member, archive),
        }
    }

    fn make(
        &mut self,
        path: &[u8],
        member: Member,
        archive: &mut Archive<impl BufRead>,
    ) -> Result<()> {
        let (to, opaque) = self.attributes(&member)?;
        if member.kind == Kind::Directory {
            self.tree.make_dir(path, to)?;
            return if opaque { self.tree.opaque(path) } else { Ok(()) };
        }
        ensure!(!path.is_empty(), "it takes the place of the layer's root, and isn't a directory");
        let place = self.tree.place(path)?;
        match member.kind {
            Kind::Directory => Ok(()), // Made above.
            Kind::File => self.file(&place, &member, &to, archive),
            Kind::Symlink => self.tree.symlink(&place, no_nul(&member.target)?, &to),
            Kind::HardLink => self.hard_link(&place, path, &member),
            Kind::CharDevice => self.device(&place, path, FileType::CharacterDevice, &member, &to),
            Kind::BlockDevice => self.device(&place, path, FileType::BlockDevice, &member, &to),
            Kind::Fifo => self.device(&place, path, FileType::Fifo, &member, &to),
        }
    }

    fn file(
        &mut self,
        place: &Place,
        member: &Member,
        to: &Attributes,
        archive: &mut Archive<impl BufRead>,
    ) -> Result<()> {
        let file = self.tree.file(place, to)?;
        let whole = [(0, u64::MAX)];
        let pieces = member.sparse.as_ref().map_or(&whole[..], |sparse| &sparse.pieces);
        for (offset, len) in pieces {
            let mut done = 0;
            loop {
                let data = archive.data(len - done)?;
                let n = data.len();
                if n == 0 {
                    break;
                }
                write_at(&file, place, data, offset + done)?;
                archive.consume(n);
                done += n as u64;
            }
        }
        if let Some(sparse) = &member.sparse {
            set_size(&file, place, sparse.size)?;
        }
        self.tree.finish_file(&file, place, to)
    }

    fn hard_link(&mut self, place: &Place, path: &[u8], member: &Member) -> Result<()> {
        let target = clean(&member.target)
            .with_context(|| format!("it is a hard link to {}", shown(&member.target)))?;
        if self.skipped.contains(&target) {
            self.skipped.insert(path.to_vec());
            self.left_out.devices += 1;
            return Ok(());
        }
        self.tree
            .hard_link(place, &target)
            .with_context(|| format!("it is a hard link to {}", shown(&target)))
    }

    fn device(
        &mut self,
        place: &Place,
        path: &[u8],
        kind: FileType,
        member: &Member,
        to: &Attributes,
    ) -> Result<()> {
        let number = match kind {
            FileType::Fifo => WHITEOUT, // It has no number.
            _ => makedev(member.device.0, member.device.1),
        };
        if !self.tree.node(place, kind, number, to)? {
            self.skipped.insert(path.to_vec());
            self.left_out.devices += 1;
        }
        Ok(())
    }

    /// What the member can have here, and whether it is marked as opaque.
    fn attributes(&mut self, member: &Member) -> Result<(Attributes, bool)> {
        let (uid, gid, mode) = self.owners.fit(member.uid, member.gid, member.mode);
        let is_same = (i64::from(uid), i64::from(gid)) == (member.uid, member.gid);
        if !is_same && member.kind != Kind::HardLink {
            self.left_out.owners += 1;
        }
        let mut opaque = false;
        let mut xattrs = Vec::new();
        for (name, value) in &member.xattrs {
            no_nul(name)?;
            match Marks::strip(name) {
                // The rest of overlayfs's notes to itself would lead it to files of its choice.
                Some(mark) => opaque |= mark == b"opaque" && value == b"y",
                None => xattrs.push((name.clone(), value.clone())),
            }
        }
        Ok((Attributes { uid, gid, mode, mtime: member.mtime, xattrs }, opaque))
    }
}

fn is_whiteout(member: &Member) -> bool {
    member.kind == Kind::CharDevice && member.device == (0, 0)
}

/// What the name of a member means.
enum Meaning<'a> {
    Itself,
    /// Hide this path of the layers below.
    Whiteout(Vec<u8>),
    /// Hide all that the layers below have in this directory.
    Opaque(&'a [u8]),
    /// Notes of aufs, the file system that these marks were invented for.
    Nothing,
}

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const AUFS_PREFIX: &[u8] = b".wh..wh.";
/// The name that marks its directory as opaque.
pub(crate) const OPAQUE_NAME: &[u8] = b".wh..wh..opq";

fn meaning(path: &[u8]) -> Result<Meaning<'_>> {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    let (dir, name) = slash.map_or((&b""[..], path), |at| (&path[..at], &path[at + 1..]));
    for above in dir.split(|byte| *byte == b'/') {
        if above.starts_with(AUFS_PREFIX) {
            return Ok(Meaning::Nothing);
        }
        ensure!(!above.starts_with(WHITEOUT_PREFIX), "a whiteout can't have anything in it");
    }
    let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX) else { return Ok(Meaning::Itself) };
    match hidden {
        _ if name == OPAQUE_NAME => Ok(Meaning::Opaque(dir)),
        _ if name.starts_with(AUFS_PREFIX) => Ok(Meaning::Nothing),
        b"" | b"." | b".." => bail!("it is a whiteout of no file"),
        hidden if dir.is_empty() => Ok(Meaning::Whiteout(hidden.to_vec())),
        hidden => Ok(Meaning::Whiteout([dir, b"/", hidden].concat())),
    }
}

/// Whether a file of this name would mean something else in an archive.
pub(crate) fn is_mark(name: &[u8]) -> bool {
    name.starts_with(WHITEOUT_PREFIX)
}

/// The name of what hides `name`.
pub(crate) fn whiteout_name(name: &[u8]) -> Vec<u8> {
    [WHITEOUT_PREFIX, name].concat()
}

/// The components of a name, joined again by single slashes. The root itself is empty.
fn clean(name: &[u8]) -> Result<Vec<u8>> {
    ensure!(!name.is_empty(), "it has no name");
    ensure!(!name.starts_with(b"/"), "its name is absolute, and would lead out of the layer");
    let parts =
        no_nul(name)?.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let parts: Vec<_> = parts.collect();
    ensure!(!parts.contains(&b"..".as_slice()), "its name leads upwards, by \"..\"");
    Ok(parts.join(&b'/'))
}

fn no_nul(text: &[u8]) -> Result<&[u8]> {
    ensure!(!text.contains(&0), "there is a zero byte in a name");
    Ok(text)
}
