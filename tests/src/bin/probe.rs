//! Looks around from where it runs and tells what it sees, as `key: value` lines in sections.
//!
//! It runs inside of the steps' containers, where there may be no library and no other program:
//! so it is linked statically and needs nothing but the standard library and, for most answers,
//! `/proc`. The harness compiles it by hand (see `src/programs.rs`). A list is one item a line:
//!
//! ```text
//! [uts]
//! host name: container
//! [root]
//! entries:
//!   dev
//!   proc
//! ```
//! It tells what is there and doesn't judge. What belongs to one machine alone is taken out by the
//! one who compares two reports (see `src/view.rs`).

use std::{env, fs, path::Path};

fn main() {
    let sections: [(&str, fn()); 8] = [
        ("uts", uts),
        ("pid", pid),
        ("mnt", mnt),
        ("user", user),
        ("net", net),
        ("ipc", ipc),
        ("cgroup", cgroup),
        ("process", process),
    ];
    for (name, tell) in sections {
        println!("[{name}]");
        tell();
    }
}

/// The names of this machine, as they are inside.
fn uts() {
    namespace("uts");
    value("host name", &read("/proc/sys/kernel/hostname"));
    value("domain name", &read("/proc/sys/kernel/domainname"));
}

/// This process among its neighbours.
fn pid() {
    namespace("pid");
    value("my number", &std::process::id().to_string());
    value("my parent's number", &std::os::unix::process::parent_id().to_string());
    value("my number in /proc", &link("/proc/self"));
    let mut processes: Vec<(u32, String)> = names_in("/proc")
        .iter()
        .filter_map(|name| name.parse().ok())
        .map(|pid: u32| (pid, format!("{pid} {}", read(&format!("/proc/{pid}/comm")))))
        .collect();
    processes.sort();
    list("processes in /proc", processes.into_iter().map(|(_, line)| line));
}

/// The mounts and the root directory.
fn mnt() {
    namespace("mnt");
    let mut mounts: Vec<String> =
        read("/proc/self/mountinfo").lines().filter_map(shown_mount).collect();
    mounts.sort();
    list("mounts", mounts);
    list("entries of /", names_in("/"));
    list("entries of /dev", names_in("/dev"));
}

/// A line of mountinfo as `/proc: proc rw,nosuid shared`, without the numbers.
///
/// Source: proc_pid_mountinfo(5).
fn shown_mount(line: &str) -> Option<String> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mount: Vec<&str> = mount.split(' ').collect();
    let filesystem: Vec<&str> = filesystem.split(' ').collect();
    let [_id, _parent, _device, root, point, options, ..] = mount[..] else { return None };
    let propagation = match mount.get(6) {
        None => "private",
        Some(field) => field.split(':').next()?,
    };
    let part = if root == "/" { "" } else { " part-of-a-file-system" };
    Some(format!("{point}: {}{part} {options} {propagation}", filesystem[0]))
}

/// Ids and privileges.
fn user() {
    namespace("user");
    let status = read("/proc/self/status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or("?").split_whitespace().collect::<Vec<_>>().join(" ")
    };
    value("user ids", &field("Uid"));
    value("group ids", &field("Gid"));
    value("other groups", &field("Groups"));
    for file in ["uid_map", "gid_map"] {
        let map = read(&format!("/proc/self/{file}"));
        list(file, map.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    value("setgroups", &read("/proc/self/setgroups"));
    for (name, set) in [
        ("capabilities", "CapEff"),
        ("capabilities that it may gain", "CapBnd"),
        ("ambient capabilities", "CapAmb"),
    ] {
        list(name, capabilities(u64::from_str_radix(&field(set), 16).unwrap_or_default()));
    }
    value("no new privileges", &field("NoNewPrivs"));
    value("seccomp", &field("Seccomp"));
}

/// The names of the capabilities whose bits are set.
///
/// Source: linux/capability.h, capabilities(7).
fn capabilities(set: u64) -> impl Iterator<Item = String> {
    const NAMES: [&str; 41] = [
        "chown",
        "dac_override",
        "dac_read_search",
        "fowner",
        "fsetid",
        "kill",
        "setgid",
        "setuid",
        "setpcap",
        "linux_immutable",
        "net_bind_service",
        "net_broadcast",
        "net_admin",
        "net_raw",
        "ipc_lock",
        "ipc_owner",
        "sys_module",
        "sys_rawio",
        "sys_chroot",
        "sys_ptrace",
        "sys_pacct",
        "sys_admin",
        "sys_boot",
        "sys_nice",
        "sys_resource",
        "sys_time",
        "sys_tty_config",
        "mknod",
        "lease",
        "audit_write",
        "audit_control",
        "setfcap",
        "mac_override",
        "mac_admin",
        "syslog",
        "wake_alarm",
        "block_suspend",
        "audit_read",
        "perfmon",
        "bpf",
        "checkpoint_restore",
    ];
    (0..64).filter(move |bit| set & (1 << bit) != 0).map(|bit| match NAMES.get(bit) {
        Some(name) => name.to_string(),
        None => format!("number {bit}"),
    })
}

/// Links, addresses and routes.
fn net() {
    namespace("net");
    let links = read("/proc/self/net/dev");
    let mut links: Vec<String> = links
        .lines()
        .skip(2)
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
        .collect();
    links.sort();
    list("links", links.iter().map(|link| format!("{link} {}", state(link))));
    list("links in /sys", names_in("/sys/class/net"));
    list("addresses", addresses());
    list("routes", routes());
}

/// Whether a link is up, if /sys knows.
fn state(link: &str) -> String {
    match fs::read_to_string(format!("/sys/class/net/{link}/flags")) {
        Err(_) => "?".into(),
        Ok(flags) => match u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16) {
            Ok(flags) if flags & 1 != 0 => "up".into(),
            _ => "down".into(),
        },
    }
}

/// This host's own addresses: those that the tables of routes call LOCAL, and the IPv6 ones.
fn addresses() -> Vec<String> {
    let table = read("/proc/self/net/fib_trie");
    let lines: Vec<&str> = table.lines().map(str::trim).collect();
    let mut found: Vec<String> = lines
        .windows(2)
        .filter(|pair| pair[1] == "/32 host LOCAL")
        .filter_map(|pair| Some(pair[0].strip_prefix("|-- ")?.to_owned()))
        .collect();
    found.extend(read("/proc/self/net/if_inet6").lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let groups: Vec<&str> =
            (0..8).filter_map(|n| fields.first()?.get(4 * n..4 * n + 4)).collect();
        Some(format!("{} {}", groups.join(":"), fields.last()?))
    }));
    found.sort();
    found.dedup();
    found
}

/// The IPv4 routes: `default via 10.0.0.1 eth0`.
fn routes() -> Vec<String> {
    // Hexadecimal, in the byte order of the machine that reads it.
    let address = |hex: &str| {
        let number = u32::from_str_radix(hex, 16).unwrap_or_default();
        std::net::Ipv4Addr::from(number.to_ne_bytes())
    };
    let table = read("/proc/self/net/route");
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [link, to, via, _, _, _, _, mask, ..] = fields[..] else { return None };
        let length = address(mask).to_bits().count_ones();
        let to = match length {
            0 => "default".to_owned(),
            _ => format!("{}/{length}", address(to)),
        };
        let via = address(via);
        let via = if via.is_unspecified() { String::new() } else { format!(" via {via}") };
        Some(format!("{to}{via} {link}"))
    };
    table.lines().skip(1).filter_map(route).collect()
}

/// What processes can share by name: System V objects, POSIX queues and shared memory.
fn ipc() {
    namespace("ipc");
    for (name, file) in
        [("message queues", "msg"), ("semaphore sets", "sem"), ("shared memory segments", "shm")]
    {
        // The first field is the key, which is chosen by who makes the object.
        let table = read(&format!("/proc/sysvipc/{file}"));
        let keys = table.lines().skip(1).filter_map(|line| line.split_whitespace().next());
        list(name, keys.map(|key| format!("key {key}")));
    }
    list("POSIX message queues", names_in("/dev/mqueue"));
    list("POSIX shared memory", names_in("/dev/shm"));
    for (name, file) in [
        ("message queues at most", "kernel/msgmni"),
        ("bytes of a message at most", "kernel/msgmax"),
        ("POSIX message queues at most", "fs/mqueue/queues_max"),
    ] {
        value(name, &read(&format!("/proc/sys/{file}")));
    }
}

/// The control groups that this process is in, and the limits that it can see.
fn cgroup() {
    namespace("cgroup");
    let groups = read("/proc/self/cgroup");
    list(
        "groups",
        groups.lines().map(|line| line.split_once(':').map_or(line, |(_, group)| group)),
    );
    let limits = ["memory.max", "memory.swap.max", "pids.max", "cpu.max", "io.max"];
    list(
        "limits in /sys/fs/cgroup",
        limits.iter().filter_map(|limit| {
            let set = fs::read_to_string(format!("/sys/fs/cgroup/{limit}")).ok()?;
            Some(format!("{limit} {}", set.trim()))
        }),
    );
}

/// What this process has inherited.
fn process() {
    let arguments = env::args().skip(1);
    list("arguments", arguments);
    // The list itself is read through one more, which is gone by the time it is looked up.
    let open = names_in("/proc/self/fd");
    list(
        "open files",
        open.into_iter().filter(|fd| !link(&format!("/proc/self/fd/{fd}")).is_empty()),
    );
    let status = read("/proc/self/status");
    let signals = |name: &str| {
        let set = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        u64::from_str_radix(set.trim(), 16).unwrap_or_default()
    };
    value("blocked signals", &format!("{:x}", signals("SigBlk:")));
    // SIGPIPE, bit 12, is ignored by the Rust program that this is.
    value("ignored signals", &format!("{:x}", signals("SigIgn:") & !(1 << 12)));
    value("OOM score adjustment", &read("/proc/self/oom_score_adj"));
    // The fields that follow the name in parentheses: state, parent, group, session, terminal.
    let stat = read("/proc/self/stat");
    let terminal = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(4));
    value("terminal", if terminal == Some("0") { "none" } else { "one" });
    value("working directory", &link("/proc/self/cwd"));
}

/// Tells which namespace of a type this process is in.
fn namespace(name: &str) {
    value("namespace", &link(&format!("/proc/self/ns/{name}")));
}

fn value(key: &str, value: &str) {
    println!("{key}: {value}");
}

fn list<S: AsRef<str>>(key: &str, items: impl IntoIterator<Item = S>) {
    let mut items = items.into_iter().peekable();
    if items.peek().is_none() {
        return value(key, "none");
    }
    println!("{key}:");
    items.for_each(|item| println!("  {}", item.as_ref()));
}

/// A file's text without the white space around it; the error in its place, if there is one.
fn read(file: &str) -> String {
    match fs::read_to_string(file) {
        Ok(text) => text.trim().to_owned(),
        Err(error) => format!("({})", error.kind()),
    }
}

/// What a symbolic link points to; nothing if it isn't there.
fn link(file: &str) -> String {
    fs::read_link(file).map(|target| target.display().to_string()).unwrap_or_default()
}

/// The sorted names in a folder; none if it isn't there.
fn names_in(folder: impl AsRef<Path>) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
