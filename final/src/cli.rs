//! The command line: types only.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, anyhow, ensure};
use caps::Capability;
use cgroups::Limits;
use clap::{Parser, Subcommand, ValueEnum};

/// A container runtime made of the eight steps.
///
/// Runs real images, as root or as a plain user, and leaves nothing behind.
#[derive(Parser)]
#[command(version)]
pub struct Cli {
    /// Where layers and containers are kept [default: /var/lib/final, or ~/.local/share/final]
    #[arg(long, global = true, value_name = "DIR", env = "FINAL_STORE")]
    pub store: Option<PathBuf>,

    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Subcommand)]
pub enum Verb {
    /// Run a command in a new container
    Run(Box<Run>),
}

/// Runs a command in a new container, and removes the container afterwards.
///
/// IMAGE is an OCI layout directory, an OCI or docker archive (.tar, also compressed), a root file
/// system as a directory or tar, or none: then it is one made of this machine's own programs.
/// Where several images are in one file, IMAGE:TAG says which.
///
///   final run
///   final run debian.tar -- cat /etc/os-release
///   final run --memory 256m --cpus 0.5 --volume ./site:/usr/share/nginx/html:ro nginx.tar
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Run {
    /// A name for the container [default: a random number]
    #[arg(long, value_parser = name)]
    pub name: Option<String>,

    /// The host name inside [default: the container's name]
    #[arg(long)]
    pub hostname: Option<String>,

    /// An environment variable; without a value, it is passed on from outside
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,

    /// The directory to start in
    #[arg(long, short, value_name = "DIR")]
    pub workdir: Option<String>,

    /// The user to run as: a name or number inside, and perhaps a group
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub user: Option<String>,

    /// The program to run instead of the image's own entrypoint
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,

    /// How much of the machine it may use; 4096 processes if nothing is said and root runs it
    #[command(flatten)]
    pub limits: Limits,

    /// A directory or file of the host to see inside
    #[arg(long, short, value_name = "SRC:DST[:ro]")]
    pub volume: Vec<Volume>,

    /// Let nothing be written to the root file system
    #[arg(long)]
    pub read_only: bool,

    /// Keep what the container writes on disk meanwhile, and not in memory
    #[arg(long)]
    pub disk: bool,

    /// The network: none of its own links but lo, a cable to the host, or the host's network
    #[arg(long, value_enum, default_value_t = Net::Veth)]
    pub net: Net,

    /// A capability to keep besides the usual ones; ALL for all
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<Capabilities>,

    /// A capability to give up; ALL for all
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<Capabilities>,

    /// Which ids it has
    #[command(flatten)]
    pub ids: user::map::Ids,

    /// Tell every system call, in order, as a numbered story
    #[arg(long)]
    pub explain: bool,

    /// The image [default: this machine's own programs]
    pub image: Option<PathBuf>,

    /// The command to run [default: the image's own, or a shell]
    #[arg(last = true)]
    pub command: Vec<OsString>,
}

/// Which network a container has.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Net {
    /// Its own, with `lo` alone.
    None,
    /// Its own, with a cable to the host.
    Veth,
    /// The host's.
    Host,
}

/// A directory or file of the host, and where it is seen inside.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// The path on the host, made absolute.
    pub source: PathBuf,
    /// The absolute path inside.
    pub destination: PathBuf,
    /// Whether it can't be written to inside.
    pub read_only: bool,
}

impl FromStr for Volume {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (paths, read_only) = match text.strip_suffix(":ro") {
            Some(paths) => (paths, true),
            None => (text.strip_suffix(":rw").unwrap_or(text), false),
        };
        let (source, destination) = paths.split_once(':').context("write SRC:DST or SRC:DST:ro")?;
        let source = std::fs::canonicalize(source).map_err(|error| anyhow!("{source}: {error}"))?;
        let destination = PathBuf::from(destination);
        ensure!(destination.is_absolute(), "{destination:?}: the path inside begins with a slash");
        ensure!(destination.file_name().is_some(), "{destination:?} would hide the whole image");
        let is_system = ["/proc", "/sys", "/dev"].map(Path::new).contains(&&*destination);
        ensure!(
            !is_system && !destination.starts_with("/proc"),
            "{destination:?} is made by the runtime, which relies on what is there"
        );
        Ok(Volume { source, destination, read_only })
    }
}

/// One capability, or all of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Capabilities {
    /// All that there are.
    All,
    /// Just one.
    One(Capability),
}

impl FromStr for Capabilities {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.eq_ignore_ascii_case("all") {
            return Ok(Capabilities::All);
        }
        caps::to_canonical(text).parse().ok().map(Capabilities::One).with_context(|| {
            format!("there is no capability {text}: see capabilities(7) for their names")
        })
    }
}

/// A name is a part of paths and of names of groups.
fn name(text: &str) -> Result<String> {
    let may = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    ensure!(
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(may)
            && text.len() <= 64,
        "a name has up to 64 letters, digits, '_', '.' and '-', and begins with a letter or digit"
    );
    Ok(text.to_owned())
}
