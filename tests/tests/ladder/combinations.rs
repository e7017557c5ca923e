//! All 64 combinations of the six namespaces: what the same process inside may do and sees in each,
//! and what the host sees. The book's explorer shows this snapshot.

use anyhow::{Context, Result, ensure};
use tests::{
    programs::{lab_works, probe, program},
    run::finish,
    scenario::{HERE, Scenario, skip},
    view::{Report, parse},
};

use crate::snapshot;

/// The order of the ladder.
const NAMESPACES: [&str; 6] = ["uts", "pid", "mnt", "user", "net", "ipc"];

pub fn scenarios() -> Vec<Scenario> {
    // Each combination has a lab of its own, since some of them spoil it.
    vec![Scenario::new("combinations::all_64", HERE, all)]
}

fn all() -> Result<()> {
    if let Err(reason) = lab_works() {
        return skip(format!("there is no lab: {reason}"));
    }
    let map = finish(program("course").args(["lab", "--", "cat", "/proc/self/uid_map"]))?.stdout;
    if map.lines().count() == 1 && map.trim().ends_with(" 1") {
        return skip("a lab with one user id has no other for root inside: see /etc/subuid");
    }
    let lines: Vec<String> = (0..64).map(combination).collect::<Result<_>>()?;
    snapshot::check("combinations", &format!("{{\n{}\n}}", lines.join(",\n")));
    Ok(())
}

/// One line of JSON: `"uts+pid": {"uts": [how the act ended, seen inside, seen by the host], …}`.
fn combination(number: usize) -> Result<String> {
    let on = NAMESPACES.iter().enumerate().filter(|(bit, _)| number >> bit & 1 == 1);
    let on: Vec<&str> = on.map(|(_, name)| *name).collect();
    let mut combine = program("course");
    combine.args(["lab", "--"]).arg(program("combine").get_program()).arg(probe()).args(&on);
    let told = finish(&mut combine)?.success()?.stdout;
    let (inside, host) = told.split_once("[host]\n").context("the host saw nothing")?;
    let (inside, host) = (Side::new(inside), Side::new(host));
    let (number, _) = host.numbers();
    let mut seen = host.list("pid", "processes in /proc");
    ensure!(seen.any(|line| line.starts_with(&format!("{number} "))), "the host doesn't see it");
    let facts = [
        ("uts", inside.names(), host.names()),
        ("pid", inside.processes(&host), host.number_of_other()),
        ("mnt", inside.root(), host.mounts()),
        ("user", format!("user id: {}", inside.user()), host.user_of_other()),
        ("net", inside.links(), host.links()),
        ("ipc", inside.queues(), host.queues()),
    ];
    let facts = facts.map(|(name, inside, host)| {
        let end = line_after(&told, &format!("{name} "));
        format!("{name:?}:[{end:?},{inside:?},{host:?}]")
    });
    let name = if on.is_empty() { "none".into() } else { on.join("+") };
    Ok(format!("{name:?}:{{{}}}", facts.join(",")))
}

fn line_after<'a>(text: &'a str, start: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(start)).unwrap_or("?")
}

/// What one side told: a few lines of `combine`, and a report of the probe.
struct Side<'a> {
    told: &'a str,
    report: Report,
}

impl<'a> Side<'a> {
    fn new(told: &'a str) -> Self {
        Side { told, report: parse(told) }
    }

    fn value(&self, section: &str, key: &str) -> &str {
        let line = self.report.iter().find(|line| line.0 == section && line.1 == key);
        line.map_or("?", |line| line.2.trim())
    }

    fn list(&self, section: &str, key: &str) -> impl Iterator<Item = String> {
        let items: Vec<_> = self.value(section, key).lines().map(|l| l.trim().to_owned()).collect();
        items.into_iter()
    }

    fn names(&self) -> String {
        format!("host name: {}", self.value("uts", "host name"))
    }

    /// The number of the process inside as the host counts, and in its own count if it has one.
    fn numbers(&self) -> (&str, Option<&str>) {
        let numbers = line_after(self.told, "NSpid: ");
        numbers.split_once(' ').map_or((numbers, None), |(host, own)| (host, Some(own)))
    }

    fn processes(&self, host: &Side) -> String {
        let number = host.numbers().1.unwrap_or("the host's");
        let seen: Vec<String> = self.list("pid", "processes in /proc").collect();
        // The lab's own number 1.
        let is_of_host = seen.iter().any(|line| line == "1 course");
        let seen = if is_of_host { "the host's".to_owned() } else { seen.join(", ") };
        format!("its number: {number}; processes in /proc: {seen}")
    }

    fn number_of_other(&self) -> String {
        let other = if self.numbers().1.is_some() { "another" } else { "the same" };
        format!("a process; its number: {other}")
    }

    fn root(&self) -> String {
        let entries = self.list("mnt", "entries of /").collect::<Vec<_>>().join(", ");
        let entries = if entries.contains("probe") { entries } else { "the host's".into() };
        format!("entries of /: {entries}; {}", self.mounts())
    }

    fn mounts(&self) -> String {
        let mounted = self.list("mnt", "mounts").any(|mount| mount.starts_with("/tmp/inside:"));
        format!("/tmp/inside: {}", if mounted { "a mount" } else { "no mount" })
    }

    fn user(&self) -> &str {
        self.value("user", "user ids").split(' ').next().unwrap_or_default()
    }

    fn user_of_other(&self) -> String {
        let id = line_after(self.told, "Uid: ").split(' ').next().unwrap_or_default();
        format!("its user id: {}", if id == "0" { "0" } else { "OUTSIDE" })
    }

    fn links(&self) -> String {
        let link = |line: String| match line.split(' ').next() {
            Some(name) if name.starts_with("veth") => "vethRANDOM".to_owned(),
            name => name.unwrap_or_default().to_owned(),
        };
        let links = |key| self.list("net", key).map(link).collect::<Vec<_>>().join(", ");
        format!("links: {}; in /sys: {}", links("links"), links("links in /sys"))
    }

    fn queues(&self) -> String {
        let queues = line_after(self.told, "queues ").split(' ').collect::<Vec<_>>();
        format!("queues: made {}", queues.join(", made "))
    }
}
