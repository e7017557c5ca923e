//! A layer on its way from its compressed form to the disk: three threads and a ring of buffers.
//!
//! Decoding takes longest, writing files about as long, and a digest must see every byte. So each
//! gets a thread, and buffers go round between them: the memory is what the ring holds, however
//! large the layer is.
//!
//! ```text
//!    compressed bytes ─▶ decode ──full buffers──▶ digest ──▶ use (the caller's thread)
//!    (with their digest)    ▲                                  │
//!                           └────────── empty buffers ─────────┘
//! ```
//!
//! Whoever ends early, by an error, drops its ends of the channels, which ends the others.

use std::{
    fmt::Write,
    io::{self, BufRead, Read},
    panic::resume_unwind,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, Scope, ScopedJoinHandle},
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::compression;

/// The ring: large enough that threads are seldom woken, small enough for a processor's cache.
const BUFFERS: usize = 16;
const BUFFER_SIZE: usize = 1 << 18;

/// The digests of a layer, each as `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digests {
    /// Of the bytes as they were read, compressed or not: what a manifest names the layer by.
    pub blob: String,
    /// Of the plain tar: the layer's *diff id*, by which an image's config names it.
    pub diff_id: String,
}

/// Decodes `blob`, has `consume` read what comes out, and gives the digests of both, which cover
/// also what `consume` left unread.
///
/// # Errors
/// As `consume`'s, and those of `blob` itself: it can't be read or is damaged. `EAGAIN` if there
/// are too many threads.
pub(crate) fn decode<T>(
    blob: impl Read + Send,
    consume: impl FnOnce(&mut Plain) -> Result<T>,
) -> Result<(T, Digests)> {
    let (spare, empty) = sync_channel(BUFFERS);
    let (decoded, to_digest) = sync_channel(BUFFERS);
    let (digested, full) = sync_channel(BUFFERS);
    for _ in 0..BUFFERS {
        spare.send(vec![0; BUFFER_SIZE]).context("there is room for all buffers")?;
    }
    thread::scope(|scope| {
        let decoder = start(scope, "decode", move || decode_into(blob, &empty, &decoded))?;
        let digester = start(scope, "digest", move || digest(&to_digest, &digested))?;
        let mut plain = Plain { full, spare, chunk: Chunk::default(), used: 0 };
        let consumed = consume(&mut plain).and_then(|result| {
            io::copy(&mut plain, &mut io::sink()).context(DAMAGED)?;
            Ok(result)
        });
        drop(plain);
        let (blob, diff_id) = (join(decoder), join(digester));
        Ok((consumed?, Digests { blob: text(blob), diff_id: text(diff_id) }))
    })
}

pub(crate) const DAMAGED: &str = "the layer can't be read";

/// The digest of all that can be read from `stream`, as `sha256:` and 64 hexadecimal digits.
///
/// # Errors
/// As `stream`'s own.
pub fn digest_of(stream: impl Read) -> io::Result<String> {
    let mut stream = Digesting { stream, sha: Sha256::new() };
    let mut buffer = vec![0; BUFFER_SIZE];
    while stream.read(&mut buffer)? > 0 {}
    Ok(text(stream.sha))
}

pub(crate) fn text(sha: Sha256) -> String {
    sha.finalize().iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // Into a String: it can't fail.
        text
    })
}

/// A piece of the plain tar, or why there is no more.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    len: usize,
}

type Item = io::Result<Chunk>;

fn start<'s, T: Send + 's>(
    scope: &'s Scope<'s, '_>,
    name: &str,
    run: impl FnOnce() -> T + Send + 's,
) -> Result<ScopedJoinHandle<'s, T>> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn_scoped(scope, run).context("can't start a thread to unpack with")
}

fn join<T>(thread: ScopedJoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// The first thread: decodes `blob` into whatever buffer is empty, and takes its digest.
fn decode_into(blob: impl Read + Send, empty: &Receiver<Vec<u8>>, to: &SyncSender<Item>) -> Sha256 {
    let mut blob = Digesting { stream: blob, sha: Sha256::new() };
    let result = compression::decode(&mut blob).and_then(|mut plain| {
        while let Ok(mut bytes) = empty.recv() {
            let mut len = 0;
            let filled = fill(&mut plain, &mut bytes, &mut len);
            // What comes before an error goes on: then the error can say which file it hit.
            if len > 0 && to.send(Ok(Chunk { bytes, len })).is_err() {
                break;
            }
            if !filled? {
                break;
            }
        }
        Ok(())
    });
    if let Err(error) = result {
        let _ = to.send(Err(error)); // If nobody is there to hear it, there was another error.
    }
    blob.sha
}

/// Reads until `buffer` is full, and counts in `len`. `false` says that there is no more.
fn fill(from: &mut impl Read, buffer: &mut [u8], len: &mut usize) -> io::Result<bool> {
    while *len < buffer.len() {
        match from.read(&mut buffer[*len..]) {
            Ok(0) => return Ok(false),
            Ok(n) => *len += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// The second thread: takes the digest of what passes.
fn digest(from: &Receiver<Item>, to: &SyncSender<Item>) -> Sha256 {
    let mut sha = Sha256::new();
    for chunk in from {
        if let Ok(chunk) = &chunk {
            sha.update(&chunk.bytes[..chunk.len]);
        }
        if to.send(chunk).is_err() {
            break;
        }
    }
    sha
}

/// A stream whose digest is taken while it is read.
struct Digesting<R> {
    stream: R,
    sha: Sha256,
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.stream.read(into)?;
        self.sha.update(&into[..n]);
        Ok(n)
    }
}

/// The plain bytes, at the end of the ring. They can be looked at where they lie, without a copy.
pub(crate) struct Plain {
    full: Receiver<Item>,
    spare: SyncSender<Vec<u8>>,
    chunk: Chunk,
    used: usize,
}

impl BufRead for Plain {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used == self.chunk.len {
            let Chunk { bytes, .. } = std::mem::take(&mut self.chunk);
            self.used = 0;
            if !bytes.is_empty() {
                let _ = self.spare.send(bytes); // The decoder may have ended, and want none back.
            }
            if let Ok(chunk) = self.full.recv() {
                self.chunk = chunk?;
            }
        }
        Ok(&self.chunk.bytes[self.used..self.chunk.len])
    }

    fn consume(&mut self, n: usize) {
        self.used += n;
    }
}

impl Read for Plain {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(into)?;
        self.consume(n);
        Ok(n)
    }
}
