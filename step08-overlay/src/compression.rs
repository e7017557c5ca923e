//! Compressed streams: told by their first bytes, decoded while they are read.
//!
//! The name of a file may lie and a media type may be absent, but the first bytes of a gzip or
//! zstd stream are fixed by their formats.

use std::io::{self, BufRead, BufReader, Cursor, Read, sink};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

/// How much compressed data is asked for at once, in bytes.
const READ_SIZE: usize = 1 << 17;

/// The plain bytes of `stream`, which may be gzip, zstd or plain: decoded while they are read, in
/// constant memory. It is read to its end.
///
/// # Errors
/// As `stream`'s own. For a format that isn't known here, with what to type.
///
/// Source: [RFC 1952](https://www.rfc-editor.org/rfc/rfc1952) (gzip),
/// [RFC 8878](https://www.rfc-editor.org/rfc/rfc8878) (zstd).
pub fn decode<'a>(mut stream: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let start = first_bytes(&mut stream)?;
    let whole = BufReader::with_capacity(READ_SIZE, Cursor::new(start.clone()).chain(stream));
    let refuse = |text| Err(io::Error::new(io::ErrorKind::InvalidData, text));
    match start[..] {
        // "Multi": tools that compress in parallel write one gzip stream after the other.
        [0x1f, 0x8b, ..] => Ok(Box::new(MultiGzDecoder::new(whole))),
        // The second is a skippable frame, by which some tools start theirs.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Ok(Box::new(Zstd { stream: whole, frame: FrameDecoder::new() }))
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0] => refuse("it is xz-compressed: use `xz -d` first"),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => {
            refuse("it is bzip2-compressed: use `bzip2 -d` first")
        }
        _ => Ok(Box::new(whole)),
    }
}

/// As many bytes as it takes to tell the formats apart, or all that there are.
fn first_bytes(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    stream.take(6).read_to_end(&mut start)?;
    Ok(start)
}

/// Decodes the frames of a zstd stream one after the other: `zstd -T0`, `pzstd` and seekable
/// formats write many, and the decoder knows one at a time.
struct Zstd<R> {
    stream: BufReader<R>,
    frame: FrameDecoder,
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if into.is_empty() || self.frame.can_collect() > 0 {
                return self.frame.read(into);
            }
            if !self.frame.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.frame.decode_blocks(&mut self.stream, one).map_err(io::Error::other)?;
                continue;
            }
            let promised = self.frame.get_checksum_from_data();
            if promised.is_some() && promised != self.frame.get_calculated_checksum() {
                return Err(io::Error::other("the checksum of a zstd frame is wrong"));
            }
            if self.stream.fill_buf()?.is_empty() {
                return Ok(0);
            }
            self.next_frame()?;
        }
    }
}

impl<R: Read> Zstd<R> {
    fn next_frame(&mut self) -> io::Result<()> {
        use FrameDecoderError::ReadFrameHeaderError as Header;
        match self.frame.reset(&mut self.stream) {
            Err(Header(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                let skipped = io::copy(&mut self.stream.by_ref().take(length.into()), &mut sink())?;
                match skipped == u64::from(length) {
                    true => Ok(()),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
            result => result.map_err(io::Error::other),
        }
    }
}
