//! # Step 6: message queues, semaphores and shared memory of its own
//!
//! Two processes that have no file in common can still meet: by *inter-process communication*
//! objects, which have numbers and names of their own. There are two families, from two times.
//!
//! | | System V (1983) | POSIX (1993) |
//! |---|---|---|
//! | message queues | `msgget`: IPC namespace | `mq_open`: IPC namespace, seen in `/dev/mqueue` |
//! | semaphores | `semget`: IPC namespace | files in `/dev/shm`: mount namespace |
//! | shared memory | `shmget`: IPC namespace | files in `/dev/shm`: mount namespace |
//!
//! So step 3's own `/dev/shm` was half of the work already, and this step is the other half.

pub mod demo;

use std::path::Path;

use anyhow::Result;
use mnt::mount;
use uts::CloneFlags;

/// The flag that gives a new process an IPC namespace of its own, without any object in it.
///
/// Source: [ipc_namespaces(7)](https://man7.org/linux/man-pages/man7/ipc_namespaces.7.html).
pub const NAMESPACE: CloneFlags = CloneFlags::CLONE_NEWIPC;

/// Mounts `/dev/mqueue` below `root`, after step 3 has mounted `/dev`: the POSIX message queues of
/// the caller's IPC namespace, as files that can be listed, read and removed.
///
/// # Errors
/// `ENODEV` if the kernel was built without POSIX queues.
///
/// Source: [mq_overview(7)](https://man7.org/linux/man-pages/man7/mq_overview.7.html).
pub fn mount_queues(root: &Path) -> Result<()> {
    mount::mount_new("mqueue", root, Path::new("/dev/mqueue"), mount::INERT, None)
}
