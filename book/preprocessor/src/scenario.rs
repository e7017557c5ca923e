//! `{{#test step03::mounts_stay_inside}}`: names the test that holds a claim.

use anyhow::{Result, ensure};

use crate::{
    block,
    directive::Directive,
    workspace::{Workspace, nearest},
};

/// The snapshots that list the names of all scenarios begin like this; one for each test target.
const LISTS: &str = "scenarios-";

/// `{{#test NAME}}`: a small tag in a line of text.
///
/// # Errors
/// If there is no such test.
pub fn test(directive: &mut Directive, workspace: &Workspace) -> Result<String> {
    let name = directive.take("the test's name")?;
    let mut all = vec![];
    for list in workspace.snapshots(LISTS)? {
        let names = workspace.snapshot(&list)?;
        let target = list.trim_start_matches(LISTS).to_owned();
        all.extend(names.lines().map(|name| (name.to_owned(), target.clone())));
    }
    let names: Vec<String> = all.iter().map(|(name, _)| name.clone()).collect();
    let target = all.iter().find(|(known, _)| *known == name).map(|(_, target)| target);
    ensure!(target.is_some(), "there is no test `{name}`{}", nearest(&name, &names));
    let target = target.map(String::as_str).unwrap_or_default();
    let name = block::escaped(&name);
    // A long name may be broken, but between its parts.
    let shown = name.replace("::", "::<wbr>");
    Ok(format!(
        "<span class=\"test\" title=\"A test holds this: cargo test --test {target} -- {name}\">\
         <code>{shown}</code></span>"
    ))
}
