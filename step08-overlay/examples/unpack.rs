//! Unpacks an archive as a layer, and says what it was and how long it took.
//!
//!   cargo run --release --example unpack -- layer.tar.gz directory

use std::{env, fs::File, path::Path, time::Instant};

use anyhow::{Result, bail};
use overlay::{Expected, Marks, unpack};

fn main() -> Result<()> {
    let args: Vec<_> = env::args_os().collect();
    let [_, archive, dir] = &args[..] else { bail!("give an archive and a directory") };
    let start = Instant::now();
    let unpacked =
        unpack(File::open(archive)?, Path::new(dir), Marks::here(), &Expected::default())?;
    println!("digest   {}", unpacked.digests.blob);
    println!("diff id  {}", unpacked.digests.diff_id);
    println!("members  {}", unpacked.members);
    if !unpacked.left_out.is_empty() {
        println!("left out {}", unpacked.left_out);
    }
    println!("time     {} ms", start.elapsed().as_millis());
    Ok(())
}
