//! The tar format: a row of members, each a header of 512 bytes, and its data.
//!
//! A header has too little room for long names, large numbers and extended attributes. Two
//! dialects put those into members of their own, before the one they belong to: PAX as text
//! records, GNU as a long name each. Files with holes come in four forms. All of that ends here:
//! what leaves this module are [`Member`]s.
//!
//! Everything that is kept in memory has a limit, so a hostile archive can't fill it.
//!
//! Source: [tar(5)](https://man.freebsd.org/cgi/man.cgi?query=tar&sektion=5),
//! [pax, "pax Header"](https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html),
//! [GNU tar, sparse formats](https://www.gnu.org/software/tar/manual/html_section/Sparse-Formats.html).

use std::io::{self, BufRead};

use anyhow::{Context, Result, bail, ensure};
use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use crate::stream::DAMAGED;

const BLOCK: usize = 512;
/// What the records and long names of one member may take, in bytes.
const MAX_EXTENSION: u64 = 1 << 20;
/// How many pieces a file with holes may have: 4 MB of them.
const MAX_PIECES: usize = 1 << 18;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// A member of the archive, as it describes itself: nothing in here can be trusted.
#[derive(Debug)]
pub(crate) struct Member {
    pub name: Vec<u8>,
    pub kind: Kind,
    /// What a link leads to.
    pub target: Vec<u8>,
    /// Permissions and the set-id and sticky bits.
    pub mode: u32,
    pub uid: i64,
    pub gid: i64,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Major and minor number.
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The pieces of a file with holes.
    pub sparse: Option<Sparse>,
}

/// The parts of a file that aren't holes; their data follow each other in the archive.
#[derive(Debug, Default)]
pub(crate) struct Sparse {
    /// The size of the file, holes included, in bytes.
    pub size: u64,
    /// Offset and length of each, in bytes: ascending, and inside of `size`.
    pub pieces: Vec<(u64, u64)>,
}

/// Reads the members one by one, and the data of each.
pub(crate) struct Archive<R> {
    source: R,
    /// Bytes of the current member's data, and of its padding, that haven't been read.
    left: u64,
    padding: u64,
    /// The name of the last member, for error messages.
    last: Vec<u8>,
    ended_well: bool,
}

impl<R: BufRead> Archive<R> {
    pub fn new(source: R) -> Self {
        Archive { source, left: 0, padding: 0, last: Vec::new(), ended_well: false }
    }

    /// Whether the archive's end was marked by a block of zeroes. If not, it may be cut short.
    pub fn ended_well(&self) -> bool {
        self.ended_well
    }

    /// The next member. Data of the last one that wasn't read is skipped.
    pub fn next(&mut self) -> Result<Option<Member>> {
        let member = self.read_member();
        member.with_context(|| match self.last.is_empty() {
            true => "the archive can't be read at its start".into(),
            false => format!("the archive can't be read after {}", shown(&self.last)),
        })
    }

    fn read_member(&mut self) -> Result<Option<Member>> {
        self.skip_data()?;
        let mut extensions = Extensions::default();
        let mut room = MAX_EXTENSION;
        loop {
            let Some(header) = self.read_header()? else { return Ok(None) };
            let size = number(&header.as_old().size).context("its size isn't a number")?;
            let size = u64::try_from(size).context("its size is negative")?;
            match header.as_old().linkflag[0] {
                b'x' => extensions.add_records(&self.read_extension(size, &mut room)?)?,
                b'L' => extensions.name = Some(until_nul(self.read_extension(size, &mut room)?)),
                b'K' => extensions.target = Some(until_nul(self.read_extension(size, &mut room)?)),
                // Records for all members, and the name of the tape: nothing that a layer needs.
                b'g' | b'V' => {
                    self.begin_data(size)?;
                    self.skip_data()?;
                }
                flag => return self.member(flag, &header, size, extensions).map(Some),
            }
        }
    }

    fn member(
        &mut self,
        flag: u8,
        header: &Header,
        size: u64,
        mut extensions: Extensions,
    ) -> Result<Member> {
        let name = extensions.name.take().unwrap_or_else(|| header.path_bytes().into_owned());
        self.last.clone_from(&name);
        let kind = kind(flag, &name).with_context(|| {
            format!("{} is of a kind that isn't known: {:?}", shown(&name), char::from(flag))
        })?;
        // Only files have data, whatever the header says.
        let size = if kind == Kind::File { extensions.size.unwrap_or(size) } else { 0 };
        self.begin_data(size)?;
        if flag == b'S' {
            extensions.sparse = Some(self.read_gnu_pieces(header)?);
        } else if kind == Kind::File && extensions.pieces_in_data {
            extensions.sparse().pieces = self.read_pieces_in_data()?;
        }
        if let Some(sparse) = &extensions.sparse {
            sparse.check(self.left).with_context(|| shown(&name))?;
        }
        Member::new(kind, name.clone(), header, extensions).with_context(|| shown(&name))
    }

    /// The next part of the current member's data, at most `limit` bytes; empty at its end.
    ///
    /// It isn't copied: tell how much of it was used with [`consume`](Archive::consume).
    pub fn data(&mut self, limit: u64) -> Result<&[u8]> {
        let limit = limit.min(self.left);
        if limit == 0 {
            return Ok(&[]);
        }
        let data = self.source.fill_buf().context(DAMAGED)?;
        ensure!(!data.is_empty(), "the archive ends in the middle of a member: it is cut short");
        Ok(&data[..data.len().min(usize::try_from(limit).unwrap_or(usize::MAX))])
    }

    pub fn consume(&mut self, n: usize) {
        self.source.consume(n);
        self.left -= n as u64;
    }

    fn begin_data(&mut self, size: u64) -> Result<()> {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        ensure!(size <= i64::MAX as u64 - BLOCK as u64, "its size is larger than a file can be");
        Ok(())
    }

    fn skip_data(&mut self) -> Result<()> {
        self.left += std::mem::take(&mut self.padding);
        while self.left > 0 {
            let n = self.data(self.left)?.len();
            self.consume(n);
        }
        Ok(())
    }

    /// The next header; `None` at the end.
    fn read_header(&mut self) -> Result<Option<Header>> {
        if self.source.fill_buf().context(DAMAGED)?.is_empty() {
            return Ok(None);
        }
        let mut header = Header::new_old();
        self.read_block(header.as_mut_bytes())?;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            self.ended_well = true;
            return Ok(None);
        }
        ensure!(has_right_sum(&header), "this isn't a header of a tar: its checksum is wrong");
        Ok(Some(header))
    }

    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<()> {
        match self.source.read_exact(block) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                bail!("the archive ends in the middle of a header: it is cut short")
            }
            result => result.context(DAMAGED),
        }
    }

    /// The data of a member that belongs to the next one.
    fn read_extension(&mut self, size: u64, room: &mut u64) -> Result<Vec<u8>> {
        let rest = room.checked_sub(size);
        *room = rest.context("the name and attributes of a member take over a megabyte")?;
        self.begin_data(size)?;
        let mut bytes = Vec::new();
        while self.left > 0 {
            let data = self.data(self.left)?;
            let n = data.len();
            bytes.extend_from_slice(data);
            self.consume(n);
        }
        self.skip_data()?;
        Ok(bytes)
    }

    /// The form with holes of GNU's own: four pieces in the header, 21 in each block after it.
    fn read_gnu_pieces(&mut self, header: &Header) -> Result<Sparse> {
        let gnu = header.as_gnu().context("only GNU's headers can describe holes")?;
        let size = number(&gnu.realsize).and_then(|n| u64::try_from(n).ok());
        let mut sparse = Sparse { size: size.context("its size isn't a number")?, pieces: vec![] };
        sparse.add(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = GnuExtSparseHeader::new();
            self.read_block(block.as_mut_bytes())?;
            sparse.add(block.sparse())?;
            more = block.is_extended();
        }
        Ok(sparse)
    }

    /// PAX form 1.0: the pieces stand before the data, as decimal lines, in whole blocks.
    fn read_pieces_in_data(&mut self) -> Result<Vec<(u64, u64)>> {
        let mut bytes = 0;
        let count = self.read_line(&mut bytes)?;
        ensure!(count <= MAX_PIECES as u64, "a file has {count} holes");
        let mut pieces = Vec::new();
        for _ in 0..count {
            pieces.push((self.read_line(&mut bytes)?, self.read_line(&mut bytes)?));
        }
        for _ in 0..bytes.wrapping_neg() % BLOCK {
            self.read_byte()?;
        }
        Ok(pieces)
    }

    fn read_line(&mut self, bytes: &mut usize) -> Result<u64> {
        let mut line = Vec::new();
        loop {
            *bytes += 1;
            match self.read_byte()? {
                b'\n' => return decimal(&line).context("the place of a hole isn't a number"),
                byte => line.push(byte),
            }
            ensure!(line.len() <= 20, "the place of a hole isn't a number");
        }
    }

    fn read_byte(&mut self) -> Result<u8> {
        let byte = self.data(1)?.first().copied().context("the list of holes is cut short")?;
        self.consume(1);
        Ok(byte)
    }
}

impl Member {
    fn new(kind: Kind, name: Vec<u8>, header: &Header, extensions: Extensions) -> Result<Self> {
        let old = header.as_old();
        let field = |field: &[u8], what: &str| {
            number(field).with_context(|| format!("its {what} isn't a number"))
        };
        let device = |n: io::Result<Option<u32>>| n.ok().flatten().unwrap_or_default();
        let link = || header.link_name_bytes().unwrap_or_default().into_owned();
        let time = || Ok::<_, anyhow::Error>((field(&old.mtime, "time")?, 0));
        Ok(Member {
            name,
            kind,
            target: extensions.target.unwrap_or_else(link),
            mode: field(&old.mode, "mode")? as u32 & 0o7777,
            uid: extensions.uid.map_or_else(|| field(&old.uid, "user id"), Ok)?,
            gid: extensions.gid.map_or_else(|| field(&old.gid, "group id"), Ok)?,
            mtime: extensions.mtime.map_or_else(time, Ok)?,
            device: (device(header.device_major()), device(header.device_minor())),
            xattrs: extensions.xattrs,
            sparse: extensions.sparse,
        })
    }
}

impl Sparse {
    fn add(&mut self, pieces: &[GnuSparseHeader]) -> Result<()> {
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            let place = |field: &[u8]| number(field).and_then(|n| u64::try_from(n).ok());
            let place = place(&piece.offset).zip(place(&piece.numbytes));
            self.pieces.push(place.context("the place of a hole isn't a number")?);
            ensure!(self.pieces.len() <= MAX_PIECES, "a file has over {MAX_PIECES} holes");
        }
        Ok(())
    }

    /// That the pieces are in order, inside of the file, and as long as the data.
    fn check(&self, data: u64) -> Result<()> {
        let (mut end, mut sum) = (0, 0);
        for (offset, len) in &self.pieces {
            ensure!(*offset >= end, "its pieces overlap");
            end = offset.checked_add(*len).context("a piece ends nowhere")?;
            sum += len; // No more than `end`.
        }
        ensure!(end <= self.size && self.size <= i64::MAX as u64, "a piece lies behind its end");
        ensure!(sum == data, "its pieces are {sum} bytes and its data {data}");
        Ok(())
    }
}

fn kind(flag: u8, name: &[u8]) -> Option<Kind> {
    Some(match flag {
        // Before there was a flag for directories, their names ended so.
        0 | b'0' if name.ends_with(b"/") => Kind::Directory,
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        _ => return None,
    })
}

/// What stands in the members before the one they belong to.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<i64>,
    gid: Option<i64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: Option<Sparse>,
    pieces_in_data: bool,
    /// The offset of a piece (form 0.0), whose length stands in the next record.
    offset: Option<u64>,
}

impl Extensions {
    /// Takes over PAX records: `LENGTH KEY=VALUE\n`, where the length is that of the whole.
    fn add_records(&mut self, mut records: &[u8]) -> Result<()> {
        const BROKEN: &str = "a PAX record isn't `LENGTH KEY=VALUE`";
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').context(BROKEN)?;
            let len = decimal(&records[..space]).and_then(|len| usize::try_from(len).ok());
            let len =
                len.filter(|len| *len > space + 1 && *len <= records.len()).context(BROKEN)?;
            let record = records[space + 1..len].strip_suffix(b"\n").context(BROKEN)?;
            let equals = record.iter().position(|byte| *byte == b'=').context(BROKEN)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            self.add_record(key, value)
                .with_context(|| format!("the PAX record {} makes no sense", shown(key)))?;
            records = &records[len..];
        }
        Ok(())
    }

    fn add_record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let number = || decimal(value).context("it isn't a number");
        match key {
            b"path" => self.name = some(value),
            b"linkpath" => self.target = some(value),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?.try_into()?),
            b"gid" => self.gid = Some(number()?.try_into()?),
            b"mtime" => self.mtime = Some(time(value).context("it isn't a time")?),
            b"GNU.sparse.name" => self.name = some(value),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse().size = number()?,
            b"GNU.sparse.major" => self.pieces_in_data = value == b"1",
            b"GNU.sparse.offset" => self.offset = Some(number()?),
            b"GNU.sparse.numbytes" => {
                let offset = self.offset.take().context("there is no offset before it")?;
                self.sparse().pieces.push((offset, number()?));
            }
            b"GNU.sparse.map" => self.sparse().pieces = pieces(value)?,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }

    fn sparse(&mut self) -> &mut Sparse {
        self.sparse.get_or_insert_default()
    }
}

/// An empty value takes an earlier one back.
fn some(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

/// PAX form 0.1: `OFFSET,LENGTH,OFFSET,LENGTH…`.
fn pieces(value: &[u8]) -> Result<Vec<(u64, u64)>> {
    if value.is_empty() {
        return Ok(vec![]);
    }
    let numbers: Option<Vec<_>> = value.split(|byte| *byte == b',').map(decimal).collect();
    let numbers = numbers.context("it isn't a list of numbers")?;
    ensure!(numbers.len() % 2 == 0, "a length is missing");
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

fn decimal(text: &[u8]) -> Option<u64> {
    // `parse` would take a sign as well.
    text.first().filter(|byte| byte.is_ascii_digit())?;
    str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with a fraction, maybe before 1970: `-1.25` is 750 ms after -2.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanos = format!("{fraction:0<9.9}");
    nanos.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
    let (seconds, nanos) = (whole.parse::<i64>().ok()?, nanos.parse::<u32>().ok()?);
    match whole.starts_with('-') && nanos > 0 {
        true => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        false => Some((seconds, nanos)),
    }
}

/// A number of a header: octal text, or binary if its first bit is set. An empty field is 0.
fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 == 0 {
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        let text = str::from_utf8(&field[..end]).ok()?.trim();
        return if text.is_empty() { Some(0) } else { i64::from_str_radix(text, 8).ok() };
    }
    // Two's complement, of which the first bit is the mark and the second the sign.
    let first =
        if field[0] & 0x40 == 0 { i128::from(field[0] & 0x7f) } else { i128::from(field[0]) - 256 };
    let wide = field[1..]
        .iter()
        .try_fold(first, |n, byte| n.checked_mul(256)?.checked_add(i128::from(*byte)))?;
    i64::try_from(wide).ok()
}

/// Whether the header is one: the sum of its bytes, with spaces in place of the sum itself. Some
/// old tools took the bytes for signed.
fn has_right_sum(header: &Header) -> bool {
    let bytes = header.as_bytes();
    let counted = || bytes[..148].iter().chain(b"        ").chain(&bytes[156..]);
    let unsigned: i64 = counted().map(|byte| i64::from(*byte)).sum();
    let signed: i64 = counted().map(|byte| i64::from(*byte as i8)).sum();
    number(&bytes[148..156]).is_some_and(|sum| sum == unsigned || sum == signed)
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
    bytes
}

/// A name out of an archive, as it is shown to people: nothing in it reaches their terminal raw.
pub(crate) fn shown(name: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(name))
}
