//! The floor: the least that any runtime must do, in a static program without any library.
//!
//! `floor [--net-host] ROOT PROGRAM`: a new process in all six namespaces, a map of ids, a host
//! name, a private mount tree, `/proc`, the pivot into `ROOT`, the program, and the wait for its end.
//!
//! `floor --all DIR ROOT PROGRAM`: besides, all that `final run --net none` does with three limits: a
//! control group, `lo` up, an overlay over `ROOT` with its own layer in memory, `/dev` and `/sys`, masked
//! and read-only paths, and the capabilities dropped. `DIR` has two empty directories, `own` and `merged`.
//!
//! No check, no message, no init, and nobody who cleans up if it is killed. It is compiled by the
//! benchmark, with `rustc` alone.
#![allow(unsafe_code)]
// SAFETY: every call below is a plain system call on memory that outlives it. The program has one
// thread, and a failure ends it at once.

mod all;

use std::{
    env,
    ffi::{CStr, CString, c_char, c_int, c_long, c_ulong, c_void},
    fs,
    os::unix::ffi::OsStringExt,
    ptr::null,
};

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn mount(
        source: *const c_char,
        target: *const c_char,
        fstype: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
    fn umount2(target: *const c_char, flags: c_int) -> c_int;
    fn chdir(path: *const c_char) -> c_int;
    fn sethostname(name: *const c_char, length: usize) -> c_int;
    fn setresuid(real: u32, effective: u32, saved: u32) -> c_int;
    fn setresgid(real: u32, effective: u32, saved: u32) -> c_int;
    fn execv(path: *const c_char, argv: *const *const c_char) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn pipe(fds: *mut c_int) -> c_int;
    fn read(fd: c_int, buffer: *mut c_void, count: usize) -> isize;
    fn write(fd: c_int, buffer: *const c_void, count: usize) -> isize;
    fn _exit(status: c_int) -> !;
}

const SYS_CLONE3: c_long = 435; // The same number on every architecture.
#[cfg(target_arch = "x86_64")]
const SYS_PIVOT_ROOT: c_long = 155;
#[cfg(not(target_arch = "x86_64"))]
const SYS_PIVOT_ROOT: c_long = 41; // The generic table, which aarch64 and riscv64 use.

const SIX_NAMESPACES: u64 =
    0x0002_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000 | NEWNET;
const NEWNET: u64 = 0x4000_0000;
const INTO_CGROUP: u64 = 0x2_0000_0000;
const SIGCHLD: u64 = 17;
const MS_RDONLY: c_ulong = 1;
const MS_NOSUID: c_ulong = 2;
const MS_NODEV: c_ulong = 4;
const MS_INERT: c_ulong = MS_NOSUID | MS_NODEV | 8;
const MS_BIND_REC: c_ulong = 4096 | 16384;
const MS_REC_PRIVATE: c_ulong = 16384 | (1 << 18);
const MNT_DETACH: c_int = 2;

fn must(result: impl Into<i64>, what: &str) {
    if result.into() < 0 {
        eprintln!("floor: {what}: {}", std::io::Error::last_os_error());
        unsafe { _exit(125) }
    }
}

fn main() {
    let args: Vec<CString> =
        env::args_os().skip(1).map(|arg| CString::new(arg.into_vec()).unwrap()).collect();
    let args: Vec<&CStr> = args.iter().map(|arg| &**arg).collect();
    let (namespaces, own_dir, root, program) = match &args[..] {
        [flag, root, program @ ..] if *flag == c"--net-host" => {
            (SIX_NAMESPACES & !NEWNET, None, root, program)
        }
        [flag, dir, root, program @ ..] if *flag == c"--all" => {
            (SIX_NAMESPACES, Some(dir.to_str().unwrap()), root, program)
        }
        [root, program @ ..] => (SIX_NAMESPACES, None, root, program),
        _ => panic!("floor [--net-host | --all DIR] ROOT PROGRAM..."),
    };
    let group = own_dir.map(|_| all::Group::create());
    let status = unsafe { run(namespaces, own_dir, root, program, group.as_ref()) };
    if let Some(group) = group {
        group.remove();
    }
    unsafe { _exit((status >> 8) & 0xff) }
}

unsafe fn run(
    namespaces: u64,
    own_dir: Option<&str>,
    root: &CStr,
    program: &[&CStr],
    group: Option<&all::Group>,
) -> c_int {
    let mut gate = [0; 2];
    let (flag, cgroup) =
        group.and_then(all::Group::to_be_born_in).map_or((0, 0), |fd| (INTO_CGROUP, fd));
    // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, five more, and cgroup.
    let clone_args = [namespaces | flag, 0, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, cgroup];
    unsafe {
        must(pipe(gate.as_mut_ptr()), "pipe");
        let child = syscall(SYS_CLONE3, clone_args.as_ptr(), size_of_val(&clone_args));
        must(child, "clone3");
        if child == 0 {
            let mut byte = [0u8; 1];
            must(read(gate[0], byte.as_mut_ptr().cast(), 1) as i64, "read");
            if let Some(group) = group {
                group.enter();
            }
            inside(own_dir, root, program);
        }
        for (file, map) in [("gid_map", "0 100000 65536"), ("uid_map", "0 100000 65536")] {
            fs::write(format!("/proc/{child}/{file}"), map).expect("a map of ids, as root");
        }
        must(write(gate[1], c"g".as_ptr().cast(), 1) as i64, "write");
        let mut status = 0;
        must(waitpid(child as c_int, &mut status, 0), "waitpid");
        status
    }
}

unsafe fn inside(own_dir: Option<&str>, root: &CStr, program: &[&CStr]) -> ! {
    let mut argv: Vec<*const c_char> = program.iter().map(|arg| arg.as_ptr()).collect();
    argv.push(null());
    unsafe {
        must(setresgid(0, 0, 0), "setresgid");
        must(setresuid(0, 0, 0), "setresuid");
        must(sethostname(c"floor".as_ptr(), 5), "sethostname");
        must(mount(null(), c"/".as_ptr(), null(), MS_REC_PRIVATE, null()), "mount private");
        match own_dir {
            None => {
                let root = root.as_ptr();
                must(mount(root, root, null(), MS_BIND_REC, null()), "mount --bind");
                must(chdir(root), "chdir");
                make_mount(c"proc", c"proc", MS_INERT, null());
                pivot();
            }
            Some(dir) => {
                let empty = all::prepare(dir, root);
                pivot();
                all::restrict(empty);
            }
        }
        execv(argv[0], argv.as_ptr());
    }
    must(-1, "execv");
    unreachable!()
}

/// The current directory becomes `/`.
unsafe fn pivot() {
    unsafe {
        must(syscall(SYS_PIVOT_ROOT, c".".as_ptr(), c".".as_ptr()), "pivot_root");
        must(umount2(c".".as_ptr(), MNT_DETACH), "umount2");
        must(chdir(c"/".as_ptr()), "chdir");
    }
}

unsafe fn make_mount(fstype: &CStr, at: &CStr, flags: c_ulong, options: *const c_char) {
    let (fstype, at) = (fstype.as_ptr(), at.as_ptr());
    must(unsafe { mount(fstype, at, fstype, flags, options.cast()) }, "mount");
}
