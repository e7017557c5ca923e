//! Snapshots, which the book shows as well: one file each in `tests/tests/snapshots`.

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
