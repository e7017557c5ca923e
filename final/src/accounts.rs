//! Users and groups of an image, by name.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::Mode,
};

/// Who the command runs as.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// The number of the user, as the container counts.
    pub uid: u32,
    /// The number of the user's main group.
    pub gid: u32,
    /// The numbers of the other groups.
    pub groups: Vec<u32>,
    /// The home directory.
    pub home: String,
}

/// The text of an image's `/etc/passwd` and `/etc/group`; empty where there is none.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Reads both out of `layers`, the lowest first: the topmost one that has the file counts.
    ///
    /// # Errors
    /// If a file is there and can't be read, or is larger than 4 MiB.
    ///
    /// Source: [passwd(5)](https://man7.org/linux/man-pages/man5/passwd.5.html),
    /// [group(5)](https://man7.org/linux/man-pages/man5/group.5.html).
    pub fn read(layers: &[PathBuf]) -> Result<Self> {
        Ok(Accounts { passwd: find(layers, "etc/passwd")?, group: find(layers, "etc/group")? })
    }

    /// The account that `USER`, `USER:GROUP` or numbers stand for.
    ///
    /// # Errors
    /// If a name isn't in the files.
    pub fn look_up(&self, wanted: &str) -> Result<Account> {
        let (user, group) = match wanted.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (wanted, None),
        };
        let line = rows(&self.passwd).find(|row| row[0] == user || row.get(2) == Some(&user));
        let number = |row: &[&str], field: usize| row.get(field).and_then(|n| n.parse().ok());
        let mut account = match (line, user.parse()) {
            (Some(row), _) => Account {
                uid: number(&row, 2).with_context(|| format!("/etc/passwd: {row:?}"))?,
                gid: number(&row, 3).unwrap_or_default(),
                groups: self.groups_of(row[0]),
                home: row.get(5).filter(|home| !home.is_empty()).unwrap_or(&"/").to_string(),
            },
            (None, Ok(uid)) => Account { uid, home: "/".to_owned(), ..Account::default() },
            (None, Err(_)) => {
                bail!("the image has no user {user}: its /etc/passwd names all that it has")
            }
        };
        if account.uid == 0 && account.home == "/" {
            account.home = "/root".to_owned();
        }
        if let Some(group) = group {
            account.gid = self.group(group)?;
            account.groups.clear(); // As docker does: who names a group gets that one.
        }
        // For setresuid(2) and setresgid(2), this number means that nothing changes: root stays root.
        let none = account.uid == u32::MAX || account.gid == u32::MAX;
        ensure!(!none, "{wanted}: {} is no number of a user or group", u32::MAX);
        Ok(account)
    }

    fn group(&self, group: &str) -> Result<u32> {
        let row = rows(&self.group).find(|row| row[0] == group);
        match row.and_then(|row| row.get(2)?.parse().ok()).or(group.parse().ok()) {
            Some(gid) => Ok(gid),
            None => bail!("the image has no group {group}: its /etc/group names all that it has"),
        }
    }

    fn groups_of(&self, user: &str) -> Vec<u32> {
        rows(&self.group)
            .filter(|row| row.get(3).is_some_and(|members| members.split(',').any(|m| m == user)))
            .filter_map(|row| row.get(2)?.parse().ok())
            .collect()
    }
}

/// The lines of such a file, each split into its fields.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(':').collect())
}

fn find(layers: &[PathBuf], name: &str) -> Result<String> {
    for layer in layers.iter().rev() {
        match open_inside(layer, name) {
            Ok(file) if file.metadata()?.is_file() => {
                let mut text = Vec::new();
                file.take(4 << 20)
                    .read_to_end(&mut text)
                    .with_context(|| format!("the image's /{name}"))?;
                // People's names may be in any encoding.
                return Ok(String::from_utf8_lossy(&text).into_owned());
            }
            // The layer removes the file or its directory: overlay's mark is a device without a driver.
            Err(Errno::ENXIO | Errno::ENOTDIR) => break,
            _ => {}
        }
    }
    Ok(String::new())
}

/// Opens a file of an image; a link in it leads nowhere outside of the image.
fn open_inside(layer: &Path, name: &str) -> nix::Result<File> {
    let root = open(layer, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(File::from(openat2(&root, name, how)?))
}
