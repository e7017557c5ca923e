//! `cargo course doctor`: what this machine can do, tried and not read off version numbers.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::Result;
use nix::unistd::{geteuid, getuid};
use serde::Serialize;

use crate::{advice, limits::Group, namespaces, terminal};

/// Says what this machine can do, what will be skipped, and how to enable it.
///
/// The exit code says whether the course can be taken here: 0 if it can, also where some tests will
/// be skipped; 1 if it can't.
#[derive(clap::Args)]
pub struct Doctor {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One thing that was tried.
#[derive(Serialize)]
struct Finding {
    what: &'static str,
    state: State,
    /// What was seen.
    seen: String,
    /// What is skipped without it, and how to get it.
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// It works.
    Ok,
    /// Something will be skipped.
    Missing,
    /// The course can't be taken without.
    Needed,
}

impl Finding {
    fn ok(what: &'static str, seen: impl Into<String>) -> Self {
        Finding { what, state: State::Ok, seen: seen.into(), help: None }
    }

    fn missing(what: &'static str, seen: impl Into<String>, help: impl Into<String>) -> Self {
        Finding { what, state: State::Missing, seen: seen.into(), help: Some(help.into()) }
    }

    fn needed(what: &'static str, seen: impl Into<String>, help: impl Into<String>) -> Self {
        Finding { what, state: State::Needed, seen: seen.into(), help: Some(help.into()) }
    }
}

/// Tries all, and tells it.
pub fn examine(args: &Doctor) -> Result<ExitCode> {
    let lab = Lab::try_it();
    let findings = [
        kernel(),
        rust(),
        namespaces(&lab),
        in_lab(&lab, "overlay", OVERLAY, "step 8 runs for root alone", "a kernel of 5.11 or newer"),
        in_lab(&lab, "veth and bridge", CABLE, "step 5 has no cable", "the kernel's module veth"),
        idmapped_mounts(),
        more_ids(),
        control_groups(),
        tools(),
        root(),
    ];
    let ready = findings.iter().all(|finding| finding.state != State::Needed);
    if args.json {
        let all = serde_json::json!({ "ready": ready, "findings": findings });
        println!("{all:#}");
    } else {
        findings.iter().for_each(tell);
        let missing = findings.iter().filter(|finding| finding.state == State::Missing).count();
        println!(
            "\n{}",
            match (ready, missing) {
                (false, _) => terminal::red("not ready: see the lines with ✗"),
                (true, 0) => terminal::green("ready for all of it"),
                (true, _) =>
                    terminal::green("ready; what is said of the lines with - will be skipped"),
            }
        );
    }
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(finding: &Finding) {
    let mark = match finding.state {
        State::Ok => terminal::green("✓"),
        State::Missing => terminal::yellow("-"),
        State::Needed => terminal::red("✗"),
    };
    println!("{mark} {:<18} {}", finding.what, finding.seen);
    if let Some(help) = &finding.help {
        println!("  {:<18} {help}", "");
    }
}

fn kernel() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let number = |n| release.split(['.', '-']).nth(n).and_then(|n: &str| n.parse::<u32>().ok());
    match (number(0), number(1)) {
        (Some(major), Some(minor)) if (major, minor) < (5, 15) => Finding::needed(
            "kernel",
            release,
            "Linux 5.15 or newer is needed: on an older machine, use a virtual one",
        ),
        _ => Finding::ok("kernel", release),
    }
}

fn rust() -> Finding {
    match Command::new("rustc").arg("--version").output() {
        Ok(done) if done.status.success() => {
            Finding::ok("Rust", String::from_utf8_lossy(&done.stdout).trim())
        }
        _ => Finding::needed("Rust", "no rustc", "install it with rustup: https://rustup.rs"),
    }
}

/// The lab, as a way to try things in namespaces.
struct Lab(Result<(), String>);

impl Lab {
    fn try_it() -> Self {
        Lab(run_in_lab("true").map(drop))
    }
}

fn run_in_lab(script: &str) -> Result<String, String> {
    let course = env::current_exe().map_err(|error| error.to_string())?;
    let mut lab = Command::new(course);
    lab.args(["lab", "--", "sh", "-c", script]).env_remove("CONTAINERS_LAB").stdin(Stdio::null());
    let done = lab.output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
}

fn namespaces(lab: &Lab) -> Finding {
    let what = "user namespaces";
    match &lab.0 {
        Ok(()) => Finding::ok(what, "a lab can be entered, with all namespaces of its own"),
        Err(why) => {
            let mut help = advice::why_no_namespaces().unwrap_or_else(|| {
                "inside docker or podman they are forbidden by default: use a virtual machine"
                    .into()
            });
            if let Ok(profile) = fs::read_to_string("/proc/self/attr/current")
                && !profile.trim_end_matches(['\0', '\n']).is_empty()
            {
                help += &format!(" (this runs under the AppArmor profile {})", profile.trim());
            }
            Finding::needed(what, why.lines().next().unwrap_or("no lab"), help)
        }
    }
}

const OVERLAY: &str = "cd /tmp && mkdir a b c d && echo needle > a/file && mount -t overlay -o \
    lowerdir=a,upperdir=b,workdir=c,userxattr none d && rm d/file && ls -l b/file";
const CABLE: &str = "ip link add c0 type veth peer name c1 && ip link add b0 type bridge && ip link set \
    c0 master b0 && echo made";

/// Tries a script in the lab.
fn in_lab(lab: &Lab, what: &'static str, script: &str, without: &str, how: &str) -> Finding {
    if lab.0.is_err() {
        return Finding::missing(what, "can't be tried without user namespaces", without);
    }
    match run_in_lab(script) {
        Ok(_) => Finding::ok(what, "works in a user namespace"),
        Err(why) => {
            let why = why.lines().last().unwrap_or("it doesn't work").to_owned();
            Finding::missing(what, why, format!("{without}; needed: {how}"))
        }
    }
}

/// Asks the kernel for an idmapped mount with a file descriptor that can't be one: EBADF says that
/// it would look at it, EINVAL and ENOSYS that it knows no such thing.
#[allow(unsafe_code)]
fn idmapped_mounts() -> Finding {
    use nix::{errno::Errno, libc};
    const IDMAP: [u64; 4] = [0x10_0000, 0, 0, u32::MAX as u64 >> 1];
    // SAFETY: the path is a C string, and the attributes have the size that is given.
    let result = unsafe {
        libc::syscall(libc::SYS_mount_setattr, -1, c"/".as_ptr(), 0, &IDMAP, size_of_val(&IDMAP))
    };
    let errno = if result < 0 { Errno::last() } else { Errno::UnknownErrno };
    match errno {
        Errno::EBADF | Errno::EPERM => Finding::ok("idmapped mounts", "the kernel has them"),
        errno => Finding::missing(
            "idmapped mounts",
            format!("mount_setattr says {errno:?}"),
            "layers are unpacked once more for each range of ids; needed: a kernel of 5.12 or newer",
        ),
    }
}

fn more_ids() -> Finding {
    let what = "more than one id";
    if geteuid().is_root() {
        return Finding::ok(what, "root may map any");
    }
    let given = namespaces::given("/etc/subuid", getuid());
    match (given, namespaces::has_helpers()) {
        (Some((first, count)), true) => {
            // That they are there doesn't say that they work.
            match run_in_lab("wc -l < /proc/self/uid_map") {
                Ok(lines) if lines == "2" => {
                    Finding::ok(what, format!("{count} from {first} on, by newuidmap"))
                }
                _ => Finding::missing(what, "newuidmap didn't work", "is it set-user-id root?"),
            }
        }
        (_, false) => Finding::missing(
            what,
            "there is no newuidmap",
            "a container has one id; install uidmap (Debian, Ubuntu) or shadow-utils (Fedora)",
        ),
        (None, true) => Finding::missing(
            what,
            "/etc/subuid has no line for you",
            "a container has one id; sudo usermod --add-subuids 100000-165535 --add-subgids \
             100000-165535 $USER",
        ),
    }
}

fn control_groups() -> Finding {
    let version = match fs::read_to_string("/sys/fs/cgroup/cgroup.controllers") {
        Ok(controllers) => format!("v2 ({})", controllers.trim()),
        Err(_) if Path::new("/sys/fs/cgroup/memory").exists() => "v1".to_owned(),
        Err(_) => "none".to_owned(),
    };
    // In a process of its own, which goes into the group and ends there.
    let name = format!("course-doctor-{}", std::process::id());
    let tried = Command::new(env::current_exe().unwrap_or_default())
        .args(["try-group", &name])
        .status()
        .is_ok_and(|status| status.success());
    crate::limits::remove_group(&name);
    if tried {
        return Finding::ok(
            "control groups",
            format!("{version}; a group with limits can be made"),
        );
    }
    let how = if geteuid().is_root() {
        "mount the cgroup file system"
    } else if version.starts_with("v2") {
        "systemd-run --user --scope -p Delegate=yes cargo course check 7"
    } else {
        "on cgroup v1, limits need root"
    };
    let help = format!("the limits of step 7 are skipped; to have them: {how}");
    Finding::missing("control groups", format!("{version}; no group can be made"), help)
}

/// `course try-group`: whether a group with limits can be entered.
pub fn try_group(name: &str) -> ExitCode {
    if Group::enter(name).holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tools() -> Finding {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = |name: &&str| {
        env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|folder| {
            let file = folder.join(name);
            file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 1 != 0)
        })
    };
    const NEEDED: [&str; 7] = ["cc", "sh", "mount", "ps", "ip", "hostname", "ipcmk"];
    let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !found(name)).collect();
    match missing[..] {
        [] => Finding::ok("tools", NEEDED.join(", ")),
        _ if missing.contains(&"cc") => {
            Finding::needed("tools", "no C linker (cc)", "install gcc, or clang")
        }
        _ => Finding::missing(
            "tools",
            format!("there is no {}", missing.join(", no ")),
            "some tests are skipped; the packages are iproute2, procps, util-linux, hostname",
        ),
    }
}

fn root() -> Finding {
    if geteuid().is_root() {
        Finding::ok("root", "you are root: take care, and use the lab")
    } else {
        Finding::ok("root", "not needed: steps 1 to 3 run in cargo course lab")
    }
}
