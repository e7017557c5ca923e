//! The workspace that the book is about: what its pages can show, and what they have shown.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// Where the outputs lie that the tests have seen.
const SNAPSHOTS: &str = "tests/tests/snapshots";
/// Where the drawings lie.
const FIGURES: &str = "book/figures";

/// The workspace's files.
pub struct Workspace {
    root: PathBuf,
    used: RefCell<BTreeSet<String>>,
}

/// One of the ladder's libraries.
pub struct Library {
    /// The name that code uses: `mnt`.
    pub name: String,
    /// Its folder: `step03-mnt-pivot`.
    pub folder: String,
}

impl Workspace {
    /// The workspace in the folder `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Workspace { root: root.into(), used: RefCell::default() }
    }

    /// The text of a file, named by its path in the workspace.
    ///
    /// # Errors
    /// If the path leads out of the workspace, or there is no such file.
    pub fn read(&self, file: &str) -> Result<String> {
        let inside = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
        ensure!(inside, "`{file}` is to be a path below the workspace's folder");
        fs::read_to_string(self.root.join(file)).with_context(|| format!("can't read `{file}`"))
    }

    /// Whether there is such a file or folder.
    pub fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// What the snapshot `name` holds, without its header; from now on it counts as used.
    ///
    /// # Errors
    /// If there is no such snapshot.
    pub fn snapshot(&self, name: &str) -> Result<String> {
        let text = self.named(SNAPSHOTS, name, "snap")?;
        let body = text.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---\n"));
        let (_header, body) = body.with_context(|| format!("snapshot `{name}` has no header"))?;
        Ok(body.trim_end().to_owned())
    }

    /// The drawing `name`; from now on it counts as used.
    ///
    /// # Errors
    /// If there is no such drawing.
    pub fn figure(&self, name: &str) -> Result<String> {
        self.named(FIGURES, name, "svg")
    }

    /// The names of all snapshots that begin with `start`.
    ///
    /// # Errors
    /// If the folder can't be read.
    pub fn snapshots(&self, start: &str) -> Result<Vec<String>> {
        let mut names = self.names(SNAPSHOTS, "snap")?;
        names.retain(|name| name.starts_with(start));
        Ok(names)
    }

    /// The snapshots and drawings that nobody has asked for.
    ///
    /// # Errors
    /// If a folder can't be read.
    pub fn unused(&self) -> Result<Vec<String>> {
        let mut unused = vec![];
        for (folder, ending) in [(SNAPSHOTS, "snap"), (FIGURES, "svg")] {
            let files = self.names(folder, ending)?.into_iter();
            unused.extend(files.map(|name| format!("{folder}/{name}.{ending}")));
        }
        unused.retain(|file| !self.used.borrow().contains(file));
        Ok(unused)
    }

    /// The ladder's libraries in their order, as the workspace's manifest names them.
    ///
    /// # Errors
    /// If the manifest can't be read.
    pub fn libraries(&self) -> Result<Vec<Library>> {
        let manifest: Manifest = toml::from_str(&self.read("Cargo.toml")?)?;
        let mut libraries: Vec<Library> = manifest
            .workspace
            .dependencies
            .into_iter()
            .filter_map(|(name, dependency)| {
                let folder = dependency.get("path")?.as_str()?.to_owned();
                folder.starts_with("step").then_some(Library { name, folder })
            })
            .collect();
        libraries.sort_by(|one, other| one.folder.cmp(&other.folder));
        Ok(libraries)
    }

    /// The folder of step `number`.
    ///
    /// # Errors
    /// If there is no such step.
    pub fn step(&self, number: &str) -> Result<String> {
        let number: usize = number.parse().with_context(|| format!("`{number}` is no number"))?;
        let start = format!("step{number:02}-");
        let mut libraries = self.libraries()?.into_iter();
        let library = libraries.find(|library| library.folder.starts_with(&start));
        Ok(library.with_context(|| format!("there is no step {number}"))?.folder)
    }

    fn named(&self, folder: &str, name: &str, ending: &str) -> Result<String> {
        let file = format!("{folder}/{name}.{ending}");
        if !self.has(&file) {
            let names = self.names(folder, ending)?;
            bail!("there is no `{file}`{}", nearest(name, &names));
        }
        self.used.borrow_mut().insert(file.clone());
        self.read(&file)
    }

    fn names(&self, folder: &str, ending: &str) -> Result<Vec<String>> {
        let folder = self.root.join(folder);
        if !folder.exists() {
            return Ok(vec![]);
        }
        let mut names = vec![];
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|found| found == ending) {
                names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
            }
        }
        names.sort();
        Ok(names)
    }
}

/// The part of `Cargo.toml` that names the libraries.
#[derive(Deserialize)]
struct Manifest {
    workspace: Dependencies,
}

#[derive(Deserialize)]
struct Dependencies {
    dependencies: toml::Table,
}

/// The end of an error: the names that were probably meant.
pub fn nearest(name: &str, names: &[String]) -> String {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    match similar::get_close_matches(name, &names, 3, 0.6)[..] {
        [] => String::new(),
        ref near => format!("; near to it is {}", near.join(", ")),
    }
}
