//! Root in pieces: a user who isn't root, and yet may do one of the things that root may.
//!
//! ```console
//! lab# keep CAP_NET_BIND_SERVICE 1000 python3 -m http.server 80
//! ```

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use caps::{CapSet, Capability, CapsHashSet};
use clap::Parser;
use nix::{
    sys::prctl,
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use user::capabilities::shrink_bounding_set;
use uts::{call, process};

/// Runs a program as a user with one capability.
#[derive(Parser)]
struct Args {
    /// The capability, as in CAP_NET_BIND_SERVICE
    capability: Capability,
    /// The number of the user, and of the user's group
    user: u32,
    /// The program to run, and its arguments
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    process::main(|args: Args| {
        become_user_with(args.user, args.capability)?;
        match process::exec(&args.command)? {}
    })
}

/// Becomes user `id` and group `id`, in no other group, with the capability `keep` and no other; the
/// programs that are executed from now on have it, too, and can't get more.
///
/// # Errors
/// `EPERM` for whoever isn't root, `EINVAL` if the number isn't in the map of this user namespace.
///
/// Source: [capabilities(7)](https://man7.org/linux/man-pages/man7/capabilities.7.html),
/// "Effect of user ID changes on capabilities" and "Transformation of capabilities during execve()".
fn become_user_with(id: u32, keep: Capability) -> Result<()> {
    shrink_bounding_set(&[keep])?; // While there is CAP_SETPCAP.
    // Else all would go with the user id.
    call!("prctl"(format_args!("PR_SET_KEEPCAPS, 1")) = prctl::set_keepcaps(true))?;
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    call!("setgroups"(0, None::<&str>) = setgroups(&[]))?;
    call!("setresgid"(id, id, id) = setresgid(group, group, group))?;
    call!("setresuid"(id, id, id) = setresuid(user, user, user))?;
    // Each set is within the one before. Ambient is what makes a program inherit it that knows
    // nothing of capabilities.
    let one: CapsHashSet = [keep].into();
    for set in [CapSet::Permitted, CapSet::Effective, CapSet::Inheritable, CapSet::Ambient] {
        caps::set(None, set, &one)?;
    }
    Ok(())
}
