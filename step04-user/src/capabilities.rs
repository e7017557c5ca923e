//! The privileges of root, in pieces: which ones the container keeps.

use anyhow::Result;
use caps::{CapSet, Capability, CapsHashSet};
use nix::{errno::Errno, sys::prctl};
use uts::call;

/// What a container's root keeps: the set that docker and podman made the custom. It is enough to
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
    let keep: CapsHashSet = keep.iter().copied().collect();
    let kept = keep.len();
    call!("prctl"(format_args!("PR_CAPBSET_DROP, all but {kept}")) = shrink_bounding_set(&keep))?;
    call!(
        "capset"(format_args!("the same {kept} effective and permitted")) = shrink_own_sets(&keep)
    )?;
    Ok(())
}

fn shrink_bounding_set(keep: &CapsHashSet) -> nix::Result<()> {
    for capability in caps::runtime::thread_all_supported().difference(keep) {
        caps::drop(None, CapSet::Bounding, *capability).map_err(errno)?;
    }
    Ok(())
}

fn shrink_own_sets(keep: &CapsHashSet) -> nix::Result<()> {
    caps::clear(None, CapSet::Ambient).map_err(errno)?;
    caps::clear(None, CapSet::Inheritable).map_err(errno)?;
    // What is effective must be permitted as well, at every moment.
    caps::set(None, CapSet::Effective, keep).map_err(errno)?;
    caps::set(None, CapSet::Permitted, keep).map_err(errno)
}

/// The crate `caps` gives its errors as text; the number stands where the C library left it.
fn errno(_: caps::errors::CapsError) -> Errno {
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
