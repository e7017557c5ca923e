//! The functions of step 8, one at a time, for the tests of the exercises: so that each can be tried
//! before the others are there. Needs root, or the lab.
//!
//!   step08-parts unpack TAR DIR                 make a layer out of an archive
//!   step08-parts stack CONTAINER MERGED LAYER…  show layers, the lowest first, with a writable one on top
//!   step08-parts provoke DIR QUESTION           do what exercise 8.5 asks about, in an empty directory

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use nix::mount::{MsFlags, mount};
use overlay::{Expected, Marks, Overlay, unpack};
use uts::{call, process};

/// A part of step 8.
#[derive(Parser)]
enum Part {
    Unpack { archive: PathBuf, dir: PathBuf },
    Stack { container: PathBuf, merged: PathBuf, layers: Vec<PathBuf> },
    Provoke { dir: PathBuf, question: Question },
}

/// What exercise 8.5 asks about.
#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Question {
    RenameDirectory,
    WriteWithoutUpper,
    WorkElsewhere,
    LayerMissing,
    RemoveFullDirectory,
}

fn main() -> ExitCode {
    process::main(|part: Part| match part {
        Part::Unpack { archive, dir } => {
            let archive = File::open(&archive).with_context(|| archive.display().to_string())?;
            let unpacked = unpack(archive, &dir, Marks::here(), &Expected::default())?;
            println!("members {}", unpacked.members);
            Ok(ExitCode::SUCCESS)
        }
        Part::Stack { container, merged, layers } => {
            Overlay::new(&layers, &container, Marks::here())?.mount(&merged)?;
            Ok(ExitCode::SUCCESS)
        }
        Part::Provoke { dir, question } => {
            // With mounts of its own, which go with it.
            process::wait(process::spawn(mnt::NAMESPACE, || {
                mnt::make_private()?;
                provoke(&dir, question)?;
                bail!("the kernel had nothing against it")
            })?)
        }
    })
}

fn provoke(dir: &Path, question: Question) -> Result<()> {
    std::env::set_current_dir(dir)?;
    for name in ["lower/folder", "upper", "work", "merged"] {
        fs::create_dir_all(name)?;
    }
    fs::write("lower/folder/file", "of the layer")?;
    let userxattr = if Marks::here() == Marks::User { ",userxattr" } else { "" };
    let mount_with = |options: &str| {
        let options = &*format!("{options}{userxattr}");
        let (fs, flags) = (Some("overlay"), MsFlags::empty());
        call!(
            "mount"("overlay", "merged", "overlay", flags, options) =
                mount(fs, "merged", fs, flags, Some(options))
        )
    };
    let usual = "lowerdir=lower,upperdir=upper,workdir=work";
    match question {
        Question::RenameDirectory => {
            mount_with(usual)?;
            let (from, to) = ("merged/folder", "merged/renamed");
            call!("rename"(from, to) = fs::rename(from, to))?;
        }
        Question::WriteWithoutUpper => {
            mount_with("lowerdir=lower:upper")?;
            let file = "merged/folder/file";
            call!("open"(file, format_args!("O_WRONLY|O_TRUNC")) = fs::write(file, "changed"))?;
        }
        Question::WorkElsewhere => {
            let tmpfs = Some("tmpfs");
            mount(tmpfs, "work", tmpfs, MsFlags::empty(), None::<&str>)?;
            mount_with(usual)?;
        }
        Question::LayerMissing => {
            mount_with("lowerdir=no/such/layer:lower,upperdir=upper,workdir=work")?;
        }
        Question::RemoveFullDirectory => {
            mount_with(usual)?;
            call!("rmdir"("merged/folder") = fs::remove_dir("merged/folder"))?;
        }
    }
    Ok(())
}
