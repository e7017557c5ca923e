//! The exercises of step 4: root inside, nobody outside.

use std::{
    fs,
    fs::Permissions,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid, setgroups, setresuid},
};
use tempfile::TempDir;
use tests::{
    chance::Chance,
    held::Held,
    programs::{clean, probe, program},
    run::{finish, finish_within},
    scenario::{EVERYWHERE, IN_LAB, PRIVILEGED, Place, Scenario, skip},
};

use crate::{
    slow_parent,
    step01::{Question, errno, of_io, script},
};

const STEP: &str = "step04-user";
const ANSWERS: &str = "step04-user/exercises/errno.toml";

pub fn scenarios() -> Vec<Scenario> {
    let mut all = vec![
        Scenario::new("exercises::4.1::root_maps_any_ids", PRIVILEGED, root_maps_any_ids),
        Scenario::new("exercises::4.1::a_user_maps_their_own", EVERYWHERE, a_user_maps_their_own),
        Scenario::new(
            "exercises::4.2::in_no_group_of_the_host",
            PRIVILEGED,
            in_no_group_of_the_host,
        ),
        Scenario::new("exercises::4.2::groups_are_denied", PRIVILEGED, groups_are_denied),
        Scenario::new("exercises::4.3::waits_for_its_map", IN_LAB, waits_for_its_map),
        Scenario::new("exercises::4.5::root_is_root", IN_LAB, root_is_root),
        Scenario::new("exercises::4.6::owners_outside", PRIVILEGED, owners_outside),
        Scenario::new("exercises::4.7::one_capability", PRIVILEGED, one_capability),
    ];
    all.extend(QUESTIONS.map(|question| {
        let name = format!("exercises::4.4::{}", question.key);
        Scenario::new(name, IN_LAB, move || question.is_answered(ANSWERS))
    }));
    all
}

/// Demands that there are enough ids here to choose from: the first 60000.
fn many_ids() -> Result<()> {
    for file in ["/proc/self/uid_map", "/proc/self/gid_map"] {
        let map = fs::read_to_string(file)?;
        let lines = map.lines().map(|line| line.split_whitespace().filter_map(|n| n.parse().ok()));
        let mut end = 0;
        for line in lines {
            let [inside, _, count] = line.collect::<Vec<u64>>()[..] else { bail!("{file}: {map}") };
            end = if inside <= end { end.max(inside + count) } else { end };
        }
        if end < 60_000 {
            return skip("you have too few ids: it takes uidmap and a line in /etc/subuid");
        }
    }
    Ok(())
}

/// A process that has just made a user namespace, and waits.
fn unmapped(command: &mut Command) -> Result<Held> {
    let mut held = Held::start(command.args(["--user", "sh", "-c", "echo ready; read end"]))?;
    held.says("ready")?;
    Ok(held)
}

/// The map of a process, as the lines that were written, and the same for groups.
fn maps(pid: u32) -> Result<[String; 2]> {
    let read = |name: &str| -> Result<String> {
        let map = fs::read_to_string(format!("/proc/{pid}/{name}"))?;
        let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(":");
        Ok(map.lines().map(line).collect::<Vec<_>>().join(" "))
    };
    Ok([read("uid_map")?, read("gid_map")?])
}

/// Two ranges that nobody can have guessed.
fn two_ranges(chance: &mut Chance) -> [[u64; 3]; 2] {
    let count = 1 + chance.below(500);
    let (first, second) = (1_000 + chance.below(9_000), 20_000 + chance.below(30_000));
    [[0, first, count], [count + chance.below(1_000), second, 1 + chance.below(5_000)]]
}

fn root_maps_any_ids() -> Result<()> {
    many_ids()?;
    let ranges = two_ranges(&mut Chance::new("map"));
    let ranges = ranges.map(|[inside, outside, count]| format!("{inside}:{outside}:{count}"));
    let held = unmapped(&mut clean("unshare"))?;
    let done = finish(program("idmap").arg(held.pid().to_string()).args(&ranges))?;
    let [users, groups] = maps(held.pid())?;
    let wished = ranges.join(" ");
    ensure!(
        users == wished && groups == wished,
        "wished for is {wished}; the map of users is now {users:?}, of groups {groups:?}. Both \
         files are written in one write(2) each, a line for each range: see user_namespaces(7).\n{}",
        done.stderr
    );
    done.success().map(drop)
}

/// A copy of a program that everybody may execute, wherever the project lies.
fn for_all(dir: &TempDir, program: &Path) -> Result<PathBuf> {
    let copy = dir.path().join(program.file_name().context("a program has a name")?);
    fs::copy(program, &copy)?;
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    fs::set_permissions(&copy, Permissions::from_mode(0o755))?;
    Ok(copy)
}

fn a_user_maps_their_own() -> Result<()> {
    let dir = TempDir::new()?;
    let idmap = for_all(&dir, Path::new(program("idmap").get_program()))?;
    let (mut user, mut group) = (Uid::effective().as_raw(), Gid::effective().as_raw());
    let (mut unshare, mut write) = (clean("unshare"), clean(idmap));
    if Place::current() != Place::User {
        many_ids()?;
        (user, group) = (1_000, 1_000);
        for command in [&mut unshare, &mut write] {
            command.uid(user).gid(group);
        }
    } else if user != group {
        return skip("the program that is tried maps a user and a group of the same number");
    }
    let held = unmapped(&mut unshare)?;
    let own = format!("0:{user}:1");
    let done = finish(write.arg(held.pid().to_string()).arg(&own))?;
    let [users, groups] = maps(held.pid())?;
    ensure!(
        users == own && groups == own,
        "user {user} maps their own id, {own}; the map of users is now {users:?}, of groups \
         {groups:?}. The kernel takes a group map from a user only after `deny` was written to \
         /proc/PID/setgroups: see user_namespaces(7).\n{}",
        done.stderr
    );
    done.success().map(drop)
}

/// What `/proc/self/status` says of a program that became root with this map.
fn status_of_root(outside: u64, allow_groups: bool) -> Result<String> {
    let mut command = program("byhand");
    let mut held = Held::start(command.args(["cat", "/proc/self/status"]))?;
    let pid = held.says("child")?;
    if !allow_groups {
        fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
    }
    for file in ["gid_map", "uid_map"] {
        fs::write(format!("/proc/{pid}/{file}"), format!("0 {outside} 10"))?;
    }
    Ok(held.end()?.1)
}

fn is_root(status: &str) -> Result<()> {
    for field in ["Uid:", "Gid:"] {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or(status);
        let ids: Vec<&str> = line.split_whitespace().collect();
        ensure!(
            ids == ["0"; 4],
            "after become_root, {field} {} and not 0 0 0 0: the real, effective and saved id all \
             have to be set. See setresuid(2), setresgid(2).",
            line.trim()
        );
    }
    Ok(())
}

fn in_no_group_of_the_host() -> Result<()> {
    many_ids()?;
    setgroups(&[4, 24, 27].map(Gid::from_raw))?;
    let status = status_of_root(1_000 + Chance::new("root").below(50_000), true)?;
    is_root(&status)?;
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or(&status);
    ensure!(
        groups.trim().is_empty(),
        "whoever started it was in groups 4, 24 and 27 of the host, and root inside is in {} still: \
         their files are open to it. See setgroups(2).",
        groups.trim()
    );
    Ok(())
}

fn groups_are_denied() -> Result<()> {
    many_ids()?;
    is_root(&status_of_root(1_000 + Chance::new("denied").below(50_000), false)?).context(
        "where /proc/self/setgroups says `deny`, as for each user who maps their own id, setgroups(2) \
         fails, and there is nothing to give up",
    )
}

fn waits_for_its_map() -> Result<()> {
    let command = slow_parent::after_each_call(0, program(STEP).args(["--", "id", "-u"]));
    let done = finish_within(Duration::from_secs(60), &mut { command })?;
    let ids = done.stdout.lines().all(|line| line == "0");
    ensure!(
        done.code == 0 && ids && !done.stdout.is_empty(),
        "the step was held still on its way from the birth of its child to the map, and the child \
         went on without a map. It may do nothing but wait at the gate until the gate is opened, and \
         that comes after the map.\n{}{}",
        done.stdout,
        done.stderr
    );
    Ok(())
}

/// In a new user namespace, with or without a map in which root stays itself.
fn in_namespace(mapped: bool) -> Result<(), Errno> {
    unshare(CloneFlags::CLONE_NEWUSER)?;
    if mapped {
        write("setgroups", "deny")?;
        write("gid_map", "0 0 1")?;
        write("uid_map", "0 0 1")?;
    }
    Ok(())
}

fn write(name: &str, text: &str) -> Result<(), Errno> {
    fs::write(format!("/proc/self/{name}"), text).map_err(of_io)
}

const QUESTIONS: [Question; 6] = [
    Question {
        key: "groups_without_a_map",
        ask: || in_namespace(false).and_then(|()| setgroups(&[])),
        try_it: "cargo course lab -- unshare --user setpriv --clear-groups true; man 2 setgroups",
    },
    Question {
        key: "root_without_a_map",
        ask: || {
            in_namespace(false)?;
            let root = Uid::from_raw(0);
            setresuid(root, root, root)
        },
        try_it: "cargo course lab -- unshare --user setpriv --reuid 0 true; man 2 setresuid",
    },
    Question {
        key: "a_second_map",
        ask: || in_namespace(true).and_then(|()| write("uid_map", "0 0 1")),
        try_it: "cargo course lab -- unshare --user --map-root-user bash -c \
                 'echo 0 0 1 >/proc/self/uid_map'; man 7 user_namespaces",
    },
    Question {
        key: "two_lines_for_one_id",
        ask: || in_namespace(false).and_then(|()| write("uid_map", "0 0 1\n0 1 1\n")),
        try_it: "man 7 user_namespaces, \"Defining user and group ID mappings\"",
    },
    Question {
        key: "rename_the_host",
        ask: || {
            in_namespace(true)?;
            rustix::system::sethostname(b"needle").map_err(errno)
        },
        try_it: "cargo course lab -- unshare --user --map-root-user hostname needle",
    },
    Question {
        key: "too_deep",
        ask: || (0..100).try_for_each(|_| in_namespace(true)),
        try_it: "man 7 user_namespaces, \"Nested namespaces\"",
    },
];

/// The same script is root over the host's network in step 3, and isn't in step 4.
fn root_is_root() -> Result<()> {
    let script = fs::read_to_string(script(STEP, "readdress.sh")?)?;
    let mut chance = Chance::new("address");
    let mut reached = |mut command: Command| -> Result<(bool, String, String)> {
        let address = format!("10.{}.{}.77", chance.below(256), chance.below(256));
        let done = finish(command.args(["sh", "-c", &script, "sh", &address]))?;
        let table = fs::read_to_string("/proc/net/fib_trie")?;
        Ok((table.lines().any(|line| line.ends_with(&format!(" {address}"))), address, done.stderr))
    };
    // The namespaces of step 3, without its program: a step is tried without the others.
    let mut step_3 = clean("unshare");
    step_3.args(["--uts", "--mount", "--pid", "--fork"]);
    let (done, address, said) = reached(step_3)?;
    ensure!(
        done,
        "the script ran as root in the namespaces of step 3, and the host's loopback link hasn't got \
         the address {address}. The network in there is the host's, and root may change it: see \
         ip-address(8).\n{said}"
    );
    let mut step_4 = program(STEP);
    step_4.arg("--");
    let (done, address, _) = reached(step_4)?;
    ensure!(
        !done,
        "the script has given the host the address {address} from inside of step 4, too"
    );
    Ok(())
}

fn owners_outside() -> Result<()> {
    many_ids()?;
    let script = script(STEP, "owner.sh")?;
    let mut chance = Chance::new("owner");
    let ranges = two_ranges(&mut chance);
    let held = unmapped(&mut clean("unshare"))?;
    let pid = held.pid().to_string();
    let lines = ranges.map(|range| range.map(|number| number.to_string()).join(" "));
    fs::write(format!("/proc/{pid}/uid_map"), lines.join("\n"))?;
    let end = |range: [u64; 3]| range[0] + range[2];
    let random = ranges[1][0] + chance.below(ranges[1][2]);
    for id in [0, end(ranges[0]) - 1, ranges[1][0], random, end(ranges[1]) - 1, end(ranges[1])] {
        let range = ranges.iter().find(|range| range[0] <= id && id < end(**range));
        let outside = range.map_or("nobody".into(), |range| (range[1] + id - range[0]).to_string());
        let told = finish(clean("sh").args([&script, &pid, &id.to_string()]))?;
        ensure!(
            told.stdout.trim() == outside,
            "with the map\n  {}\nid {id} inside is {outside} here; `owner.sh {pid} {id}` prints {:?}. \
             A line is the first id inside, the first one outside, and how many there are.\n{}",
            lines.join("\n  "),
            told.stdout.trim(),
            told.stderr
        );
    }
    Ok(())
}

fn one_capability() -> Result<()> {
    many_ids()?;
    let dir = TempDir::new()?;
    let probe = for_all(&dir, &probe())?;
    let mut chance = Chance::new("capability");
    let names = ["net_bind_service", "chown", "kill", "sys_chroot", "net_raw"];
    let name = names[chance.below(names.len() as u64) as usize];
    let user = (1_000 + chance.below(50_000)).to_string();
    setgroups(&[4, 24, 27].map(Gid::from_raw))?;
    let capability = format!("CAP_{}", name.to_uppercase());
    let done = finish(program("keep").args([&capability, &user]).arg(&probe))?.success()?;
    let ids = [&*user; 4].join(" ");
    for (what, expected) in [
        ("user ids", format!("user ids: {ids}\n")),
        ("group ids", format!("group ids: {ids}\n")),
        ("other groups", "other groups: \n".into()),
        ("capabilities", format!("\ncapabilities:\n  {name}\n")),
        ("those that it may gain", format!("\ncapabilities that it may gain:\n  {name}\n")),
    ] {
        let section = done.stdout.split("[user]").nth(1).unwrap_or_default();
        let alone = section.split_once(&expected).is_some_and(|(_, rest)| !rest.starts_with("  "));
        ensure!(
            alone,
            "`keep {capability} {user} PROGRAM`: of its {what}, the program should say\n  {}\nIt \
             says:\n{}\nChanging the user id takes capabilities away, and so does execve(2), each \
             in its own way: see capabilities(7).",
            expected.trim().replace('\n', "\n  "),
            section.split("\n[").next().unwrap_or_default()
        );
    }
    Ok(())
}
