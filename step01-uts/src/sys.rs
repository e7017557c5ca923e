//! The raw system calls that no crate wraps: this crate's only unsafe code.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::{errno::Errno, libc, sched::CloneFlags, unistd::Pid};

/// clone3(2) used as fork(2): gives `None` in the child and its pid in the parent. The child is
/// created in `namespaces`, and straight into `cgroup` (the directory of a v2 group) if there is
/// one.
///
/// # Safety
/// The process must have one thread: the child is a copy with the calling thread alone, so a lock
/// that another thread held would stay locked for ever.
pub unsafe fn clone3(
    namespaces: CloneFlags,
    cgroup: Option<BorrowedFd>,
) -> Result<Option<Pid>, Errno> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    // SAFETY: clone_args is plain data, for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces.bits() as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: args lives until the call returns and has the size that is given. Without a stack
    // and without CLONE_VM the child goes on like a forked one, on a copy of this stack.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &args, size_of_val(&args)) };
    match Errno::result(result)? {
        0 => Ok(None),
        pid => Ok(Some(Pid::from_raw(pid as i32))),
    }
}

/// Starts a child that uses this process's memory until it executes a program or ends; this process
/// stands still meanwhile. It costs a fraction of a copy.
///
/// # Safety
/// As for [`clone3`]. And `child` must leave all values of this process as they are: it borrows them.
pub unsafe fn clone_for_exec(mut child: impl FnMut() -> u8) -> Result<Pid, Errno> {
    // A stack of its own, for with a shared one the child would overwrite where we return to.
    let mut stack = vec![0; 256 * 1024];
    let borrow = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    let run = Box::new(|| end(child()));
    // SAFETY: the stack lives until the call returns, and then the child doesn't need it any more.
    unsafe { nix::sched::clone(run, &mut stack, borrow, Some(libc::SIGCHLD)) }
}

/// Ends the process at once, as _exit(2). A child that borrows its parent's memory must end in this
/// way: any other would run what the parent has set up for its own end.
pub fn end(code: u8) -> ! {
    // SAFETY: nothing runs after it that could find something half done.
    unsafe { libc::_exit(code.into()) }
}

/// close_range(2) with `CLOSE_RANGE_CLOEXEC`: marks all file descriptors from `first` on to be
/// closed by execve(2).
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: marking a descriptor takes it away from nobody in this process.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(result).map(drop)
}
