//! What `final run --net none` does with three limits, besides the least: the same result with the fewest
//! calls, and no question asked. It must stay so when `final` learns more.

use std::{
    ffi::{CStr, CString, c_int, c_long, c_ulong},
    fs::{self, File, OpenOptions},
    io::{ErrorKind::NotFound, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::symlink,
    },
    path::{Path, PathBuf},
    process,
    ptr::null,
};

use crate::{MS_BIND_REC, MS_INERT, MS_NODEV, MS_NOSUID, MS_RDONLY, make_mount, mount, must, syscall};

unsafe extern "C" {
    fn setgroups(count: usize, groups: *const u32) -> c_int;
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
    fn prctl(option: c_int, ...) -> c_int;
    fn capset(header: *const u32, data: *const u32) -> c_int;
}

// The same numbers on every architecture.
const SYS_OPEN_TREE: c_long = 428;
const SYS_MOVE_MOUNT: c_long = 429;
const SYS_MOUNT_SETATTR: c_long = 442;

const V2: &str = "/sys/fs/cgroup";
const V2_FILES: [(&str, &str); 4] = [
    ("memory.max", "67108864"),
    ("memory.swap.max", "0"),
    ("cpu.max", "100000 100000"),
    ("pids.max", "100"),
];
const V1: [&str; 3] = ["memory", "cpu", "pids"];
/// Which of the three, the file, the value.
const V1_FILES: [(usize, &str, &str); 4] = [
    (0, "memory.limit_in_bytes", "67108864"),
    (0, "memory.memsw.limit_in_bytes", "67108864"),
    (1, "cpu.cfs_quota_us", "100000"),
    (2, "pids.max", "100"),
];

/// A control group: in v1 one directory for each controller.
pub struct Group {
    dirs: Vec<PathBuf>,
    /// v1: the files to write oneself into. v2: the directory to be born in.
    doors: Vec<File>,
    v2: bool,
}

impl Group {
    pub fn create() -> Self {
        let name = format!("floor-{}", process::id());
        let v2 = Path::new(V2).join("cgroup.controllers").exists();
        let dirs: Vec<_> = match v2 {
            true => vec![Path::new(V2).join(&name)],
            false => V1.map(|tree| Path::new(V2).join(tree).join(&name)).to_vec(),
        };
        dirs.iter().for_each(|dir| fs::create_dir(dir).expect("a control group, as root"));
        let open = |file: PathBuf| OpenOptions::new().write(true).open(file);
        let set = |file: PathBuf, value: &str| match open(file) {
            Ok(mut file) => file.write_all(value.as_bytes()).expect("a limit"),
            Err(error) => assert_eq!(error.kind(), NotFound), // A kernel that doesn't count swap.
        };
        let doors = if v2 {
            V2_FILES.iter().for_each(|(file, value)| set(dirs[0].join(file), value));
            vec![File::open(&dirs[0]).unwrap()]
        } else {
            V1_FILES.iter().for_each(|(dir, file, value)| set(dirs[*dir].join(file), value));
            dirs.iter().map(|dir| open(dir.join("tasks")).unwrap()).collect()
        };
        Group { dirs, doors, v2 }
    }

    pub fn to_be_born_in(&self) -> Option<u64> {
        self.v2.then(|| self.doors[0].as_raw_fd() as u64)
    }

    pub fn enter(&self) {
        if !self.v2 {
            self.doors.iter().for_each(|mut door| door.write_all(b"0").expect("a place in it"));
        }
    }

    pub fn remove(&self) {
        self.dirs.iter().for_each(|dir| fs::remove_dir(dir).expect("an empty group"));
    }
}

/// Up to the pivot, into which it goes from the current directory. Gives an empty directory.
pub unsafe fn prepare(dir: &str, root: &CStr) -> OwnedFd {
    let text = |text: String| CString::new(text).unwrap();
    let (own, merged) = (format!("{dir}/own"), format!("{dir}/merged"));
    unsafe {
        must(setgroups(0, null()), "setgroups");
        set_lo_up();
        let own_c = text(own.clone());
        make_mount(c"tmpfs", &own_c, MS_NOSUID | MS_NODEV, c"mode=755".as_ptr());
        for name in ["empty", "upper", "work"] {
            fs::create_dir(format!("{own}/{name}")).unwrap();
        }
        let root = root.to_str().unwrap();
        let options =
            text(format!("lowerdir={root},upperdir={own}/upper,workdir={own}/work,userxattr"));
        make_mount(c"overlay", &text(merged.clone()), 0, options.as_ptr());
        std::env::set_current_dir(merged).unwrap();
        make_mount(c"proc", c"proc", MS_INERT, null());
        make_mount(c"tmpfs", c"dev", MS_NOSUID, c"mode=755,size=64k".as_ptr());
        for name in ["pts", "shm", "mqueue"] {
            fs::create_dir(format!("dev/{name}")).unwrap();
        }
        let pts = c"newinstance,ptmxmode=0666,mode=620,gid=5".as_ptr();
        make_mount(c"devpts", c"dev/pts", MS_INERT & !MS_NODEV, pts);
        make_mount(c"tmpfs", c"dev/shm", MS_INERT, c"mode=1777,size=64m".as_ptr());
        make_mount(c"mqueue", c"dev/mqueue", MS_INERT, null());
        make_mount(c"sysfs", c"sys", MS_INERT | MS_RDONLY, null());
        for node in [c"dev/null", c"dev/zero", c"dev/full", c"dev/random", c"dev/urandom", c"dev/tty"] {
            let node_str = node.to_str().unwrap();
            File::create(node_str).unwrap();
            let source = text(format!("/{node_str}"));
            must(mount(source.as_ptr(), node.as_ptr(), null(), MS_BIND_REC, null()), "a device");
        }
        let fd = |n| format!("/proc/self/fd{n}");
        for (name, target) in [
            ("fd", fd("")),
            ("stdin", fd("/0")),
            ("stdout", fd("/1")),
            ("stderr", fd("/2")),
            ("ptmx", "pts/ptmx".to_owned()),
        ] {
            symlink(target, format!("dev/{name}")).unwrap();
        }
        copy_of(&text(format!("{own}/empty"))).unwrap()
    }
}

/// After the pivot.
pub unsafe fn restrict(empty: OwnedFd) {
    let directories = [
        c"/proc/acpi",
        c"/proc/asound",
        c"/proc/scsi",
        c"/sys/devices/virtual/powercap",
        c"/sys/firmware",
    ];
    let files = [
        c"/proc/interrupts",
        c"/proc/kcore",
        c"/proc/keys",
        c"/proc/latency_stats",
        c"/proc/sched_debug",
        c"/proc/timer_list",
        c"/proc/timer_stats",
    ];
    let read_only = [c"/proc/bus", c"/proc/fs", c"/proc/irq", c"/proc/sys", c"/proc/sysrq-trigger"];
    unsafe {
        let is_there = |path: &&CStr| Path::new(path.to_str().unwrap()).exists();
        make_read_only(&empty);
        let mut covered: Option<&CStr> = None;
        for path in directories.into_iter().filter(is_there) {
            // A mount has one place: the others get copies of it.
            match covered.replace(path) {
                None => put(&empty, path),
                Some(covered) => put(&copy_of(covered).unwrap(), path),
            }
        }
        for path in files.into_iter().filter(is_there) {
            put(&copy_of(c"/dev/null").unwrap(), path);
        }
        for path in read_only {
            if let Some(copy) = copy_of(path) {
                make_read_only(&copy);
                put(&copy, path);
            }
        }
        drop_privileges();
    }
}

/// `ip link set lo up`
unsafe fn set_lo_up() {
    const SIOCSIFFLAGS: c_ulong = 0x8914;
    // struct ifreq: the name in 16 bytes, then the flags: IFF_UP is 1.
    let mut request = [0u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16] = 1;
    unsafe {
        let socket = socket(2, 2, 0);
        must(ioctl(socket, SIOCSIFFLAGS, request.as_ptr()), "lo");
        drop(OwnedFd::from_raw_fd(socket));
    }
}

unsafe fn copy_of(path: &CStr) -> Option<OwnedFd> {
    const CLONE_CLOEXEC_RECURSIVE: c_int = 1 | 0o2000000 | 0x8000;
    let fd = unsafe { syscall(SYS_OPEN_TREE, -100, path.as_ptr(), CLONE_CLOEXEC_RECURSIVE) };
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

unsafe fn make_read_only(tree: &OwnedFd) {
    const EMPTY_PATH_RECURSIVE: c_int = 0x1000 | 0x8000;
    let rdonly = [1u64, 0, 0, 0];
    let (fd, path) = (tree.as_raw_fd(), c"".as_ptr());
    let size = size_of_val(&rdonly);
    let result =
        unsafe { syscall(SYS_MOUNT_SETATTR, fd, path, EMPTY_PATH_RECURSIVE, &raw const rdonly, size) };
    must(result, "mount_setattr");
}

unsafe fn put(tree: &OwnedFd, path: &CStr) {
    const F_EMPTY_PATH: c_int = 4;
    let (fd, empty) = (tree.as_raw_fd(), c"".as_ptr());
    must(unsafe { syscall(SYS_MOVE_MOUNT, fd, empty, -100, path.as_ptr(), F_EMPTY_PATH) }, "move_mount");
}

unsafe fn drop_privileges() {
    const PR_CAPBSET_DROP: c_int = 24;
    const PR_SET_NO_NEW_PRIVS: c_int = 38;
    /// The usual 14 of a container.
    const KEEP: u64 = 0xa804_25fb;
    unsafe {
        for capability in (0..=40).filter(|n| KEEP >> n & 1 == 0) {
            must(prctl(PR_CAPBSET_DROP, capability as c_ulong, 0, 0, 0), "prctl");
        }
        // Version 3, this process; then effective, permitted, inheritable: the low halves, the high ones.
        let data = [KEEP as u32, KEEP as u32, 0, 0, 0, 0];
        must(capset([0x2008_0522, 0].as_ptr(), data.as_ptr()), "capset");
        must(prctl(PR_SET_NO_NEW_PRIVS, 1 as c_ulong, 0, 0, 0), "prctl");
    }
}
