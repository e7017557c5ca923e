//! `{{#diff 3}}`: what a step adds to the step before it.

use anyhow::{Result, ensure};
use similar::TextDiff;

use crate::{block, directive::Directive, workspace::Workspace};

/// The lines that are shown before and after a change.
const AROUND: usize = 4;

/// `{{#diff 3}}` is the difference between step 2's and step 3's `main.rs`, `{{#diff probe 3}}`
/// between what the probe saw in them. With the option `whole` all lines are shown.
///
/// # Errors
/// If there is no such step or none before it, or its snapshot is older than the sources.
pub fn diff(directive: &mut Directive, workspace: &Workspace) -> Result<String> {
    let around = if directive.option("whole") { usize::MAX / 2 } else { AROUND };
    let of_probe = directive.option("probe");
    let number = directive.take("the step's number")?;
    let after = workspace.step(&number)?;
    let before = workspace.step(&(number.parse::<usize>()? - 1).to_string())?;
    let text = match of_probe {
        true => of_probes(workspace, &before, &after, around)?,
        false => of_mains(workspace, &before, &after, around)?,
    };
    Ok(block::fenced("diff", &text))
}

fn of_mains(workspace: &Workspace, before: &str, after: &str, around: usize) -> Result<String> {
    let main = |step: &str| format!("{step}/src/main.rs");
    let (old, new) = (workspace.read(&main(before))?, workspace.read(&main(after))?);
    let snapshot = format!("{}-diff", &after[..6]);
    let tested = workspace.snapshot(&snapshot)?;
    let whole = unified(&main(before), &old, &main(after), &new, usize::MAX / 2);
    ensure!(
        whole.trim_end() == tested,
        "snapshot `{snapshot}` isn't the difference of the two programs: run the tests"
    );
    Ok(unified(&main(before), &old, &main(after), &new, around))
}

fn of_probes(workspace: &Workspace, before: &str, after: &str, around: usize) -> Result<String> {
    let seen = |step: &str| workspace.snapshot(&format!("{}-probe", &step[..6]));
    let (old, new) = (seen(before)?, seen(after)?);
    let name = |step: &str| format!("what the probe sees in {step}");
    Ok(unified(&name(before), &format!("{old}\n"), &name(after), &format!("{new}\n"), around))
}

fn unified(before: &str, old: &str, after: &str, new: &str, around: usize) -> String {
    let diff = TextDiff::from_lines(old, new);
    diff.unified_diff().context_radius(around).header(before, after).to_string()
}
