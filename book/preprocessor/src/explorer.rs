//! `{{#explorer}}`: a page on which each namespace is switched on and off.

use anyhow::Result;

use crate::workspace::Workspace;

/// The snapshot of what the probe saw with each combination of namespaces.
const COMBINATIONS: &str = "combinations";

/// The place of the explorer, with its data: `theme/explorer.js` fills it.
///
/// # Errors
/// If the snapshot is missing.
pub fn explorer(workspace: &Workspace) -> Result<String> {
    let data = serde_json::to_string(&workspace.snapshot(COMBINATIONS)?)?;
    // Nothing in it may end the element.
    let data = data.replace("</", "<\\/");
    Ok(format!(
        "<div id=\"explorer\">\n<noscript><p>The explorer needs JavaScript. All that it shows stands \
         in <code>tests/tests/snapshots/{COMBINATIONS}.snap</code>.</p></noscript>\n</div>\n\
         <script type=\"application/json\" id=\"explorer-data\">{data}</script>\n"
    ))
}
