//! Snapshots, which the book shows as well: one file each in `tests/tests/snapshots`.

use tests::scenario::{HERE, Scenario};

/// Demands that `text` is what the snapshot `name` holds.
///
/// All places of a scenario share its snapshot: the output is to be the same everywhere.
pub fn check(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// Adds a scenario to those of the test program `target` that holds the list of their names: the
/// book names the test of a claim, and is not to name one that is no more.
pub fn with_list(target: &'static str, mut scenarios: Vec<Scenario>) -> Vec<Scenario> {
    let names: Vec<&str> = scenarios.iter().map(Scenario::name).collect();
    let list = names.join("\n");
    scenarios.push(Scenario::new("scenarios", HERE, move || {
        check(&format!("scenarios-{target}"), &list);
        Ok(())
    }));
    scenarios
}
