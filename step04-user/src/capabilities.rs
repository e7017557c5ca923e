//! The privileges of root, in pieces: which ones the container keeps.

use anyhow::Result;
use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use nix::{errno::Errno, sys::prctl};
use uts::call;

/// What a container's root keeps: the set that docker made the custom. It is enough to
/// install packages and to run servers. It has no `CAP_SYS_ADMIN` (mount, new namespaces' owner
/// rights), no `CAP_NET_ADMIN` (links and firewall) and no `CAP_SYS_PTRACE`.
///
/// Source: [capabilities(7)](https://man7.org/linux/man-pages/man7/capabilities.7.html).
pub const DEFAULT: [Capability; 14] = [
    Capability::CAP_AUDIT_WRITE,
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_KILL,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_NET_RAW,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SETUID,
    Capability::CAP_SYS_CHROOT,
];

/// Gives up all capabilities but `keep`, for this process and for all that come from it.
///
/// The *bounding* set goes first: it is the limit on what a program may get at execve(2), and
/// shrinking it takes `CAP_SETPCAP`, which may be among those that go.
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP`, or if `keep` holds what the process itself doesn't have.
///
/// Source: [capabilities(7)](https://man7.org/linux/man-pages/man7/capabilities.7.html).
pub fn drop_capabilities(keep: &[Capability]) -> Result<()> {
    shrink_bounding_set(keep)?;
    shrink_own_sets(keep)
}

/// The first half of [`drop_capabilities`]: what programs may get from now on.
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP`.
pub fn shrink_bounding_set(keep: &[Capability]) -> Result<()> {
    let keep: CapsHashSet = keep.iter().copied().collect();
    let drop_others = || -> Result<(), CapsError> {
        caps::all()
            .difference(&keep)
            .try_for_each(|other| caps::drop(None, CapSet::Bounding, *other))
    };
    let kept = keep.len();
    call!("prctl"(format_args!("PR_CAPBSET_DROP, all but {kept}")) = drop_others().map_err(errno))?;
    Ok(())
}

/// The second half of [`drop_capabilities`]: what this process itself has.
///
/// # Errors
/// `EPERM` if `keep` holds what the process doesn't have.
pub fn shrink_own_sets(keep: &[Capability]) -> Result<()> {
    let keep: CapsHashSet = keep.iter().copied().collect();
    let shrink = || -> Result<(), CapsError> {
        caps::clear(None, CapSet::Ambient)?;
        caps::clear(None, CapSet::Inheritable)?;
        // What is effective must be permitted as well, at every moment.
        caps::set(None, CapSet::Effective, &keep)?;
        caps::set(None, CapSet::Permitted, &keep)
    };
    let kept = keep.len();
    call!("capset"(format_args!("{kept} effective and permitted")) = shrink().map_err(errno))?;
    Ok(())
}

/// The crate `caps` gives its errors as text; the number stands where the C library left it.
fn errno(_: CapsError) -> Errno {
    Errno::last()
}

/// Makes sure that no program executed from now on gets more privileges than its caller has: the
/// set-user-id bit and file capabilities have no effect any more.
///
/// # Errors
/// None that the kernel gives.
///
/// Source: [no_new_privs](https://docs.kernel.org/userspace-api/no_new_privs.html).
pub fn no_new_privileges() -> Result<()> {
    Ok(call!("prctl"(format_args!("PR_SET_NO_NEW_PRIVS, 1")) = prctl::set_no_new_privs())?)
}
