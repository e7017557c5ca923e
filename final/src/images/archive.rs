//! A tar file whose members are read in place, at their offset, without unpacking anything.
//!
//! A tar is a row of members, each a header of 512 bytes (name, size, type) and its data. To learn
//! where everything stands, the headers are read and the data is skipped by seeking: a walk over a
//! few kilobytes, however large the layers are. A *compressed* tar can't be sought in, so it is
//! written out plain once, to the caller's scratch directory.
//!
//! Nothing is ever created under a name that comes from an archive: names are keys of a map here.
//!
//! Source: [tar(5)](https://man.freebsd.org/cgi/man.cgi?query=tar&sektion=5).

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};

use super::{MAX_DOCUMENT, compression::Compression};

/// An image has a handful of members for each layer, and 127 layers at most with most tools.
const MAX_MEMBERS: usize = 10_000;
/// What the headers of one member may take, long names and extended attributes included.
const MAX_HEADERS: u64 = 1 << 20;
/// How many links may lead to a member: there is one in the archives that docker wrote.
const MAX_LINKS: usize = 8;

/// What an archive is, by the names that are in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Contents {
    OciLayout,
    DockerArchive,
    Rootfs,
}

/// The names that tell: those of the files that stand at the top of each kind.
const MARKS: [&str; 5] = ["oci-layout", "index.json", "blobs", "manifest.json", "repositories"];

/// The members of a plain tar.
pub(super) struct Archive {
    file: File,
    members: HashMap<String, Member>,
}

enum Member {
    /// A regular file: where its data starts and how long it is, in bytes.
    File(Extent),
    /// A link to another member.
    Link(String),
    /// A directory, a device, a file with holes.
    Other,
}

/// A piece of a file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub offset: u64,
    pub size: u64,
}

/// Tells what kind of archive `file` is: a plain tar.
///
/// # Errors
/// If it isn't a tar, is empty, damaged or cut short, or is of a kind that is too old.
pub(super) fn contents(file: &File) -> Result<Contents> {
    let mut seen = HashSet::new();
    walk(file, |name, _| {
        let name = if name.starts_with("blobs/") { "blobs" } else { name };
        let mark = MARKS.iter().find(|mark| name == **mark);
        seen.insert(*mark.unwrap_or(&"any other"));
        Ok(())
    })?;
    let has = |mark| seen.contains(mark);
    // Docker 25 and later write both kinds at once; the OCI one has a digest for everything.
    Ok(match () {
        _ if has("oci-layout") && has("index.json") => Contents::OciLayout,
        _ if has("manifest.json") => Contents::DockerArchive,
        _ if has("oci-layout") => bail!("an OCI layout needs a file index.json"),
        _ if has("index.json") && has("blobs") => bail!("an OCI layout needs a file oci-layout"),
        _ if has("repositories") => {
            bail!("it is of a docker older than 1.10: load and save it anew")
        }
        _ if seen.is_empty() => bail!("the archive is empty"),
        _ => Contents::Rootfs,
    })
}

/// Whether the first members of a *compressed* tar say that it's a root file system already, which
/// saves writing it out to look at the rest. `false` says that the first members don't tell.
pub(super) fn starts_as_rootfs(file: File) -> bool {
    const DIRS: [&str; 16] = [
        "bin", "boot", "dev", "etc", "home", "lib", "lib64", "media", "mnt", "opt", "proc", "root",
        "run", "sbin", "usr", "var",
    ];
    let Ok(stream) = overlay::decode(file) else { return false };
    let mut archive = tar::Archive::new(stream.take(MAX_HEADERS));
    let Ok(entries) = archive.entries() else { return false };
    // The first may be the root itself, and a file of some other name: a few decide.
    let mut names =
        entries.take(4).map_while(|entry| normal(str::from_utf8(&entry.ok()?.path_bytes()).ok()?));
    names.any(|name| DIRS.contains(&name.split('/').next().unwrap_or_default()))
}

/// Writes the compressed `file` out to the path `plain`, unless that has been done already.
///
/// # Errors
/// If the stream is damaged or cut short, and as open(2) and write(2).
pub(super) fn spool(file: File, plain: &Path) -> Result<File> {
    if let Ok(done) = File::open(plain) {
        return Ok(done);
    }
    // Under its final name only once it's whole.
    let part = plain.with_extension(format!("{}.part", std::process::id()));
    let written = write_plain(file, &part).and_then(|()| Ok(fs::rename(&part, plain)?));
    if let Err(error) = written {
        let _ = fs::remove_file(&part);
        return Err(error);
    }
    Ok(File::open(plain)?)
}

fn write_plain(file: File, part: &Path) -> Result<()> {
    let to = || format!("can't write {}", part.display());
    let mut out = File::options().write(true).create_new(true).open(part).with_context(to)?;
    let mut stream = overlay::decode(file)?;
    let mut buffer = vec![0; 1 << 17];
    loop {
        let n = stream.read(&mut buffer).context("its compressed data is damaged or cut short")?;
        if n == 0 {
            return Ok(());
        }
        io::Write::write_all(&mut out, &buffer[..n]).with_context(to)?;
    }
}

impl Archive {
    /// Reads the headers of an image archive.
    ///
    /// # Errors
    /// If it's damaged or cut short, or has more members than an image can have.
    pub fn new(file: File) -> Result<Self> {
        let mut members = HashMap::new();
        walk(&file, |name, member| {
            ensure!(members.len() < MAX_MEMBERS, "the archive has over {MAX_MEMBERS} members");
            // A second member of the same name replaces the first, as when it is unpacked.
            members.insert(name.to_owned(), member);
            Ok(())
        })?;
        Ok(Archive { file, members })
    }

    /// Finds a regular file by its exact name, through links inside of the archive. `None` says
    /// that there is no such member.
    ///
    /// # Errors
    /// If a link leaves the archive or leads round in circles, or it isn't a regular file.
    pub fn find(&self, name: &str) -> Result<Option<Extent>> {
        let mut at = name;
        for _ in 0..=MAX_LINKS {
            match self.members.get(at) {
                Some(Member::File(extent)) => return Ok(Some(*extent)),
                Some(Member::Link(target)) => at = target,
                Some(Member::Other) => bail!("{at} isn't a regular file in the archive"),
                None if at == name => return Ok(None),
                None => bail!("{name} is a link to {at}, which isn't in the archive"),
            }
        }
        bail!("{name} is a link that leads on and on in the archive")
    }

    /// Reads a JSON document whole.
    ///
    /// # Errors
    /// If there is no such member, or it's larger than any such document should be.
    pub fn document(&self, name: &str) -> Result<Vec<u8>> {
        let Some(extent) = self.find(name)? else { bail!("{name} is missing in the archive") };
        ensure!(extent.size <= MAX_DOCUMENT, "{name} is larger than {MAX_DOCUMENT} bytes");
        let mut bytes = vec![0; extent.size as usize];
        self.file
            .read_exact_at(&mut bytes, extent.offset)
            .with_context(|| format!("can't read {name}"))?;
        Ok(bytes)
    }

    /// Tells how a member is compressed.
    ///
    /// # Errors
    /// As [`Compression::at`].
    pub fn compression(&self, extent: Extent) -> Result<Compression> {
        // Shorter members than that have no room for a compressed tar.
        if extent.size < 6 {
            Ok(Compression::None)
        } else {
            Compression::at(&self.file, extent.offset)
        }
    }
}

/// Calls `each` with the name and place of every member whose name is a path inside of the archive.
fn walk(file: &File, mut each: impl FnMut(&str, Member) -> Result<()>) -> Result<()> {
    let length = file.metadata()?.len();
    let headers = Headers { file, left: Cell::new(MAX_HEADERS), at_end: Cell::new(false) };
    (&headers).seek(SeekFrom::Start(0))?;
    let mut archive = tar::Archive::new(&headers);
    let mut last = None;
    for entry in archive.entries_with_seek()? {
        headers.left.set(MAX_HEADERS);
        let entry = entry.with_context(|| damaged(last.as_deref()))?;
        let path = entry.path_bytes();
        let Extent { offset, size } = extent(&entry);
        // Reading on would look like a clean end: nothing stands where the next header should.
        ensure!(
            offset.checked_add(size).is_some_and(|end| end <= length),
            "the archive is cut short inside of {}",
            String::from_utf8_lossy(&path)
        );
        // No document can name a member whose name isn't UTF-8: JSON has no such strings.
        if let Some(name) = str::from_utf8(&path).ok().and_then(normal) {
            each(&name, member(&entry, &name))?;
        }
        last = Some(path.into_owned());
    }
    // A tar ends with empty blocks. Without them it may have lost any number of members.
    let lost_end = headers.at_end.get();
    match last {
        Some(name) if lost_end => {
            bail!("the archive is cut short behind {}", String::from_utf8_lossy(&name))
        }
        _ => Ok(()),
    }
}

fn damaged(last: Option<&[u8]>) -> String {
    match last {
        None => "it is neither a tar nor a compressed tar".into(),
        Some(name) => format!("the archive is damaged behind {}", String::from_utf8_lossy(name)),
    }
}

fn extent<R: Read>(entry: &tar::Entry<R>) -> Extent {
    // A file with holes takes less room in the archive than its size says.
    let sparse = entry.header().entry_type().is_gnu_sparse();
    let size = if sparse { 0 } else { entry.size() };
    Extent { offset: entry.raw_file_position(), size }
}

fn member<R: Read>(entry: &tar::Entry<R>, name: &str) -> Member {
    let kind = entry.header().entry_type();
    let target = entry.link_name_bytes().and_then(|t| String::from_utf8(t.into_owned()).ok());
    match target {
        _ if kind.is_file() => Member::File(extent(entry)),
        // A hard link names a member of the archive, a symbolic one a path beside itself. One that
        // leaves the archive leads nowhere.
        Some(target) if kind.is_hard_link() => normal(&target).map_or(Member::Other, Member::Link),
        Some(target) if kind.is_symlink() && !target.starts_with('/') => {
            let beside = name.rsplit_once('/').map_or("", |(dir, _)| dir);
            normal(&format!("{beside}/{target}")).map_or(Member::Other, Member::Link)
        }
        _ => Member::Other,
    }
}

/// A path without `.` and `..`, or `None` if it leaves the archive.
fn normal(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The file as the walk reads it: with a limit on what is read for one member, since the tar crate
/// takes a long name into memory whole, and a hostile archive can hold one of gigabytes.
struct Headers<'a> {
    file: &'a File,
    left: Cell<u64>,
    /// Whether there was nothing more to read.
    at_end: Cell<bool>,
}

impl Read for &Headers<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut file = self.file;
        let n = file.read(into)?;
        self.at_end.set(n == 0);
        match self.left.get().checked_sub(n as u64) {
            Some(left) => self.left.set(left),
            None => return Err(io::Error::other("a name or attribute in it is longer than 1 MiB")),
        }
        Ok(n)
    }
}

impl Seek for &Headers<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let mut file = self.file;
        file.seek(to)
    }
}
