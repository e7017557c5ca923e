//! Whose files can be made here: which user and group ids this process may give away.
//!
//! A user namespace that maps a range of ids lets its root give files to all of them. One that
//! maps a single id, and a process that isn't root at all, can only make files of their own.

use std::fs;

use rustix::process::{getegid, geteuid};

/// The ids that files may be given to.
pub(crate) struct Owners {
    users: Ids,
    groups: Ids,
}

struct Ids {
    own: u32,
    /// First and last of each run.
    mapped: Vec<(u32, u32)>,
}

impl Owners {
    /// Those of this process.
    ///
    /// Source: [user_namespaces(7)](https://man7.org/linux/man-pages/man7/user_namespaces.7.html),
    /// "/proc/pid/uid_map".
    pub fn here() -> Self {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let ids = |own, map| {
            let root = if uid == 0 { read_map(map) } else { None };
            Ids { own, mapped: root.unwrap_or_else(|| vec![(own, own)]) }
        };
        Owners { users: ids(uid, "/proc/self/uid_map"), groups: ids(gid, "/proc/self/gid_map") }
    }

    /// Whom a file of `uid` and `gid` can belong to here, and which of the bits in `mode` remain: a
    /// program that belongs to another user than it was made for must not act in that one's name.
    pub fn fit(&self, uid: i64, gid: i64, mode: u32) -> (u32, u32, u32) {
        const SET_USER: u32 = 0o4000;
        const SET_GROUP: u32 = 0o2000;
        let (user, group) = (self.users.find(uid), self.groups.find(gid));
        let user_bits = if user.is_some() { SET_USER } else { 0 };
        let group_bits = if group.is_some() { SET_GROUP } else { 0 };
        let keep = !(SET_USER | SET_GROUP) | user_bits | group_bits;
        (user.unwrap_or(self.users.own), group.unwrap_or(self.groups.own), mode & keep)
    }
}

impl Ids {
    fn find(&self, id: i64) -> Option<u32> {
        let id = u32::try_from(id).ok()?;
        self.mapped.iter().any(|(first, last)| (first..=last).contains(&&id)).then_some(id)
    }
}

fn read_map(path: &str) -> Option<Vec<(u32, u32)>> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u32>().ok());
        let (first, _, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some((first, first.saturating_add(count - 1)))
    };
    fs::read_to_string(path).ok()?.lines().map(line).collect()
}
