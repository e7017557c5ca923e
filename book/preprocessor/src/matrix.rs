//! `{{#matrix}}`: the ladder as one table: what a process sees in each step.

use anyhow::{Context as _, Result};

use crate::{block, pages::Context};

/// What the probe says of something that inside and outside have in common.
const SHARED: &str = "the host's";

/// A fact that the probe looks at, and its value in each step; none where it isn't told.
struct Row {
    section: String,
    key: String,
    values: Vec<Option<String>>,
}

/// The table, from the snapshots `stepNN-probe`.
///
/// # Errors
/// If one of them, or a step's chapter, is missing.
pub fn matrix(context: &Context) -> Result<String> {
    let workspace = context.workspace;
    let libraries = workspace.libraries()?;
    let mut rows: Vec<Row> = vec![];
    for (step, library) in libraries.iter().enumerate() {
        let seen = workspace.snapshot(&format!("{}-probe", &library.folder[..6]))?;
        for (section, key, value) in facts(&seen) {
            let at = rows.iter().position(|row| row.section == section && row.key == key);
            let at = at.unwrap_or_else(|| {
                let values = vec![None; libraries.len()];
                rows.push(Row { section, key, values });
                rows.len() - 1
            });
            rows[at].values[step] = Some(value);
        }
    }
    let (changing, same): (Vec<Row>, Vec<Row>) = rows
        .into_iter()
        .partition(|row| row.values.iter().any(|value| !is_shared(value.as_deref())));
    let heads = (1..).zip(&libraries).map(|(number, library)| head(context, number, &library.name));
    let heads = heads.collect::<Result<String>>()?;
    Ok(format!(
        "<div class=\"table-wrapper\">\n<table class=\"matrix\">\n\
         <caption>What a process sees, in each step. {LEGEND}</caption>\n\
         <thead><tr><th scope=\"col\">step</th>{heads}</tr></thead>\n{}</table>\n</div>\n\
         <p class=\"matrix-rest\">The same as outside in all steps: {}.</p>\n",
        sections(&changing, libraries.len()),
        same.iter().map(shared).collect::<Vec<_>>().join(", ")
    ))
}

/// What the signs mean.
const LEGEND: &str = "<span class=\"own changed\"><span>●</span></span> its own, new or changed in this \
    step; <span class=\"own\"><span>●</span></span> its own, as in the step before; \
    <span class=\"host\"><span>·</span></span> the host’s.";

/// The name of what is never a process's own.
fn shared(row: &Row) -> String {
    match &*row.key {
        "namespace" => format!("the {} namespace", row.section),
        key => block::escaped(key),
    }
}

fn is_shared(value: Option<&str>) -> bool {
    value.is_none_or(|value| value == SHARED)
}

/// The head of a step's column, with a link to its chapter.
fn head(context: &Context, number: usize, name: &str) -> Result<String> {
    let path = format!("step{number:02}.md");
    let page = context.pages.iter().find(|page| page.path == path);
    let link = context.link(page.with_context(|| format!("there is no page {path}"))?);
    let name = block::escaped(name);
    Ok(format!(
        "<th scope=\"col\"><a href=\"{link}\" title=\"step {number}: {name}\">{number}</a></th>"
    ))
}

/// A group of rows for each of the probe's sections.
fn sections(rows: &[Row], steps: usize) -> String {
    let mut html = String::new();
    for rows in rows.chunk_by(|one, next| one.section == next.section) {
        let section = &rows[0].section;
        let rows: String = rows.iter().map(row).collect();
        html += &format!(
            "<tbody>\n<tr class=\"section\"><th scope=\"rowgroup\" colspan=\"{}\">{section}</th></tr>\n\
             {rows}</tbody>\n",
            steps + 1
        );
    }
    html
}

fn row(row: &Row) -> String {
    let mut before: Option<&str> = Some(SHARED);
    let cells = row.values.iter().map(|value| {
        let value = value.as_deref();
        let changed = value != before;
        before = value;
        cell(value, changed)
    });
    let (cells, key) = (cells.collect::<String>(), block::escaped(&row.key));
    format!("<tr><th scope=\"row\">{key}</th>{cells}</tr>\n")
}

/// A sign, with its meaning for who can't see it and the value for who points at it.
fn cell(value: Option<&str>, changed: bool) -> String {
    let Some(own) = value.filter(|value| *value != SHARED) else {
        return "<td class=\"host\"><span aria-hidden=\"true\">·</span>\
                <span class=\"unseen\">the host’s</span></td>"
            .into();
    };
    let (class, meaning) = if changed { (" changed", "new") } else { ("", "its own") };
    format!(
        "<td class=\"own{class}\" title=\"{}\"><span aria-hidden=\"true\">●</span>\
         <span class=\"unseen\">{meaning}</span></td>",
        block::escaped(&short(own))
    )
}

/// A value, or the first of its lines.
fn short(value: &str) -> String {
    const LINES: usize = 4;
    let lines: Vec<&str> = value.lines().collect();
    match lines.len() {
        0 => "none".into(),
        many if many > LINES => format!("{}, … ({many} in all)", lines[..LINES].join(", ")),
        _ => lines.join(", "),
    }
}

/// The sections, keys and values of the probe's report.
fn facts(report: &str) -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut facts: Vec<(String, String, String)> = vec![];
    for line in report.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let (Some(item), Some(last)) = (line.strip_prefix("  "), facts.last_mut()) {
            let separator = if last.2.is_empty() { "" } else { "\n" };
            last.2 += &format!("{separator}{item}");
        } else if let Some((key, value)) = line.split_once(':') {
            facts.push((section.clone(), key.to_owned(), value.trim().to_owned()));
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::{Row, facts, row, short};

    #[test]
    fn what_is_new_is_told_from_what_was_there() {
        let values = ["the host's", "a", "a", "b"].map(|value| Some(value.to_owned())).to_vec();
        let html = row(&Row { section: "s".into(), key: "k".into(), values });
        let classes: Vec<&str> =
            html.split("<td class=\"").skip(1).filter_map(|td| td.split('"').next()).collect();
        assert_eq!(classes, ["host", "own changed", "own", "own changed"]);
    }

    #[test]
    fn long_lists_are_shortened() {
        assert_eq!(short(""), "none");
        assert_eq!(short("1\n2"), "1, 2");
        assert_eq!(short("1\n2\n3\n4\n5"), "1, 2, 3, 4, … (5 in all)");
    }

    #[test]
    fn the_report_of_the_probe_is_read() {
        let facts = facts("[a]\nname: x\nlist:\n  1\n  2: b\n[c]\nempty:\n");
        let expected = [("a", "name", "x"), ("a", "list", "1\n2: b"), ("c", "empty", "")];
        let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(facts, expected);
    }
}
