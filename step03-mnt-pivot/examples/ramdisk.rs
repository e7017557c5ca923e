//! A container whose root file system is memory that holds one program: as a machine has it that has
//! just been started.
//!
//! ```console
//! $ cargo run -p step03-mnt-pivot --example ramdisk -- /usr/bin/busybox sh
//! ```

use std::{env, ffi::OsString, fs, path::Path, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use mnt::mount::mount_new;
use nix::mount::MsFlags;
use uts::process;

/// Runs a static program in a root file system that holds nothing else.
#[derive(Parser)]
struct Args {
    /// The program: one that needs no library
    program: PathBuf,
    /// Its arguments
    #[arg(trailing_var_arg = true)]
    arguments: Vec<OsString>,
}

fn main() -> ExitCode {
    process::main(|args: Args| {
        let name = args.program.file_name().context("a program has a name")?;
        let mut command = vec![Path::new("/").join(name).into_os_string()];
        command.extend(args.arguments);
        // Covered inside, and empty outside.
        let root = env::temp_dir().join(uts::unique_name("ramdisk-"));
        fs::create_dir(&root)?;
        let namespaces = uts::NAMESPACE | pid::NAMESPACE | mnt::NAMESPACE;
        let child = process::spawn(namespaces, || {
            mnt::make_private()?;
            root_in_memory(&args.program, &root)?;
            mnt::mount_system_dirs(&root)?;
            mnt::pivot_into(&root)?;
            pid::init(|| process::exec(&command))
        })?;
        let end = process::wait(child)?;
        fs::remove_dir(&root).with_context(|| format!("{} isn't empty", root.display()))?;
        Ok(end)
    })
}

/// Covers `root` by a new file system in memory, of up to 64 MiB, and puts `program` into it, under
/// its own name.
///
/// # Errors
/// As [`mount_new`] and [`fs::copy`].
///
/// Source: [tmpfs(5)](https://man7.org/linux/man-pages/man5/tmpfs.5.html).
fn root_in_memory(program: &Path, root: &Path) -> Result<()> {
    let options = Some("mode=755,size=64m");
    mount_new("tmpfs", root, Path::new("/"), MsFlags::MS_NOSUID, options)?;
    // After the mount: what was copied before it would be covered, and stay on the host's disk.
    let name = program.file_name().context("a program has a name")?;
    fs::copy(program, root.join(name)).with_context(|| program.display().to_string())?;
    Ok(())
}
