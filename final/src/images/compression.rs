//! How a file is compressed, told by its first bytes. Step 8's [`overlay::decode`] decodes it.

use std::{fs::File, os::unix::fs::FileExt};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// How a layer or an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    /// A plain tar.
    None,
    /// [RFC 1952](https://www.rfc-editor.org/rfc/rfc1952).
    Gzip,
    /// [RFC 8878](https://www.rfc-editor.org/rfc/rfc8878).
    Zstd,
}

impl Compression {
    /// Tells the compression of what stands in `file` from `offset` (in bytes) on.
    ///
    /// # Errors
    /// For a format that can't be decoded here, with what to type; and as pread(2).
    pub(super) fn at(file: &File, offset: u64) -> Result<Self> {
        let mut start = [0; 6];
        let mut have = 0;
        while have < start.len() {
            match file.read_at(&mut start[have..], offset + have as u64)? {
                0 => break,
                n => have += n,
            }
        }
        Ok(match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // A skippable frame, by which some tools start theirs.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0] => bail!("it is xz-compressed: use `xz -d` first"),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => {
                bail!("it is bzip2-compressed: use `bzip2 -d` first")
            }
            _ => Compression::None,
        })
    }
}
