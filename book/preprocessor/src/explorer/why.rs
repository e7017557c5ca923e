//! Why an act ends as it does.

use super::{Effect, Seen};

/// A sentence or two on what came of the act that `namespace` decides about.
pub fn why(namespace: &str, effect: Effect, seen: &Seen) -> String {
    let first = match (namespace, effect) {
        ("uts", Effect::Reaches) => {
            "There is one pair of names for both, so it renames the machine."
        }
        ("uts", Effect::Stays) => "It got a copy of the names. It renames the copy.",
        ("uts", Effect::Refused) => {
            "The names are the host’s. It is root in a user namespace that doesn’t own them."
        }
        ("pid", Effect::Reaches) => {
            "It is counted as the host counts, so it can name every process of the host; and as root \
             it may signal them all."
        }
        ("pid", Effect::Stays) => {
            "In its own count, nobody has that number: there is nobody to signal."
        }
        ("pid", Effect::Refused) => {
            "It can name a process of the host, but to the host it is a user who owns nothing."
        }
        ("mnt", Effect::Reaches) => {
            "There is one list of mounts for both, so the host has this mount as well."
        }
        ("mnt", Effect::Stays) => {
            "It has a list of mounts of its own, which begins with another root. What it mounts is in \
             that list alone."
        }
        ("mnt", Effect::Refused) => {
            "The list of mounts is the host’s. It is root in a user namespace that doesn’t own it."
        }
        ("user", Effect::Reaches) => {
            "Root inside is root outside, so it may read what root may read."
        }
        ("user", Effect::Stays) if seen.host.ends_with(": 0") => {
            "No name in its root file system leads to that file. But it still is the host’s root: \
             should it get out, it may do everything."
        }
        ("user", Effect::Stays) => {
            "No name in its root file system leads to that file. And should it get out, it is a user \
             who owns nothing."
        }
        ("user", Effect::Refused) => {
            "Number 0 inside stands for another number outside, which owns nothing there."
        }
        ("net", Effect::Reaches) => {
            "There is one network for both: both ends of the cable are plugged into the host, and it \
             gives the host an address."
        }
        ("net", Effect::Stays) => {
            "Its end of the cable is in a network of its own. The host has the other end."
        }
        ("net", Effect::Refused) => {
            "The links are the host’s. It is root in a user namespace that doesn’t own them."
        }
        ("ipc", Effect::Stays) => {
            "Its queues have names of their own: none of the host’s is there, and the host doesn’t \
             find the one that it made."
        }
        // Whoever may start a process may make a queue: this is never refused.
        _ => "There is one set of names for both, so each side finds the other’s queue.",
    };
    format!("{first}{}", and(namespace, seen))
}

/// What else is strange about it: a namespace alone doesn't change what shows it.
fn and(namespace: &str, seen: &Seen) -> &'static str {
    let own_number = !seen.inside.contains("number: the host's");
    match namespace {
        "pid" if own_number && seen.inside.ends_with("/proc: the host's") => {
            " Yet `/proc` shows the host’s processes: it was mounted for the host’s count, and only \
             with a list of mounts of its own can it have another."
        }
        "net" if stale_sys(&seen.inside) => {
            " Yet `/sys` lists the host’s links: it was mounted for the host’s network, and only with \
             a list of mounts of its own can it have another."
        }
        _ => "",
    }
}

/// Whether `/sys` shows other links than there are.
fn stale_sys(inside: &str) -> bool {
    let links = inside.strip_prefix("links: ").and_then(|rest| rest.split_once("; in /sys: "));
    links.is_some_and(|(links, in_sys)| links != in_sys)
}
