//! # Step 1: a host name of its own
//!
//! A *namespace* gives a group of processes its own copy of something that is otherwise one for
//! the whole machine. The smallest is the UTS namespace: it holds the two names that
//! `uname(2)` reports, the host name and the (NIS) domain name. Change them inside, and nobody
//! outside sees it.
//!
//! The concept stands in this file. Beside it stands what every later step needs as well:
//! [`process`] starts a process in new namespaces and waits for it, [`mod@call`] makes a system
//! call and names its failure, and [`explain`] tells the story that `--explain` prints.

pub mod call;
pub mod explain;
mod janitor;
pub mod process;
mod signals;
mod sys;
mod terminal;

pub use janitor::{Janitor, unique_name};
pub use nix::sched::CloneFlags;
pub use signals::{Received, Signals, let_through};

use anyhow::Result;
use call::Hint;
use nix::{errno::Errno, unistd::sethostname};
use rustix::system::setdomainname;

/// The flag that gives a new process a UTS namespace of its own, a copy of its parent's.
///
/// Source: [uts_namespaces(7)](https://man7.org/linux/man-pages/man7/uts_namespaces.7.html).
pub const NAMESPACE: CloneFlags = CloneFlags::CLONE_NEWUTS;

/// The two names, as options of a program.
#[derive(clap::Args)]
pub struct Names {
    /// The host name inside
    #[arg(long, value_name = "NAME", default_value = "container")]
    pub hostname: String,

    /// The NIS domain name inside
    #[arg(long, value_name = "NAME", default_value = "containers")]
    pub domainname: String,
}

/// Sets both names of the UTS namespace that the caller is in.
///
/// # Errors
/// As [`set_hostname`].
pub fn set_names(names: &Names) -> Result<()> {
    set_hostname(&names.hostname)?;
    set_domainname(&names.domainname)
}

/// Sets the host name of the UTS namespace that the caller is in: up to 64 bytes.
///
/// Called outside of a new namespace, this renames the machine itself.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` in the user namespace that owns this UTS namespace, `EINVAL`
/// for a name of over 64 bytes.
///
/// Source: [sethostname(2)](https://man7.org/linux/man-pages/man2/sethostname.2.html).
pub fn set_hostname(name: &str) -> Result<()> {
    call!(sethostname(name)).hint(Errno::EINVAL, TOO_LONG).hint(Errno::EPERM, NOT_ROOT)?;
    Ok(())
}

/// Sets the NIS domain name of the UTS namespace that the caller is in: up to 64 bytes.
///
/// It is the second of the two names that the namespace holds, and has nothing to do with DNS.
///
/// # Errors
/// As [`set_hostname`].
///
/// Source: [setdomainname(2)](https://man7.org/linux/man-pages/man2/setdomainname.2.html).
pub fn set_domainname(name: &str) -> Result<()> {
    call!(setdomainname(name.as_bytes()))
        .hint(Errno::EINVAL, TOO_LONG)
        .hint(Errno::EPERM, NOT_ROOT)?;
    Ok(())
}

const TOO_LONG: &str = "the kernel keeps up to 64 bytes of a name: choose a shorter one";
const NOT_ROOT: &str = "only root of the user namespace that owns this UTS namespace may rename it";
