//! A student's workspace, made out of the reference: the exercises' solutions are left out.
//!
//! Nothing in the reference's sources marks what is to go. The manifest names functions, and
//! [`book::source`] finds them, so that what is cut is what the book shows.

use std::{
    collections::BTreeMap,
    fs,
    ops::{Range, RangeInclusive},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use ::tests::{
    exercises::{self, Exercise, Id, Manifest},
    programs::STEPS,
};
use anyhow::{Context, Result, bail, ensure};
use book::source;

/// What of the workspace a student gets, beside the steps: the rest is the instructor's, or made.
const SHARED: [&str; 8] = [
    ".cargo",
    ".gitignore",
    ".rustfmt.toml",
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "book",
    "tests",
];

/// Files and folders of that which are left out: what was built, and what tells solutions.
const LEFT_OUT: [&str; 3] = ["tests/mutants", "book/book", "target"];

/// A workspace's files, by their paths in it.
pub struct Tree {
    files: BTreeMap<PathBuf, File>,
    /// What was cut, for [`leaks`](Tree::leaks).
    cut: Vec<Cut>,
}

struct File {
    bytes: Vec<u8>,
    mode: u32,
}

/// A body that a starter hasn't got.
struct Cut {
    exercise: Id,
    body: String,
}

/// Makes the starter of the reference at `root`, with the exercises of `steps`. What comes before
/// them stays solved, what comes after them is left out.
pub fn make(root: &Path, steps: &RangeInclusive<usize>) -> Result<Tree> {
    let manifest = Manifest::read(root)?;
    ensure!(!manifest.starter, "this is a starter already; make one from the reference");
    let chosen = |exercise: &&Exercise| steps.contains(&exercise.id.step);
    let chosen: Vec<&Exercise> = manifest.exercises.iter().filter(chosen).collect();
    let mut tree = Tree::read(root, *steps.end())?;
    for exercise in &chosen {
        for patch in &exercise.swap {
            let patch = fs::read_to_string(root.join(patch)).with_context(|| patch.clone())?;
            tree.patch(&patch).with_context(|| format!("exercise {}", exercise.id))?;
        }
    }
    tree.cut(&chosen)?;
    for exercise in &chosen {
        for file in &exercise.blank {
            tree.blank(Path::new(file)).with_context(|| format!("exercise {}", exercise.id))?;
        }
    }
    tree.rewrite_manifest(&chosen)?;
    tree.rewrite_workspace(*steps.end())?;
    tree.without_told_snapshots();
    Ok(tree)
}

impl Tree {
    /// Reads what a student gets of the workspace at `root`, with the steps up to `last`.
    pub fn read(root: &Path, last: usize) -> Result<Self> {
        let mut tree = Tree { files: BTreeMap::new(), cut: vec![] };
        let steps = STEPS.iter().take(last).copied();
        let end = (last == STEPS.len()).then_some("final");
        for part in SHARED.into_iter().chain(steps).chain(end) {
            tree.add(root, Path::new(part))?;
        }
        Ok(tree)
    }

    fn add(&mut self, root: &Path, part: &Path) -> Result<()> {
        let path = root.join(part);
        let name = part.file_name().unwrap_or_default().to_string_lossy();
        // What editors, patches and insta leave behind may hold a solution.
        let remains = ["~", ".orig", ".rej", ".swp", ".snap.new"];
        let skip = LEFT_OUT.iter().any(|out| part.ends_with(out));
        if skip || remains.iter().any(|end| name.ends_with(end)) {
            return Ok(());
        }
        let data = path.symlink_metadata().with_context(|| format!("no {}", path.display()))?;
        if data.is_dir() {
            for entry in fs::read_dir(&path)? {
                self.add(root, &part.join(entry?.file_name()))?;
            }
        } else if data.is_file() {
            let file = File { bytes: fs::read(&path)?, mode: data.permissions().mode() };
            self.files.insert(part.to_owned(), file);
        }
        Ok(())
    }

    /// Keeps some files only.
    pub fn retain(&mut self, keep: impl Fn(&Path) -> bool) {
        self.files.retain(|path, _| keep(path));
    }

    /// Puts the files of a folder over those that are here.
    pub fn overlay(&mut self, folder: &Path) -> Result<()> {
        let mut over = Tree { files: BTreeMap::new(), cut: vec![] };
        for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            over.add(folder, Path::new(&entry?.file_name()))?;
        }
        self.files.append(&mut over.files);
        Ok(())
    }

    /// A number that changes with any of the files, and with `more`.
    pub fn fingerprint(&self, more: &[u8]) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hash = DefaultHasher::new();
        more.hash(&mut hash);
        self.files.iter().for_each(|(path, file)| (path, &file.bytes).hash(&mut hash));
        hash.finish()
    }

    /// Makes the folder `to` hold these files and no others, but for the folders in `besides`. What
    /// is the same stays untouched, so that nothing is built in vain.
    pub fn sync(&self, to: &Path, besides: &[&str]) -> Result<()> {
        let mut old = Tree { files: BTreeMap::new(), cut: vec![] };
        for entry in fs::read_dir(to)? {
            let name = entry?.file_name();
            if !besides.iter().any(|other| name == **other) {
                old.add(to, Path::new(&name))?;
            }
        }
        for path in old.files.keys().filter(|path| !self.files.contains_key(*path)) {
            fs::remove_file(to.join(path))?;
        }
        let same = |path: &PathBuf, file: &File| {
            old.files.get(path).is_some_and(|before| before.bytes == file.bytes)
        };
        let changed = self.files.iter().filter(|(path, file)| !same(path, file));
        changed.into_iter().try_for_each(|(path, file)| write(to, path, file))
    }

    /// Writes it all into the folder `to`.
    pub fn write(&self, to: &Path) -> Result<()> {
        self.files.iter().try_for_each(|(path, file)| write(to, path, file))
    }

    fn text(&self, path: &Path) -> Result<&str> {
        let file = self.files.get(path).with_context(|| format!("no file {}", path.display()))?;
        str::from_utf8(&file.bytes).with_context(|| format!("{} is no text", path.display()))
    }

    fn set(&mut self, path: &Path, text: String) {
        let mode = self.files.get(path).map_or(0o644, |file| file.mode);
        self.files.insert(path.to_owned(), File { bytes: text.into_bytes(), mode });
    }

    /// Applies a patch, as `diff -u` and `git diff` write them.
    pub fn patch(&mut self, patch: &str) -> Result<()> {
        for (path, text) in apply(patch, |path| self.text(path).map(str::to_owned))? {
            self.set(&path, text);
        }
        Ok(())
    }

    /// Leaves out the bodies of the functions that the exercises name.
    fn cut(&mut self, exercises: &[&Exercise]) -> Result<()> {
        let mut files: BTreeMap<PathBuf, Vec<(Range<usize>, String, Id)>> = BTreeMap::new();
        for exercise in exercises {
            let what = format!("exercise {}: {}", exercise.id, exercise.title);
            for (file, item) in exercise.cuts()? {
                let text = self.text(file)?;
                let bodies = bodies(text, item)
                    .with_context(|| format!("exercise {} in {}", exercise.id, file.display()))?;
                let cuts = files.entry(file.to_owned()).or_default();
                for body in bodies {
                    let stub = stub(text, &body, &what);
                    cuts.push((body, stub, exercise.id));
                }
            }
        }
        for (file, mut cuts) in files {
            let mut text = self.text(&file)?.to_owned();
            // From the last to the first, so that the places of those before stay what they are.
            cuts.sort_by_key(|(body, ..)| std::cmp::Reverse(body.start));
            for (body, stub, exercise) in cuts {
                let body = text.get(body.clone()).map(|old| (body, old.to_owned()));
                let (range, body) = body.context("two exercises cut the same function")?;
                text.replace_range(range, &stub);
                self.cut.push(Cut { exercise, body });
            }
            self.set(&file, text);
        }
        Ok(())
    }

    /// Empties a file of answers.
    fn blank(&mut self, file: &Path) -> Result<()> {
        let text = self.text(file)?;
        let empty = if file.extension().is_some_and(|ext| ext == "toml") {
            without_answers(text)
        } else {
            header(text)
        };
        self.set(file, empty);
        Ok(())
    }

    fn rewrite_manifest(&mut self, chosen: &[&Exercise]) -> Result<()> {
        let exercises =
            chosen.iter().map(|&exercise| Exercise { swap: vec![], ..exercise.clone() }).collect();
        let text = toml::to_string_pretty(&Manifest { starter: true, exercises })?;
        let head = "# What there is to solve. `cargo course check` reads it.\n\n";
        self.set(Path::new(exercises::FILE), format!("{head}{text}"));
        Ok(())
    }

    /// Takes out the members that aren't there, and quiets what a cut body makes useless.
    fn rewrite_workspace(&mut self, last: usize) -> Result<()> {
        let root = Path::new("Cargo.toml");
        let left_out = |line: &str| {
            let name = line.trim().trim_matches(['"', ',']);
            let step = STEPS.iter().position(|step| *step == name);
            step.is_some_and(|n| n >= last) || (name == "final" && last < STEPS.len())
        };
        let kept = self.text(root)?.lines().filter(|line| !left_out(line));
        let text = kept.map(|line| format!("{line}\n")).collect::<String>();
        let lints = "[workspace.lints.rust]\n";
        let (before, after) = text.split_once(lints).context("Cargo.toml has no lints")?;
        let quiet = "# A function that is still to be written doesn't use its imports, nor its arguments. Take \
                     this\n# line out when all is solved.\nunused = { level = \"allow\", priority = -1 }\n";
        self.set(root, format!("{before}{lints}{quiet}{after}"));
        Ok(())
    }

    /// Leaves out the snapshots that tell what was cut: differences between neighbouring mains.
    fn without_told_snapshots(&mut self) {
        let told: Vec<PathBuf> = self.leaks().into_iter().map(|(path, _)| path).collect();
        for path in told.iter().filter(|path| path.extension().is_some_and(|ext| ext == "snap")) {
            self.files.remove(path);
        }
    }

    /// Where what was cut can still be read, and of which exercise it is the solution.
    pub fn leaks(&self) -> Vec<(PathBuf, Id)> {
        let mut found = vec![];
        // The last hint may nearly tell; whoever asks for it knows.
        let hints = Path::new(exercises::FILE);
        for (path, file) in self.files.iter().filter(|(path, _)| *path != hints) {
            let Ok(text) = str::from_utf8(&file.bytes) else { continue };
            let text = squeezed(text);
            let tells = |cut: &&Cut| tells(&text, &cut.body);
            found.extend(self.cut.iter().filter(tells).map(|cut| (path.clone(), cut.exercise)));
        }
        found.dedup();
        found
    }
}

fn write(to: &Path, path: &Path, file: &File) -> Result<()> {
    let path = to.join(path);
    let folder = path.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    fs::write(&path, &file.bytes).with_context(|| path.display().to_string())?;
    Ok(fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?)
}

/// Gives what a patch makes of its files: the path of each, and its new text.
pub fn apply(
    patch: &str,
    read: impl Fn(&Path) -> Result<String>,
) -> Result<Vec<(PathBuf, String)>> {
    let starts: Vec<usize> = patch
        .match_indices("--- ")
        .map(|(at, _)| at)
        .filter(|at| *at == 0 || patch[..*at].ends_with('\n'))
        .collect();
    ensure!(!starts.is_empty(), "there is no difference in this patch");
    let ends = starts.iter().skip(1).copied().chain([patch.len()]);
    let mut changed = vec![];
    for (start, end) in starts.iter().copied().zip(ends) {
        let part = &patch[start..end];
        // What git writes between two files isn't a part of either.
        let part =
            part.split("\ndiff --git ").next().map(|p| format!("{}\n", p.trim_end_matches('\n')));
        let part = part.unwrap_or_default();
        let change = diffy::Patch::from_str(&part).context("this is no patch")?;
        let name = change.modified().or(change.original()).unwrap_or_default();
        let name = name.split('\t').next().unwrap_or_default();
        let path = PathBuf::from(name.strip_prefix("b/").unwrap_or(name));
        let text = diffy::apply(&read(&path)?, &change)
            .with_context(|| format!("the patch doesn't fit {} any more", path.display()))?;
        changed.push((path, text));
    }
    Ok(changed)
}

/// The bodies of a function, or of all functions of a block.
fn bodies(text: &str, name: &str) -> Result<Vec<Range<usize>>> {
    let found = source::find(text, name)?;
    let inside = |item: &source::Item| {
        item.range.start >= found.range.start && item.range.end <= found.range.end
    };
    let functions = source::items(text)?.into_iter().filter(|item| item.function && inside(item));
    let bodies: Vec<Range<usize>> = functions.filter_map(|item| item.body).collect();
    if bodies.is_empty() {
        bail!("`{name}` has no body to cut");
    }
    Ok(bodies)
}

/// What stands in the place of a body.
fn stub(text: &str, body: &Range<usize>, what: &str) -> String {
    let line = text[..body.start].rfind('\n').map_or(0, |at| at + 1);
    // The signature may have several lines; the closing brace stands where the item begins.
    let closing = text[..body.end].rfind('\n').map_or(line, |at| at + 1).max(line);
    let indent: String = text[closing..].chars().take_while(|c| *c == ' ').collect();
    let what = what.escape_debug().to_string().replace('{', "{{").replace('}', "}}");
    format!("{{\n{indent}    todo!(\"{what}\")\n{indent}}}")
}

/// TOML with the same keys and comments, and no answer: `errno = ""`.
fn without_answers(text: &str) -> String {
    let mut kept = String::new();
    let mut inside: Option<char> = None; // of an array that goes over several lines
    for line in text.lines() {
        if let Some(end) = inside {
            if line.trim_end().ends_with(end) {
                inside = None;
            }
            continue;
        }
        let line = match line.split_once('=') {
            Some((key, value)) if !line.trim_start().starts_with(['#', '[']) => {
                let value = value.trim();
                inside = (value.starts_with('[') && !value.contains(']')).then_some(']');
                format!("{}= {}", key, empty(value))
            }
            _ => line.to_owned(),
        };
        kept += &line;
        kept.push('\n');
    }
    kept
}

fn empty(value: &str) -> &'static str {
    match value.chars().next() {
        Some('[') => "[]",
        Some('t' | 'f') => "false",
        Some('0'..='9' | '-' | '+') => "0",
        _ => "\"\"",
    }
}

/// The first comment of a script.
fn header(text: &str) -> String {
    let comment = |line: &&str| line.starts_with('#') || line.trim().is_empty();
    text.lines().take_while(comment).map(|line| format!("{line}\n")).collect()
}

/// A text's lines without their indentation and their marks in a diff.
fn squeezed(text: &str) -> String {
    let line = |line: &str| format!("{}\n", line.trim_start_matches(['+', '-']).trim());
    text.lines().map(line).collect()
}

/// Whether most of what is particular to a body stands in a text.
fn tells(text: &str, body: &str) -> bool {
    let particular = |line: &&str| {
        !line.starts_with("//") && line.chars().filter(|c| c.is_alphanumeric()).count() >= 12
    };
    let lines: Vec<&str> = body.lines().map(str::trim).filter(particular).collect();
    let there = lines.iter().filter(|line| text.contains(*line)).count();
    there > 0 && there * 10 >= lines.len() * 7
}

#[cfg(test)]
mod tests {
    use super::{apply, bodies, header, stub, tells, without_answers};

    const TEXT: &str = "/// Does it.\npub fn make(\n    it: u8,\n) -> u8 {\n    it + 1\n}\n\nimpl Drop for It {\n    fn drop(&mut self) {\n        gone()\n    }\n}\n";

    #[test]
    fn a_body_becomes_a_stub() {
        let body = bodies(TEXT, "make").unwrap().remove(0);
        let stub = stub(TEXT, &body, "exercise 1.1: Say \"{}\"");
        assert_eq!(stub, "{\n    todo!(\"exercise 1.1: Say \\\"{{}}\\\"\")\n}");
    }

    #[test]
    fn a_block_loses_all_its_bodies() {
        let body = bodies(TEXT, "impl Drop for It").unwrap().remove(0);
        assert_eq!(&TEXT[body.clone()], "{\n        gone()\n    }");
        assert_eq!(stub(TEXT, &body, "a"), "{\n        todo!(\"a\")\n    }");
    }

    #[test]
    fn answers_are_emptied() {
        let text = "# Which?\nerrno = \"EBUSY\" # no\nn = 3\nall = [\n  1,\n]\nyes = true\n[part]\na = 'b'\n";
        let empty = "# Which?\nerrno = \"\"\nn = 0\nall = []\nyes = false\n[part]\na = \"\"\n";
        assert_eq!(without_answers(text), empty);
        assert_eq!(header("#!/bin/sh\n# Do it.\n\necho\n# no\n"), "#!/bin/sh\n# Do it.\n\n");
    }

    #[test]
    fn patches_of_two_files() {
        let patch = "# title\n\ndiff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-a\n+b\n c\n\
                     diff --git a/y b/y\nindex 1..2\n--- a/y\n+++ b/y\n@@ -1 +1 @@\n-c\n+d\n";
        let read = |path: &std::path::Path| {
            Ok(if path.ends_with("x") { "a\nc\n".into() } else { "c\n".to_owned() })
        };
        let changed = apply(patch, read).unwrap();
        let changed: Vec<_> = changed.iter().map(|(p, t)| (p.to_str().unwrap(), &**t)).collect();
        assert_eq!(changed, [("x", "b\nc\n"), ("y", "d\n")]);
        assert!(apply(patch, |_| Ok("other\n".into())).is_err());
    }

    #[test]
    fn a_told_body_is_found() {
        let body = "{\n    let remembered = open_it(name)?;\n    Ok(())\n}";
        assert!(tells("let remembered = open_it(name)?;\n", body));
        assert!(!tells("let forgotten = open_it(name)?;\n", body));
    }
}
