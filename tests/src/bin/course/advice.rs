//! What is likely wrong when a test has failed, by its message and by a look at the machine.

use std::fs;

/// What a test said, without what the test program adds for its makers.
pub fn essence(message: &str) -> Vec<&str> {
    let noise = |line: &&str| {
        ![
            "note: run with `RUST_BACKTRACE",
            "exit code ",
            "stored new snapshot",
            "To update snap",
            "Stopped on the first",
            "Source: tests/",
        ]
        .iter()
        .any(|start| line.trim_start().starts_with(start))
    };
    let lines: Vec<&str> = message.lines().filter(noise).map(str::trim_end).collect();
    let first = lines.iter().position(|line| !line.is_empty()).unwrap_or(lines.len());
    const MOST: usize = 60;
    lines[first..].iter().copied().take(MOST).collect()
}

/// A sign in a message, and what it points to.
struct Rule {
    /// All of these are in the message.
    signs: &'static [&'static str],
    /// What is likely, given the machine; nothing if the machine says otherwise.
    likely: fn() -> Option<String>,
}

const RULES: &[Rule] = &[
    Rule {
        signs: &["not yet implemented"],
        likely: || say("a function that the program calls is still to be written"),
    },
    Rule {
        signs: &["pivot_root", "EBUSY"],
        likely: || {
            say("your new root is not a mount point, or the old root has no place: bind the \
                        new root onto itself first")
        },
    },
    Rule {
        signs: &["pivot_root", "EINVAL"],
        likely: || {
            let shared = first_mount_is_shared();
            say(if shared {
                "a mount is still shared when you pivot (here `/` is shared, as on most machines): \
                 make all mounts private first"
            } else {
                "the new root, its parent or the old root is shared, or the new root is no mount point"
            })
        },
    },
    Rule {
        signs: &["clone", "EPERM"],
        likely: || {
            why_no_namespaces().or_else(|| say("a namespace other than a user namespace \
                                                       needs root: is CLONE_NEWUSER among your flags?"))
        },
    },
    Rule {
        signs: &["gid_map", "EPERM"],
        likely: || {
            say("a user may write a gid_map only after \"deny\" was written to \
                        /proc/PID/setgroups; and a map can be written once")
        },
    },
    Rule {
        signs: &["setgroups", "EPERM"],
        likely: || say("the maps aren't written yet: the child has to wait for the gate first"),
    },
    Rule {
        signs: &["setresuid", "EINVAL"],
        likely: || say("user 0 isn't in the map yet: wait for the gate before you become root"),
    },
    Rule {
        signs: &["sethostname", "EPERM"],
        likely: || say("the process that renames isn't in a UTS namespace of its own"),
    },
    Rule {
        signs: &["hung for"],
        likely: || {
            say("somebody waits for something that never comes: a child that nobody reaps, a \
                        signal that was lost before anybody listened, or a pipe that is held open")
        },
    },
    Rule {
        signs: &["something was left behind"],
        likely: || {
            say("what your program made on the host is still there after its end: see the \
                        lines with a +")
        },
    },
    Rule {
        signs: &["ENOSPC"],
        likely: || match fs::read_to_string("/proc/sys/user/max_user_namespaces") {
            Ok(n) if n.trim() == "0" => {
                say("user namespaces are switched off: see cargo course doctor")
            }
            _ => say("a disk, or a limit in /proc/sys/user, is used up"),
        },
    },
    Rule {
        signs: &["can't run `", "No such file"],
        likely: || {
            say("a program is missing that the test runs: does the step build, with its examples?")
        },
    },
];

fn say(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// What a message points to.
pub fn on(message: &str) -> Vec<String> {
    let fits = |rule: &&Rule| rule.signs.iter().all(|sign| message.contains(sign));
    RULES.iter().filter(fits).filter_map(|rule| (rule.likely)()).take(2).collect()
}

/// Whether `/` is a shared mount on this machine.
fn first_mount_is_shared() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/"));
    root.is_some_and(|line| line.contains(" shared:"))
}

/// Which of the machine's settings forbids user namespaces.
pub fn why_no_namespaces() -> Option<String> {
    let is = |file: &str, value: &str| {
        fs::read_to_string(format!("/proc/sys/{file}")).is_ok_and(|text| text.trim() == value)
    };
    let setting = [
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=10000"),
    ];
    let (_, _, fix) = setting.into_iter().find(|(file, value, _)| is(file, value))?;
    Some(format!("this machine forbids user namespaces; until the next boot: sudo sysctl {fix}"))
}

#[cfg(test)]
mod tests {
    use super::{essence, on};

    #[test]
    fn a_known_mistake_is_named() {
        let message =
            "stderr: step03: pivot_root(\".\", \".\") failed: EBUSY (Device or resource busy)";
        assert!(on(message)[0].contains("not a mount point"));
        assert!(on("all is well").is_empty());
    }

    #[test]
    fn what_helps_nobody_is_left_out() {
        let message = "\nexpected a\nseen b\nnote: run with `RUST_BACKTRACE=1`\nexit code 101";
        assert_eq!(essence(message), ["expected a", "seen b"]);
    }
}
