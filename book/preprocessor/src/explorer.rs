//! `{{#explorer}}`: a page on which each namespace is switched on and off.
//!
//! A test has let one process try the same six acts with all 64 combinations of the namespaces, and
//! recorded what it and the host see: the snapshot `combinations`. Few of the six switches matter to
//! each act, so it has a handful of outcomes. All of them stand in the page, each with its condition;
//! `theme/explorer.js` shows those that the switches ask for, and without it the page lists them all.

mod when;
mod why;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

use crate::{block, workspace::Workspace};
use when::{Case, cases};

/// The snapshot of what is seen with each combination of namespaces.
const COMBINATIONS: &str = "combinations";

/// The namespaces in the order of the ladder. A combination is a number with a bit for each.
const NAMESPACES: [&str; 6] = ["uts", "pid", "mnt", "user", "net", "ipc"];

/// An act of the process inside, which one namespace decides about before all others.
struct Topic {
    namespace: &'static str,
    title: &'static str,
    act: &'static str,
    /// What the host's side shows if the act has reached it; an act without it does if it's done.
    trace: Option<&'static str>,
}

const TOPICS: [Topic; 6] = [
    Topic {
        namespace: "uts",
        title: "UTS: the host name",
        act: "It names the host `container`.",
        trace: Some("host name: container"),
    },
    Topic {
        namespace: "pid",
        title: "PID: process numbers",
        act: "It asks whether it may signal a process of the host, by the number that the host knows.",
        trace: None,
    },
    Topic {
        namespace: "mnt",
        title: "Mount: the file system",
        act: "It mounts a file system at `/tmp/inside`.",
        trace: Some("/tmp/inside: a mount"),
    },
    Topic {
        namespace: "user",
        title: "User: ids and rights",
        act: "It reads a file that the host’s root alone may read.",
        trace: None,
    },
    Topic {
        namespace: "net",
        title: "Network: links and addresses",
        act: "It finds the end of a cable, `eth0`, and gives it an address.",
        trace: Some("links: eth0"),
    },
    Topic {
        namespace: "ipc",
        title: "IPC: message queues",
        act: "It makes a message queue, and opens one that the host has made.",
        trace: Some("made inside"),
    },
];

/// Whom an act of the process inside concerns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    Reaches,
    Stays,
    Refused,
}

impl Effect {
    /// The class of its element, and its words.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Effect::Reaches => ("reaches", "reaches the host"),
            Effect::Stays => ("stays", "stays inside"),
            Effect::Refused => ("refused", "is refused"),
        }
    }
}

/// How an act ended, what is seen inside, and what the host sees.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    end: String,
    inside: String,
    host: String,
}

/// Something that can come of an act.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Outcome {
    effect: Effect,
    seen: Seen,
    why: String,
}

/// The page's switches, and below each what comes of it.
///
/// # Errors
/// If the snapshot is missing, or lacks a combination.
pub fn explorer(workspace: &Workspace) -> Result<String> {
    let record = Record::parse(&workspace.snapshot(COMBINATIONS)?)?;
    let topics = TOPICS.iter().map(|topic| shown(topic, &record)).collect::<Result<String>>()?;
    Ok(block::without_empty_lines(&format!(
        "<div class=\"explorer\" id=\"explorer\">\n\
         <div class=\"presets\" role=\"group\" aria-label=\"Several at once\" hidden>\
         <button type=\"button\" value=\"\">none</button>{}\
         <button type=\"button\" value=\"{}\">step 6: all</button></div>\n\
         <p class=\"summary\" role=\"status\" aria-live=\"polite\" hidden></p>\n\
         <div class=\"topics\" role=\"group\" aria-label=\"Namespaces of its own\">\n{topics}</div>\n</div>",
        presets(),
        NAMESPACES.join(" "),
    )))
}

/// A button for each rung of the ladder.
fn presets() -> String {
    let rung = |number: usize| {
        let on = NAMESPACES[..number].join(" ");
        format!("<button type=\"button\" value=\"{on}\">step {number}</button>")
    };
    (1..NAMESPACES.len()).map(rung).collect()
}

/// All combinations, by their numbers.
struct Record(Vec<BTreeMap<String, Seen>>);

impl Record {
    fn parse(json: &str) -> Result<Self> {
        let all: BTreeMap<String, BTreeMap<String, [String; 3]>> =
            serde_json::from_str(json).with_context(|| format!("snapshot `{COMBINATIONS}`"))?;
        let one = |number| {
            let name = name_of(number);
            let topics = all.get(&name).with_context(|| format!("there is no `{name}`"))?;
            let seen = topics.iter().map(|(topic, [end, inside, host])| {
                let (end, inside, host) = (end.clone(), inside.clone(), host.clone());
                (topic.clone(), Seen { end, inside, host })
            });
            Ok(seen.collect())
        };
        Ok(Record((0..64).map(one).collect::<Result<_>>()?))
    }

    fn seen(&self, number: usize, topic: &Topic) -> Result<&Seen> {
        let seen = self.0[number].get(topic.namespace);
        seen.with_context(|| format!("`{}` lacks `{}`", name_of(number), topic.namespace))
    }

    fn outcome(&self, number: usize, topic: &Topic) -> Result<Outcome> {
        let seen = self.seen(number, topic)?.clone();
        let effect = match &*seen.end {
            "EPERM" | "EACCES" => Effect::Refused,
            "done" if topic.trace.is_none_or(|trace| seen.host.contains(trace)) => Effect::Reaches,
            "done" | "ESRCH" | "ENOENT" => Effect::Stays,
            end => anyhow::bail!("`{}`: {} ended with {end}", name_of(number), topic.namespace),
        };
        Ok(Outcome { effect, why: why::why(topic.namespace, effect, &seen), seen })
    }
}

/// The name of a combination in the snapshot: `uts+pid`.
fn name_of(number: usize) -> String {
    let on = NAMESPACES.iter().enumerate().filter(|(bit, _)| number >> bit & 1 == 1);
    let on: Vec<&str> = on.map(|(_, name)| *name).collect();
    if on.is_empty() { "none".into() } else { on.join("+") }
}

/// A switch, the act that it decides about, and all that can come of it.
fn shown(topic: &Topic, record: &Record) -> Result<String> {
    let Topic { namespace, title, act, .. } = topic;
    let all = (0..64).map(|number| record.outcome(number, topic)).collect::<Result<Vec<_>>>()?;
    let none = &all[0].seen;
    let distinct: BTreeSet<&Outcome> = all.iter().collect();
    ensure!(distinct.len() > 1, "nothing changes `{namespace}`");
    let mut outcomes: Vec<(Vec<Case>, &Outcome)> = distinct
        .into_iter()
        .map(|outcome| (cases(|number| all[number] == *outcome), outcome))
        .collect();
    outcomes.sort_by(|one, other| one.0.cmp(&other.0));
    let outcomes: String =
        outcomes.iter().map(|(cases, outcome)| outcome_html(cases, outcome, none)).collect();
    Ok(format!(
        "<section class=\"topic\" aria-labelledby=\"explorer-{namespace}\">\n\
         <p class=\"topic-title\"><label><input type=\"checkbox\" value=\"{namespace}\" hidden> \
         <span id=\"explorer-{namespace}\">{title}</span></label></p>\n\
         <p class=\"act\">{}</p>\n{outcomes}</section>\n",
        block::html(act)
    ))
}

fn outcome_html(cases: &[Case], outcome: &Outcome, none: &Seen) -> String {
    let Outcome { effect, seen, why } = outcome;
    let (class, words) = effect.names();
    let when: Vec<String> = cases.iter().map(Case::code).collect();
    let conditions: Vec<String> = cases.iter().map(Case::words).collect();
    let end = match &*seen.end {
        "done" => String::new(),
        errno => format!(" <code>{errno}</code>"),
    };
    format!(
        "<div class=\"outcome {class}\" data-when=\"{}\">\n\
         <p class=\"condition\">{}</p>\n\
         <p class=\"effect\"><strong>{words}</strong>{end}</p>\n\
         <dl>{}{}</dl>\n<p class=\"why\">{}</p>\n</div>\n",
        when.join("|"),
        conditions.join("; or "),
        side("the process sees", &seen.inside, &none.inside),
        side("the host sees", &seen.host, &none.host),
        block::html(why)
    )
}

/// What one side sees, a line for each fact. What is another without namespaces is marked.
fn side(title: &str, seen: &str, without: &str) -> String {
    let without: Vec<&str> = without.split("; ").collect();
    let facts = seen.split("; ").map(|fact| {
        let (key, value) = fact.split_once(": ").unwrap_or(("", fact));
        let key = if key.is_empty() { String::new() } else { format!("{}: ", block::escaped(key)) };
        let value = block::escaped(&value.replace("RANDOM", "…").replace("OUTSIDE", "100000"));
        match without.contains(&fact) {
            true => format!("<dd>{key}<span>{value}</span></dd>"),
            false => format!("<dd class=\"changed\">{key}<mark>{value}</mark></dd>"),
        }
    });
    format!("<div><dt>{title}</dt>{}</div>", facts.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::{Record, TOPICS, name_of, shown, side};

    /// A record in which every act ends with `end`, but with `done` where no namespace is on.
    fn record(end: &str) -> String {
        let one = |number| {
            let end = if number == 0 { "done" } else { end };
            let topic = |name| format!("\"{name}\":[\"{end}\",\"a: b\",\"its user id: 0\"]");
            let topics: Vec<String> = super::NAMESPACES.map(topic).to_vec();
            format!("\"{}\":{{{}}}", name_of(number), topics.join(","))
        };
        format!("{{{}}}", (0..64).map(one).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn an_outcome_stands_with_its_cases() {
        let pid = &TOPICS[1];
        let html = shown(pid, &Record::parse(&record("EPERM")).unwrap()).unwrap();
        let none = "class=\"outcome reaches\" data-when=\"-uts -pid -mnt -user -net -ipc\"";
        assert!(html.contains(none), "{html}");
        let others = "class=\"outcome refused\" data-when=\"+uts|+pid|+mnt|+user|+net|+ipc\"";
        assert!(html.contains(others), "{html}");
        assert!(html.contains("<code>EPERM</code>"), "{html}");
    }

    #[test]
    fn a_record_with_a_hole_is_none() {
        let hole = record("EPERM").replace("uts+net", "uts+nothing");
        assert!(Record::parse(&hole).err().unwrap().to_string().contains("uts+"));
        let strange = Record::parse(&record("EBUSY")).unwrap();
        assert!(shown(&TOPICS[1], &strange).err().unwrap().to_string().contains("EBUSY"));
        let dull = Record::parse(&record("done")).unwrap();
        assert!(shown(&TOPICS[1], &dull).err().unwrap().to_string().contains("nothing changes"));
    }

    #[test]
    fn what_differs_is_marked() {
        let html = side("it sees", "links: lo; name: RANDOM", "links: lo; name: x");
        assert!(html.contains("<dd>links: <span>lo</span></dd>"), "{html}");
        assert!(html.contains("<dd class=\"changed\">name: <mark>…</mark></dd>"), "{html}");
    }
}
