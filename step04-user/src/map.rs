//! Which ids inside stand for which ids outside.
//!
//! Who may write which map (user_namespaces(7), "Defining user and group ID mappings"):
//!
//! | who | may map | how |
//! |---|---|---|
//! | root | any ids | writes `/proc/PID/uid_map` and `gid_map` |
//! | a user | their own id, alone | writes them too, after denying setgroups(2) |
//! | a user with a range in `/etc/subuid` | their own id and that range | newuidmap(1) and newgidmap(1), which are set-user-id root, write them |

use std::{fmt, fs, path::Path, process::Command, str::FromStr};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    errno::Errno,
    unistd::{Gid, Pid, Uid, getegid, geteuid},
};
use uts::{call, call::Hint};

/// A run of ids: `count` of them, from `inside` on in the container, from `outside` on outside.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The first id inside.
    pub inside: u32,
    /// The first id outside, as the process that writes the map sees it.
    pub outside: u32,
    /// How many ids.
    pub count: u32,
}

/// A line of `/proc/PID/uid_map`.
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {} {}", self.inside, self.outside, self.count)
    }
}

/// Which users and groups inside stand for which outside. Number 0 inside is always mapped.
#[derive(Clone, Debug, PartialEq)]
pub struct IdMap {
    /// The map of user ids.
    pub users: Vec<Range>,
    /// The map of group ids.
    pub groups: Vec<Range>,
}

/// The choice of a map, as an option of a program.
#[derive(clap::Args)]
pub struct Ids {
    /// The ids outside that ids 0, 1, 2, … inside stand for [default: from /etc/subuid]
    #[arg(long, value_name = "FIRST:COUNT")]
    pub ids: Option<Outside>,
}

/// A run of ids outside, written `FIRST:COUNT`.
#[derive(Clone, Copy, Debug)]
pub struct Outside {
    first: u32,
    count: u32,
}

impl FromStr for Outside {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (first, count) =
            text.split_once(':').context("write FIRST:COUNT, as in 100000:65536")?;
        let (first, count): (u32, u32) = (first.parse()?, count.parse()?);
        if count == 0 || first.checked_add(count).is_none() {
            bail!("a range has at least one id, and its last one is below 4294967295");
        }
        Ok(Outside { first, count })
    }
}

impl Ids {
    /// The map to use: the one that is wished for, or else the one that fits whoever runs this. For
    /// root that is root's range in `/etc/subuid`, or 100000:65536; for a user their own id, with
    /// their range in `/etc/subuid` behind it if newuidmap(1) is installed.
    ///
    /// # Errors
    /// If `/etc/subuid` or `/proc/self/uid_map` can't be read.
    ///
    /// Source: [subuid(5)](https://man7.org/linux/man-pages/man5/subuid.5.html).
    pub fn choose(&self) -> Result<IdMap> {
        if let Some(Outside { first, count }) = self.ids {
            let ids = vec![Range { inside: 0, outside: first, count }];
            return Ok(IdMap { users: ids.clone(), groups: ids });
        }
        if geteuid().is_root() { IdMap::for_root() } else { IdMap::for_user() }
    }
}

impl IdMap {
    fn for_root() -> Result<Self> {
        let range = |file, own_map| -> Result<Vec<Range>> {
            let here = read_map(own_map)?;
            let wished = subordinate(file, "root", 0)?.unwrap_or((100_000, 65_536));
            let (outside, count) = if is_mapped(&here, wished) { wished } else { spare(&here) };
            Ok(vec![Range { inside: 0, outside, count }])
        };
        Ok(IdMap {
            users: range("/etc/subuid", "/proc/self/uid_map")?,
            groups: range("/etc/subgid", "/proc/self/gid_map")?,
        })
    }

    fn for_user() -> Result<Self> {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let mut map = IdMap { users: vec![own(uid)], groups: vec![own(gid)] };
        let name = name_of(uid);
        let users = subordinate("/etc/subuid", &name, uid)?;
        let groups = subordinate("/etc/subgid", &name, uid)?;
        if let (Some(users), Some(groups), true) = (users, groups, has_helpers()) {
            map.users.push(Range { inside: 1, outside: users.0, count: users.1 });
            map.groups.push(Range { inside: 1, outside: groups.0, count: groups.1 });
        }
        Ok(map)
    }

    /// Whether newuidmap(1) has to write it: a user may write no map but that of their own id.
    fn needs_helper(&self) -> bool {
        let (uid, gid) = (geteuid(), getegid());
        !uid.is_root() && (self.users != [own(uid.as_raw())] || self.groups != [own(gid.as_raw())])
    }

    /// Whether there is a group number `gid` inside.
    pub fn maps_group(&self, gid: u32) -> bool {
        is_mapped(&self.groups, (gid, 1))
    }

    /// The user and group outside that root inside stands for: the owner of a container's files.
    pub fn root(&self) -> (Uid, Gid) {
        let outside = |ranges: &[Range]| {
            ranges.iter().find(|range| range.inside == 0).map_or(0, |range| range.outside)
        };
        (Uid::from_raw(outside(&self.users)), Gid::from_raw(outside(&self.groups)))
    }
}

/// Number 0 inside, for one id outside.
fn own(outside: u32) -> Range {
    Range { inside: 0, outside, count: 1 }
}

/// Writes the map of the user namespace that `child` is in. This can be done once.
///
/// # Errors
/// `EPERM` for ids that the caller may not map, or for a second map; `EINVAL` for ranges that overlap.
///
/// Source: [user_namespaces(7)](https://man7.org/linux/man-pages/man7/user_namespaces.7.html),
/// "User and group ID mappings".
pub fn write_id_maps(child: Pid, map: &IdMap) -> Result<()> {
    if map.needs_helper() {
        run_helper("newuidmap", child, &map.users)?;
        return run_helper("newgidmap", child, &map.groups);
    }
    if !geteuid().is_root() {
        // A user who could leave a group inside could open files that are closed to that group,
        // so the kernel wants setgroups(2) to be denied before it takes a user's gid_map.
        write_file(child, "setgroups", "deny")?;
    }
    write_file(child, "gid_map", &lines(&map.groups))?;
    write_file(child, "uid_map", &lines(&map.users))
}

fn write_file(child: Pid, name: &str, text: &str) -> Result<()> {
    let path = format!("/proc/{child}/{name}");
    call!("write"(&path, text) = fs::write(&path, text))
        .hint(
            Errno::EPERM,
            "these ids aren't yours to map: a user may map their own id alone, or \
            a range that /etc/subuid gives them; and a map can be written once",
        )
        .hint(Errno::EINVAL, "the ranges overlap, or one of them ends beyond the last id")?;
    Ok(())
}

fn lines(ranges: &[Range]) -> String {
    ranges.iter().map(Range::to_string).collect::<Vec<_>>().join("\n")
}

/// newuidmap(1), newgidmap(1): `newuidmap PID 0 1000 1 1 100000 65536`.
fn run_helper(program: &str, child: Pid, ranges: &[Range]) -> Result<()> {
    let mut command = Command::new(program);
    command.arg(child.to_string()).args(lines(ranges).split_whitespace());
    let shown = lines(ranges).replace('\n', " ");
    let status = call!("posix_spawn"(program, child, format_args!("{shown}")) = command.status())
        .hint(
        Errno::ENOENT,
        "this program makes the map for a user: install the package uidmap \
            (Debian, Ubuntu) or shadow-utils (Fedora), or use no --ids",
    )?;
    if !status.success() {
        bail!(
            "{program} {child} {shown} failed ({status}): see /etc/subuid and /etc/subgid for \
            the ids that you may use"
        );
    }
    Ok(())
}

/// Whether both helpers can be found.
fn has_helpers() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed =
        |program: &str| std::env::split_paths(&path).any(|dir| dir.join(program).exists());
    installed("newuidmap") && installed("newgidmap")
}

/// The name of user number `uid` in `/etc/passwd`. getpwuid(3) may know others, from a directory server.
/// But it loads a library to ask that, which a static program can't.
fn name_of(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
    };
    users.lines().find_map(name).unwrap_or_default()
}

/// The first range that `file` gives to the user called `name`, or to number `uid`.
fn subordinate(file: &str, name: &str, uid: u32) -> Result<Option<(u32, u32)>> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(_) if !Path::new(file).exists() => return Ok(None),
        Err(error) => return Err(error).context(file.to_owned()),
    };
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        if owner != name && owner != uid.to_string() {
            return None;
        }
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Ok(text.lines().find_map(range))
}

/// The map of this process's own user namespace; the machine's first one maps all ids to themselves.
fn read_map(file: &str) -> Result<Vec<Range>> {
    let range = |line: &str| -> Option<Range> {
        let numbers: Vec<u32> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        match numbers[..] {
            [inside, outside, count] => Some(Range { inside, outside, count }),
            _ => None,
        }
    };
    let text = fs::read_to_string(file).with_context(|| file.to_owned())?;
    text.lines()
        .map(|line| range(line).ok_or_else(|| anyhow!("{file}: {line:?} isn't a map")))
        .collect()
}

/// Whether the ids of a run exist in a namespace with map `here`.
fn is_mapped(here: &[Range], (first, count): (u32, u32)) -> bool {
    here.iter().any(|r| {
        r.inside <= first
            && u64::from(first) + u64::from(count) <= u64::from(r.inside) + u64::from(r.count)
    })
}

/// In a namespace with few ids: all but the first of its longest run, or that one if there is no other.
fn spare(here: &[Range]) -> (u32, u32) {
    match here.iter().max_by_key(|range| range.count) {
        Some(range) if range.count > 1 => (range.inside + 1, range.count - 1),
        Some(range) => (range.inside, 1),
        None => (0, 1),
    }
}
