//! `{{#snapshot NAME}}` and `{{#transcript NAME}}`: what a tested program printed.

use anyhow::{Context, Result};

use crate::{block, directive::Directive, workspace::Workspace};

/// `{{#snapshot step03-explain from "clone3" to "execve"}}`: whole lines of a snapshot.
///
/// # Errors
/// If there is no such snapshot, or no line with one of the texts.
pub fn snapshot(directive: &mut Directive, workspace: &Workspace) -> Result<String> {
    Ok(block::fenced("text", &lines(directive, workspace, "")?))
}

/// `{{#transcript step03-surprise}}`: commands that a test has run, and what they printed.
///
/// # Errors
/// As [`snapshot`].
pub fn transcript(directive: &mut Directive, workspace: &Workspace) -> Result<String> {
    Ok(block::fenced("console", &lines(directive, workspace, "transcript-")?))
}

fn lines(directive: &mut Directive, workspace: &Workspace, kind: &str) -> Result<String> {
    let from = directive.option_with_text("from")?;
    let to = directive.option_with_text("to")?;
    let name = directive.take("the snapshot's name")?;
    let text = workspace.snapshot(&format!("{kind}{name}"))?;
    cut(&text, from.as_deref(), to.as_deref())
}

/// The lines from the first with the text `from` to the next with the text `to`, both included.
fn cut(text: &str, from: Option<&str>, to: Option<&str>) -> Result<String> {
    let lines: Vec<&str> = text.lines().collect();
    let position = |of: &str, after: usize| {
        let found = lines.iter().skip(after).position(|line| line.contains(of));
        found.map(|at| at + after).with_context(|| format!("no line has `{of}` in it"))
    };
    let first = from.map_or(Ok(0), |text| position(text, 0))?;
    let last = to.map_or(Ok(lines.len().saturating_sub(1)), |text| position(text, first))?;
    Ok(lines[first..=last].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn whole_lines_are_cut() {
        let text = "1 a\n2 b\n3 a\n4 c";
        assert_eq!(cut(text, None, None).unwrap(), text);
        assert_eq!(cut(text, Some("b"), None).unwrap(), "2 b\n3 a\n4 c");
        assert_eq!(cut(text, Some("b"), Some("a")).unwrap(), "2 b\n3 a");
        assert_eq!(cut(text, Some("b"), Some("b")).unwrap(), "2 b");
        assert!(cut(text, Some("d"), None).is_err());
        assert!(cut(text, Some("c"), Some("b")).is_err());
    }
}
