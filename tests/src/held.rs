//! A program that says what it has made, and holds it until its standard input ends.

use std::{
    io::{BufRead, BufReader, Lines, Read},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result, bail};

/// Such a program, while it runs. When this value is dropped, the program is told to end, and waited for.
pub struct Held {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Held {
    /// Starts it.
    ///
    /// # Errors
    /// If there is no such program.
    pub fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().with_context(|| format!("can't run {:?}", command.get_program()))?;
        let said = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        Ok(Held { child, said })
    }

    /// What stands behind `key` in the next line that it says.
    ///
    /// # Errors
    /// If it says something else, or has ended: then with its complaint.
    pub fn says(&mut self, key: &str) -> Result<String> {
        match self.said.next().transpose()? {
            Some(line) => match line.strip_prefix(key) {
                Some(value) => Ok(value.trim().to_owned()),
                None => bail!("instead of {key:?} it said {line:?}"),
            },
            None => {
                let mut complaint = String::new();
                let stderr = self.child.stderr.as_mut().context("a pipe")?;
                stderr.read_to_string(&mut complaint)?;
                bail!("it ended before it said {key:?}:\n{complaint}")
            }
        }
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it: no destructor runs.
    ///
    /// # Errors
    /// If it has ended already.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// Tells it to end, waits for that, and gives its end and the rest of what it said and complained of.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn end(&mut self) -> Result<(ExitStatus, String)> {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        for line in self.said.by_ref() {
            rest += &(line? + "\n");
        }
        if let Some(stderr) = &mut self.child.stderr {
            stderr.read_to_string(&mut rest)?;
        }
        Ok((self.child.wait()?, rest))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
