//! `{{#matrix}}`: the ladder as one table: what a process sees in each step.

use anyhow::Result;

use crate::{block, workspace::Workspace};

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
/// If one of them is missing.
pub fn matrix(workspace: &Workspace) -> Result<String> {
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
    let heads = libraries.iter().enumerate().map(|(number, library)| {
        let (number, name) = (number + 1, &library.name);
        format!("<th scope=\"col\"><a href=\"step{number:02}.html\">{number}<br>{name}</a></th>")
    });
    let heads: String = heads.collect();
    Ok(format!(
        "<div class=\"table-wrapper\">\n<table class=\"matrix\">\n\
         <thead><tr><th scope=\"col\">what a process sees</th>{heads}</tr></thead>\n{}\
         </table>\n</div>\n",
        sections(&rows, libraries.len())
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
    let cells: Vec<String> = row
        .values
        .iter()
        .map(|value| {
            let value = value.as_deref();
            let changed = if value == before { "" } else { " changed" };
            before = value;
            let (class, text) = match value {
                None => ("untold", "–".to_owned()),
                Some(SHARED) => ("host", "host".to_owned()),
                Some(own) => ("own", short(own)),
            };
            format!("<td class=\"{class}{changed}\">{}</td>", block::escaped(&text))
        })
        .collect();
    let key = block::escaped(&row.key);
    format!("<tr><th scope=\"row\">{key}</th>{}</tr>\n", cells.concat())
}

/// A value, or the number of its lines.
fn short(value: &str) -> String {
    match value.lines().collect::<Vec<_>>()[..] {
        [] => "none".into(),
        [line] => line.to_owned(),
        ref lines => format!("{} of its own", lines.len()),
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
    use super::facts;

    #[test]
    fn the_report_of_the_probe_is_read() {
        let facts = facts("[a]\nname: x\nlist:\n  1\n  2: b\n[c]\nempty:\n");
        let expected = [("a", "name", "x"), ("a", "list", "1\n2: b"), ("c", "empty", "")];
        let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(facts, expected);
    }
}
