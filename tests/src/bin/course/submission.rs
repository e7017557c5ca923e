//! What is taken of a student's folder: the files of one step, and nothing else of it.

use std::{
    fs::{self, OpenOptions},
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use nix::libc::O_NOFOLLOW;

/// The folders of a step that are a student's. Its `Cargo.toml` is the instructor's.
const PARTS: [&str; 3] = ["src", "examples", "exercises"];

/// More than this isn't source code.
const BYTES: u64 = 4 << 20;
const FILES: usize = 400;

/// A student's files of one step, by their paths in the step's folder.
pub struct Sources(pub Vec<(PathBuf, Vec<u8>)>);

impl Sources {
    /// Reads them. A folder may be the workspace, or hold it as its only folder, as archives do.
    ///
    /// # Errors
    /// If there is no such step, or more than source code. The student is told.
    pub fn read(submission: &Path, step: &str) -> Result<Self> {
        let folder = workspace(submission).join(step);
        let is_folder = |path: &Path| path.symlink_metadata().is_ok_and(|data| data.is_dir());
        // A link could lead to somebody else's.
        let there = is_folder(&folder) && is_folder(&folder.join("src"));
        ensure!(there, "{step}/src isn't there: it wasn't handed in");
        let mut sources = Sources(vec![]);
        let mut left = BYTES;
        for part in PARTS.iter().filter(|part| is_folder(&folder.join(part))) {
            sources.add(&folder, Path::new(part), &mut left)?;
        }
        Ok(sources)
    }

    fn add(&mut self, folder: &Path, part: &Path, left: &mut u64) -> Result<()> {
        let mut entries = fs::read_dir(folder.join(part))?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(|entry| entry.file_name());
        for entry in entries {
            let (kind, part) = (entry.file_type()?, part.join(entry.file_name()));
            if kind.is_dir() {
                self.add(folder, &part, left)?;
            } else if kind.is_file() {
                ensure!(self.0.len() < FILES, "more than {FILES} files were handed in");
                // Never through a link: it could lead to what only the grader may read.
                let file = OpenOptions::new()
                    .read(true)
                    .custom_flags(O_NOFOLLOW)
                    .open(folder.join(&part))
                    .with_context(|| part.display().to_string())?;
                let mut bytes = vec![];
                file.take(*left + 1).read_to_end(&mut bytes)?;
                ensure!(
                    bytes.len() as u64 <= *left,
                    "more than {} MiB were handed in",
                    BYTES >> 20
                );
                *left -= bytes.len() as u64;
                self.0.push((part, bytes));
            }
        }
        Ok(())
    }

    /// Puts them in the place of the reference's, of which nothing stays. Of the examples, that holds
    /// for those in `examples`: the others are the tests' own.
    pub fn replace(&self, step: &Path, examples: &[PathBuf]) -> Result<()> {
        for part in ["src", "exercises"].map(|part| step.join(part)) {
            if part.exists() {
                fs::remove_dir_all(part)?;
            }
        }
        for example in examples.iter().map(|example| step.join(example)) {
            fs::remove_file(&example).with_context(|| example.display().to_string())?;
        }
        let theirs =
            |path: &Path| !path.starts_with("examples") || examples.iter().any(|e| e == path);
        for (path, bytes) in self.0.iter().filter(|(path, _)| theirs(path)) {
            let path = step.join(path);
            fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
            fs::write(&path, bytes)?;
            if bytes.starts_with(b"#!") {
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            }
        }
        Ok(())
    }
}

/// Where the steps are.
fn workspace(submission: &Path) -> PathBuf {
    let has_steps = |folder: &Path| {
        let names = fs::read_dir(folder).into_iter().flatten().flatten();
        names.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("step0"))
    };
    if !has_steps(submission) {
        let mut folders: Vec<PathBuf> = fs::read_dir(submission)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .filter(|folder| has_steps(folder))
            .collect();
        if folders.len() == 1 {
            return folders.remove(0);
        }
    }
    submission.to_owned()
}
