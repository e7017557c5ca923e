//! Turns what a program prints into what can be a snapshot: the same on every machine.

use std::fmt::Write as _;

use crate::programs;

/// A report of the probe: section, key and value (a list has a line for each item).
pub type Report = Vec<(String, String, String)>;

/// What a process inside sees that is its own. What it has in common with the host, whose report
/// is given too, is said to be "the host's": so two snapshots differ in their concept alone.
pub fn seen_inside(host: &str, inside: &str) -> String {
    let (host, inside) = (parse(host), parse(inside));
    let mut text = String::new();
    let mut last = "";
    let mut net = Addresses::new(&["CONTAINER-END", "HOST-END", "NETWORK"]);
    for (section, key, value) in &inside {
        if section != last {
            let _ = writeln!(text, "[{section}]");
            last = section;
        }
        let at_host = host.iter().find(|(s, k, _)| (s, k) == (section, key)).map(|line| &line.2);
        // Whoever starts the tests may have more files open than a program inside.
        let comparable = key != "open files";
        let same = match key.as_str() {
            // Not every host shows its queues: whether they are the same says the place to look.
            "POSIX message queues" => same_place_to_look(&inside, &host),
            _ => {
                comparable && at_host == Some(value)
                    || is_of_host(section, key, value, &inside, &host)
            }
        };
        let value = match key.as_str() {
            _ if same => " the host's".to_owned(),
            "namespace" | "groups" => " its own".to_owned(),
            "processes in /proc" => value.lines().map(name_init).collect(),
            "addresses" | "routes" => net.shown(value),
            "my number in /proc" => number_in_proc(value, &inside),
            "mounts" => own_mounts(value, at_host),
            "uid_map" | "gid_map" => shown_map(value),
            _ => value.clone(),
        };
        let _ = writeln!(text, "{key}:{value}");
    }
    text
}

/// Whether a value that never stays the same is the host's nevertheless.
fn is_of_host(section: &str, key: &str, value: &str, inside: &Report, host: &Report) -> bool {
    match key {
        "processes in /proc" => value.contains(" ladder"),
        "my number" | "my parent's number" | "my number in /proc" => {
            namespace(inside, section) == namespace(host, section)
        }
        _ => false,
    }
}

/// Whether both see the same `/dev/mqueue`, if there is one.
fn same_place_to_look(inside: &Report, host: &Report) -> bool {
    namespace(inside, "mnt") == namespace(host, "mnt")
}

/// The namespace that a section is about.
fn namespace<'a>(report: &'a Report, section: &str) -> Option<&'a str> {
    let line = report.iter().find(|line| line.0 == section && line.1 == "namespace")?;
    Some(&line.2)
}

/// How /proc counts this process. If it's the host's, then by a number that means nothing here.
fn number_in_proc(value: &str, inside: &Report) -> String {
    let own = inside.iter().find(|line| line.1 == "my number").map(|line| &*line.2);
    match own == Some(value) {
        true => " the same".into(),
        false => " another, as /proc is another PID namespace's".into(),
    }
}

/// The mounts without those that came along with the host's /sys.
fn own_mounts(value: &str, at_host: Option<&String>) -> String {
    let point = |line: &str| line.trim().split(": ").next().unwrap_or_default().to_owned();
    let of_host: Vec<String> =
        at_host.into_iter().flat_map(|text| text.lines()).map(point).collect();
    let mut lines: Vec<&str> = value.lines().collect();
    let all = lines.len();
    lines.retain(|line| !(point(line).starts_with("/sys/") && of_host.contains(&point(line))));
    if lines.len() == all {
        return value.to_owned();
    }
    lines.retain(|line| point(line) != "/sys");
    lines.join("\n") + "\n  /sys and below: what the host has there"
}

/// A map without the ids outside, which depend on who runs it.
fn shown_map(value: &str) -> String {
    let line = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [inside, _outside, _count] => format!("\n  {inside} OUTSIDE COUNT"),
        _ => line.to_owned(),
    };
    value.lines().map(line).collect()
}

/// Takes a report apart.
pub fn parse(report: &str) -> Report {
    let mut section = String::new();
    let mut lines: Report = vec![];
    for line in report.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let (true, Some(last)) = (line.starts_with("  "), lines.last_mut()) {
            last.2.push('\n');
            last.2.push_str(line);
        } else if let Some((key, value)) = line.split_once(':') {
            lines.push((section.clone(), key.to_owned(), value.to_owned()));
        }
    }
    lines
}

/// Takes the machine's paths, and what `more` names, out of a text.
pub fn normalise(text: &str, more: &[(&str, &str)]) -> String {
    let bin_dir = programs::bin_dir().display().to_string();
    let workspace = programs::workspace().display().to_string();
    let common = [(&*bin_dir, "BIN"), (&*workspace, "WORKSPACE")];
    let all = more.iter().chain(&common).filter(|(value, _)| !value.is_empty());
    all.fold(text.to_owned(), |text, (value, name)| text.replace(value, name))
}

/// The story that `--explain` tells, without what belongs to this machine and this run: process
/// numbers, the addresses of a cable, the place of the cache and of this machine's own group.
pub fn story(text: &str) -> String {
    neutral(text, &[], mask_numbers)
}

/// What commands print that a transcript shows, without what belongs to this machine and this run;
/// `more` names what else is to be replaced.
pub fn transcript(text: &str, more: &[(&str, &str)]) -> String {
    lettered(&neutral(text, more, str::to_owned))
}

fn neutral(text: &str, more: &[(&str, &str)], mask: fn(&str) -> String) -> String {
    let own_group = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut groups: Vec<&str> = own_group
        .lines()
        .filter_map(|line| line.rsplit(':').next())
        .filter(|g| *g != "/")
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    let groups = groups.iter().map(|group| (*group, ""));
    let mut text = normalise(text, &more.iter().copied().chain(groups).collect::<Vec<_>>());
    text = without_chance(&text);
    let lines = text.split_inclusive('\n').map(|line| mask(&shorten_root(line)));
    Addresses::new(&["HOST-END", "CONTAINER-END"]).shown(&lines.collect::<String>())
}

/// Takes the numbers of processes, and the names that are chosen by chance, out of a text.
pub fn without_chance(text: &str) -> String {
    let is_digit = |c: char| c.is_ascii_hexdigit();
    let names = ["veth", "step06-", "step07-", "step08-"];
    names.iter().fold(without_pids(text), |text, before| {
        replace_digits(&text, before, "RANDOM", is_digit, 10)
    })
}

/// Writes letters for the numbers of namespaces, in the order in which they appear: so one sees
/// which are the same. `uts:[4026531838]` becomes `uts:[A]`.
fn lettered(text: &str) -> String {
    let mut known: Vec<&str> = vec![];
    let mut parts = text.split(":[");
    let mut lettered = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        lettered += ":[";
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        let number = &part[..part.len() - rest.len()];
        if number.is_empty() || !rest.starts_with(']') {
            lettered += part;
            continue;
        }
        let at = known.iter().position(|known| *known == number).unwrap_or_else(|| {
            known.push(number);
            known.len() - 1
        });
        lettered.push(char::from(b'A' + u8::try_from(at % 26).unwrap_or_default()));
        lettered += rest;
    }
    lettered
}

/// Takes the numbers of processes out of a text, but for number 1, which isn't chosen by chance.
pub fn without_pids(text: &str) -> String {
    let is_digit = |c: char| c.is_ascii_digit();
    let init = text.replace("/proc/1/", "/proc/INIT/");
    let text =
        replace_digits(&init, "/proc/", "PID", is_digit, 1).replace("/proc/INIT/", "/proc/1/");
    replace_digits(&text, "netns ", "PID", is_digit, 1)
}

/// Writes `name` for the digits that follow each `before`, if there are at least so many.
fn replace_digits(
    text: &str,
    before: &str,
    name: &str,
    is_digit: fn(char) -> bool,
    least: usize,
) -> String {
    let mut parts = text.split(before);
    let mut replaced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(is_digit);
        let found = part.len() - rest.len() >= least;
        replaced += before;
        replaced += if found { name } else { &part[..part.len() - rest.len()] };
        replaced += rest;
    }
    replaced
}

/// Writes ROOT for the path of a root file system in the cache.
fn shorten_root(line: &str) -> String {
    let shorten = |quoted: &str| match quoted.split_once("/rootfs-") {
        Some((_cache, path)) => match path.split_once("/root") {
            Some((_key, inside)) => format!("ROOT{inside}"),
            None => quoted.to_owned(),
        },
        None => quoted.to_owned(),
    };
    line.split('"').map(shorten).collect::<Vec<_>>().join("\"")
}

/// The program that is process number 1 is the step itself, which has a name of its own each time.
fn name_init(line: &str) -> String {
    match line {
        "" => String::new(),
        line if line.starts_with("  1 ") => "\n  1 (the step)".to_owned(),
        line => format!("\n{line}"),
    }
}

/// Writes N for the numbers in what a step says beside its story.
fn mask_numbers(line: &str) -> String {
    if line.trim_start().starts_with(|c: char| c.is_ascii_digit()) {
        return line.to_owned();
    }
    let mut masked = line.replace(|c: char| c.is_ascii_digit(), "N").replace("N.N", "N");
    while masked.contains("NN") {
        masked = masked.replace("NN", "N").replace("N.N", "N");
    }
    masked
}

/// The names for the addresses of a cable, which differ each time: in the order they appear.
struct Addresses<'a> {
    names: &'a [&'a str],
    known: Vec<String>,
}

impl<'a> Addresses<'a> {
    fn new(names: &'a [&'a str]) -> Self {
        Addresses { names, known: vec![] }
    }

    /// A text with names for addresses.
    fn shown(&mut self, text: &str) -> String {
        let is_address = |c: char| c == '.' || c.is_ascii_digit();
        let mut parts = text.split("10.213.");
        let mut shown = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let length = part.find(|c| !is_address(c)).unwrap_or(part.len());
            let (address, rest) = part.split_at(length);
            let known = self.known.iter().position(|known| known == address);
            let number = known.unwrap_or_else(|| {
                self.known.push(address.to_owned());
                self.known.len() - 1
            });
            shown += self.names.get(number).unwrap_or(&"ANOTHER");
            shown += rest;
        }
        // The kernel makes up a link-local address by chance, and a moment after the link is up.
        let lines = shown.split('\n').filter(|line| !line.contains(" fe80:"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::seen_inside;

    #[test]
    fn only_what_differs_is_told() {
        let host = "[a]\nnamespace: x:[1]\nname: host\nlist:\n  1\n  2\n";
        let inside = "[a]\nnamespace: x:[2]\nname: host\nlist:\n  1\n  3\n";
        let expected = "[a]\nnamespace: its own\nname: the host's\nlist:\n  1\n  3\n";
        assert_eq!(seen_inside(host, inside), expected);
    }

    #[test]
    fn a_transcript_is_the_same_for_all() {
        let printed = "uts:[4026531838] uts:[77] uts:[4026531838] [x:[y\nveth0a1b2c3d4e 7 secret";
        let expected = "uts:[A] uts:[B] uts:[A] [x:[y\nvethRANDOM 7 WORD";
        assert_eq!(super::transcript(printed, &[("secret", "WORD")]), expected);
    }

    #[test]
    fn a_story_is_the_same_for_all() {
        let told =
            "1 write(\"/proc/77/uid_map\") \"/c/rootfs-1a/root/dev\" veth0a1b2c3d4e 10.213.0.9/30";
        let expected = "1 write(\"/proc/PID/uid_map\") \"ROOT/dev\" vethRANDOM HOST-END/30";
        assert_eq!(super::story(told), expected);
    }
}
