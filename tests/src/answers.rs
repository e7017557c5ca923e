//! What a student predicts, in a file of lines `question = "answer"`, compared with what the kernel
//! does when it is asked.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::{
    programs::{program, workspace},
    run::finish,
};

/// Demands that the answer to `question` in `file` is the error number with which `program` fails
/// when it is told to `provoke` just this.
///
/// # Errors
/// If the answer is missing or wrong. The message doesn't tell the right one: the kernel does, to
/// whoever asks it.
pub fn is_errno(file: &str, question: &str, name: &str) -> Result<()> {
    let provoked = finish(program(name).args(["provoke", question]))?.with_code(125)?;
    let errno = provoked.stderr.split_once("failed: ").map_or("", |(_, rest)| rest);
    let errno = errno.split_whitespace().next().unwrap_or_default();
    ensure!(errno.starts_with('E'), "it failed without an error number: {}", provoked.stderr);
    is(file, question, errno, &format!("cargo course lab -- {name} provoke {question}"))
}

/// Demands that the answer to `question` in `file` is `seen`; `try_it` says how to see it oneself.
///
/// # Errors
/// As [`is_errno`].
pub fn is(file: &str, question: &str, seen: &str, try_it: &str) -> Result<()> {
    let answer = answer(file, question)?;
    ensure!(
        !answer.is_empty(),
        "{file}: `{question}` has no answer yet. Predict first, then look:\n  {try_it}"
    );
    ensure!(
        answer == seen,
        "{file}: `{question}`: you predicted {answer}, and that isn't what happens. See for yourself:\n  {try_it}"
    );
    Ok(())
}

/// The answer to `question`; empty if it isn't answered.
fn answer(file: &str, question: &str) -> Result<String> {
    let text =
        fs::read_to_string(workspace().join(file)).with_context(|| format!("can't read {file}"))?;
    let line = |line: &str| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == question).then(|| value.trim().trim_matches('"').trim().to_owned())
    };
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .find_map(line)
        .with_context(|| format!("{file} has no line `{question} = \"…\"`"))
}
