//! The exercises of step 8: a root made of shared layers and one thin writable one.

use std::{
    collections::BTreeSet,
    env, fs,
    fs::File,
    io::Read,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use nix::{
    mount::{MsFlags, mount, umount},
    unistd::{AccessFlags, access},
};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
use tar::{Archive, Builder, EntryType, Header};
use tempfile::TempDir;
use tests::{
    answers,
    chance::Chance,
    programs::{self, bin_dir, program, workspace},
    run::{Finished, finish},
    scenario::{IN_LAB, Scenario, skip},
};

const STEP: &str = "step08-overlay";
const PARTS: &str = "step08-parts";
const ERRNO: &str = "step08-overlay/exercises/errno.toml";
const ESCAPE: &str = "step08-overlay/exercises/escape.sh";
const COPIED: &str = "step08-overlay/exercises/copied.sh";

pub fn scenarios() -> Vec<Scenario> {
    let new = |name: &str, proof: fn() -> Result<()>| {
        Scenario::new(format!("exercises::{name}"), IN_LAB, proof)
    };
    let mut all = vec![
        new("8.1::the_top_layer_wins", the_top_layer_wins),
        new("8.1::changes_go_to_the_top", changes_go_to_the_top),
        new("8.1::strange_names", strange_names),
        new("8.1::marks_hide", marks_hide),
        new("8.2::whiteouts", whiteouts),
        new("8.2::opaque_directories", opaque_directories),
        new("8.2::what_isnt_a_mark", what_isnt_a_mark),
        new("8.3::one_file_two_names", one_file_two_names),
        new("8.3::what_is_there_gives_way", what_is_there_gives_way),
        new("8.3::no_way_out", no_way_out),
        new("8.4::hostile_archives", hostile_archives),
        new("8.4::links_inside_are_followed", links_inside_are_followed),
        new("8.6::break_out", break_out),
        new("8.7::what_a_change_costs", what_a_change_costs),
        new("8.8::told_as_they_were_made", told_as_they_were_made),
        new("8.8::opaque_all_the_way_down", opaque_all_the_way_down),
    ];
    for question in [
        "rename_directory",
        "write_without_upper",
        "work_elsewhere",
        "layer_missing",
        "remove_full_directory",
    ] {
        all.push(Scenario::new(format!("exercises::8.5::{question}"), IN_LAB, move || {
            predicted(question)
        }));
    }
    all
}

/// A directory where step 8 keeps its own, on a file system that overlayfs can write to: not on
/// another overlay, and not on the lab's /tmp, unless the kernel lets a tmpfs keep marks.
fn scratch() -> Result<TempDir> {
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home);
    for dir in [Some("/var/cache".into()), cache].into_iter().flatten() {
        let _ = fs::create_dir_all(&dir);
        if access(&dir, AccessFlags::W_OK).is_err() {
            continue;
        }
        let scratch = tempfile::Builder::new().prefix("exercise-").tempdir_in(&dir)?;
        let marked = setxattr(scratch.path(), "user.overlay.test", b"y", XattrFlags::empty());
        if marked.is_err() || rustix::fs::statfs(scratch.path())?.f_type == OVERLAYFS_MAGIC {
            return skip(format!(
                "{} is on a file system that overlayfs can't write to",
                dir.display()
            ));
        }
        return Ok(scratch);
    }
    skip("there is no directory to work in: set XDG_CACHE_HOME")
}

/// Source: linux/magic.h, `OVERLAYFS_SUPER_MAGIC`.
const OVERLAYFS_MAGIC: rustix::fs::FsWord = 0x794c_7630;

/// Layers, a container's directory and where they are shown together.
struct Stack {
    dir: TempDir,
    is_mounted: bool,
}

impl Stack {
    fn new() -> Result<Self> {
        let stack = Stack { dir: scratch()?, is_mounted: false };
        for name in ["container", "merged"] {
            fs::create_dir(stack.at(name))?;
        }
        Ok(stack)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Writes a file, with the directories above it.
    fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.at(path);
        fs::create_dir_all(path.parent().context("a file is in a directory")?)?;
        Ok(fs::write(path, text)?)
    }

    fn read(&self, path: &str) -> Result<String> {
        fs::read_to_string(self.at(path)).with_context(|| format!("can't read {path}"))
    }

    /// Has the student's code show the layers, the lowest first.
    fn show(&mut self, layers: &[&str]) -> Result<()> {
        let mut command = program(PARTS);
        command.arg("stack").arg(self.at("container")).arg(self.at("merged"));
        finish(command.args(layers.iter().map(|layer| self.at(layer))))?.success()?;
        self.is_mounted = true;
        Ok(())
    }

    /// Shows one layer without the student's code.
    fn show_by_hand(&mut self, layer: &str) -> Result<()> {
        for name in ["container/upper", "container/work"] {
            fs::create_dir(self.at(name))?;
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={},userxattr",
            self.at(layer).display(),
            self.at("container/upper").display(),
            self.at("container/work").display()
        );
        let fs = Some("overlay");
        mount(fs, &self.at("merged"), fs, MsFlags::empty(), Some(&*options))
            .context("can't mount an overlay in the lab")?;
        self.is_mounted = true;
        Ok(())
    }

    fn hide(&mut self) -> Result<()> {
        self.is_mounted = false;
        Ok(umount(&self.at("merged"))?)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = self.hide();
        }
    }
}

fn the_top_layer_wins() -> Result<()> {
    let mut chance = Chance::new("layers");
    let mut stack = Stack::new()?;
    // Their names don't tell which is which.
    let names = [chance.needle(), chance.needle(), chance.needle()];
    for (n, layer) in names.iter().enumerate() {
        stack.write(&format!("{layer}/in-all"), &format!("of {n}"))?;
        stack.write(&format!("{layer}/only-in-{n}"), layer)?;
    }
    stack.write(&format!("{}/in-two", names[0]), "of 0")?;
    stack.write(&format!("{}/in-two", names[1]), "of 1")?;
    stack.show(&names.each_ref().map(String::as_str))?;
    for (file, should) in [("in-all", "of 2"), ("in-two", "of 1")] {
        let is = stack.read(&format!("merged/{file}"))?;
        ensure!(
            is == should,
            "of three layers, 0 is the lowest. `{file}` should be the one {should}, and is the one {is}"
        );
    }
    for (n, layer) in names.iter().enumerate() {
        let is = stack.read(&format!("merged/only-in-{n}"))?;
        ensure!(is == *layer, "what is in layer {n} alone can't be seen");
    }
    Ok(())
}

fn changes_go_to_the_top() -> Result<()> {
    let needle = Chance::new("changes").needle();
    let mut stack = Stack::new()?;
    stack.write("layer/file", "as it was")?;
    stack.write("layer/gone", "as it was")?;
    stack.show(&["layer"])?;
    stack
        .write("merged/file", &needle)
        .context("nothing can be written: is there an upper directory?")?;
    stack.write("merged/new/file", &needle)?;
    fs::remove_file(stack.at("merged/gone"))?;
    ensure!(
        stack.read("layer/file")? == "as it was",
        "the layer was changed, which others use too"
    );
    ensure!(
        stack.at("layer/gone").exists(),
        "a file of the layer was removed, which others use too"
    );
    for file in ["file", "new/file"] {
        let is = stack.read(&format!("container/upper/{file}"))?;
        ensure!(is == needle, "container/upper/{file} holds {is:?} and not what was written");
    }
    Ok(())
}

/// `:` and `,` mean something to mount(2).
fn strange_names() -> Result<()> {
    let needle = Chance::new("strange").needle();
    let mut stack = Stack::new()?;
    let layers = ["one:two", "a,b", "upperdir=x"];
    for layer in layers {
        stack.write(&format!("{layer}/{needle}"), layer)?;
    }
    stack.show(&layers).context("a layer may lie in a directory of any name")?;
    let is = stack.read(&format!("merged/{needle}"))?;
    ensure!(is == "upperdir=x", "the top layer is {is}");
    Ok(())
}

/// As the kernel marks things in the lab, whose root isn't the machine's.
fn marks_hide() -> Result<()> {
    let needle = Chance::new("marks").needle();
    let mut stack = Stack::new()?;
    stack.write(&format!("low/folder/{needle}"), "hidden")?;
    stack.write("low/folder2/file", "hidden")?;
    stack.write("low/file", "hidden")?;
    stack.write("top/folder/new", "seen")?;
    setxattr(stack.at("top/folder"), "user.overlay.opaque", b"y", XattrFlags::empty())?;
    let whiteout = stack.at("top/file");
    mknodat(CWD, &whiteout, FileType::CharacterDevice, Mode::empty(), 0)?;
    stack.show(&["low", "top"])?;
    ensure!(!stack.at("merged/file").exists(), "a whiteout is shown, instead of hiding a file");
    let seen = names(&stack.at("merged/folder"))?;
    ensure!(
        seen == ["new"],
        "an opaque directory lets lower files through: {seen:?}. In a user namespace overlayfs looks \
         for its marks elsewhere, if it is told to by an option"
    );
    // And it marks what is removed and made anew.
    fs::remove_dir_all(stack.at("merged/folder2"))?;
    fs::create_dir(stack.at("merged/folder2"))?;
    let seen = names(&stack.at("merged/folder2"))?;
    ensure!(seen.is_empty(), "a new directory isn't empty: {seen:?}");
    Ok(())
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let mut names: Vec<_> = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<_>>()?;
    names.sort();
    Ok(names)
}

/// An archive, member by member.
struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Tar(Builder::new(vec![]))
    }

    fn add(mut self, kind: EntryType, name: &str, data: &str, target: &str) -> Self {
        let mut header = Header::new_gnu();
        // Not by the crate's own functions, which refuse names that these tests need.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_size(data.len() as u64);
        header.set_mtime(1_000_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        self.0.append(&header, data.as_bytes()).expect("memory takes it");
        self
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.add(EntryType::Regular, name, data, "")
    }

    fn dir(self, name: &str) -> Self {
        self.add(EntryType::Directory, name, "", "")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.add(EntryType::Symlink, name, "", target)
    }

    fn hard_link(self, name: &str, target: &str) -> Self {
        self.add(EntryType::Link, name, "", target)
    }

    /// Has the student's code unpack it into the new directory `to`.
    fn unpack(self, to: &Path) -> Result<Finished> {
        let file = to.with_extension("tar");
        fs::write(&file, self.0.into_inner()?)?;
        unpack(&file, to)
    }
}

fn unpack(archive: &Path, to: &Path) -> Result<Finished> {
    finish(program(PARTS).arg("unpack").arg(archive).arg(to))
}

fn is_whiteout(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|data| data.file_type().is_char_device() && data.rdev() == 0)
}

fn is_opaque(path: &Path) -> bool {
    ["user.overlay.opaque", "trusted.overlay.opaque"].iter().any(|name| {
        let mut value = [0; 2];
        rustix::fs::lgetxattr(path, *name, &mut value[..]) == Ok(1) && value[0] == b'y'
    })
}

fn whiteouts() -> Result<()> {
    let needle = Chance::new("whiteouts").needle();
    let dir = scratch()?;
    let layer = dir.path().join("layer");
    let tar = Tar::new()
        .file(&format!(".wh.{needle}"), "")
        .dir("folder")
        .file(&format!("folder/.wh.{needle}"), "")
        .file(&format!("folder/below/.wh.{needle}"), "")
        .file("file.wh.txt", "kept");
    tar.unpack(&layer)?.success()?;
    for place in ["", "folder/", "folder/below/"] {
        let name = format!("{place}{needle}");
        let is_file = layer.join(format!("{place}.wh.{needle}")).exists();
        ensure!(!is_file, "{place}.wh.{needle} was unpacked as a file, and hides nothing");
        ensure!(is_whiteout(&layer.join(&name)), "{name} should be a character device 0:0");
    }
    ensure!(layer.join("file.wh.txt").is_file(), "only a name that *begins* with .wh. is a mark");
    Ok(())
}

fn opaque_directories() -> Result<()> {
    let needle = Chance::new("opaque").needle();
    let dir = scratch()?;
    let layer = dir.path().join("layer");
    let tar = Tar::new()
        .dir(&needle)
        .file(&format!("{needle}/.wh..wh..opq"), "")
        .file(&format!("{needle}/inside"), "seen")
        .dir("other")
        .dir("other/deep")
        .file("other/deep/.wh..wh..opq", "");
    tar.unpack(&layer)?.success()?;
    for place in [&*needle, "other/deep"] {
        ensure!(
            is_opaque(&layer.join(place)),
            "{place} has .wh..wh..opq in the archive, so on disk the directory should have the \
             attribute overlay.opaque"
        );
        let left = names(&layer.join(place))?.into_iter().find(|name| name.starts_with(".wh."));
        ensure!(left.is_none(), "{place} holds a file {left:?}: the mark itself isn't unpacked");
    }
    ensure!(!is_opaque(&layer.join("other")), "a directory is opaque whose parent isn't meant");
    ensure!(
        layer.join(&needle).join("inside").is_file(),
        "what is in the opaque directory is gone"
    );
    Ok(())
}

fn what_isnt_a_mark() -> Result<()> {
    let dir = scratch()?;
    let at = |name: &str| dir.path().join(name);
    let tar = Tar::new().dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "").file(".wh..wh.aufs", "");
    tar.unpack(&at("notes"))?.success().context("notes of aufs mean nothing, and no harm")?;
    let made = names(&at("notes"))?;
    ensure!(made.is_empty(), "of notes that mean nothing, {made:?} was made");
    for (n, name) in [".wh.", "folder/.wh.", ".wh...", ".wh.folder/file"].iter().enumerate() {
        let done = Tar::new().file(name, "").unpack(&at(&format!("refused-{n}")))?;
        ensure!(done.code == 125, "{name} hides no file that there could be, and is taken");
    }
    Ok(())
}

fn one_file_two_names() -> Result<()> {
    let needle = Chance::new("links").needle();
    let dir = scratch()?;
    let layer = dir.path().join("layer");
    let tar = Tar::new()
        .dir("bin")
        .file("bin/tool", &needle)
        .hard_link("bin/second", "bin/tool")
        .hard_link("other/third", "bin/tool")
        .hard_link("bin/tool", "bin/tool");
    tar.unpack(&layer)?.success()?;
    let original = fs::metadata(layer.join("bin/tool"))?;
    for name in ["bin/second", "other/third"] {
        let data = fs::symlink_metadata(layer.join(name)).with_context(|| format!("no {name}"))?;
        ensure!(
            data.ino() == original.ino(),
            "{name} should be another name of bin/tool, and is a file of its own: a copy takes room \
             again, and doesn't change with it"
        );
    }
    ensure!(
        original.nlink() == 3,
        "bin/tool should have three names, and has {}",
        original.nlink()
    );
    ensure!(fs::read_to_string(layer.join("bin/tool"))? == needle, "its contents are lost");
    Ok(())
}

fn what_is_there_gives_way() -> Result<()> {
    let needle = Chance::new("gives way").needle();
    let dir = scratch()?;
    let layer = dir.path().join("layer");
    let tar = Tar::new()
        .file("tool", &needle)
        .file("name", "the first of this name")
        .hard_link("name", "tool")
        .dir("folder")
        .file("folder/file", "")
        .hard_link("folder", "tool");
    tar.unpack(&layer)?.success().context("the last member of a name counts")?;
    for name in ["name", "folder"] {
        let is =
            fs::read_to_string(layer.join(name)).with_context(|| format!("{name} is no file"))?;
        ensure!(is == needle, "{name} should be the tool by now, and holds {is:?}");
    }
    Ok(())
}

/// A hard link must not get at a file outside, nor through a symbolic link.
fn no_way_out() -> Result<()> {
    let dir = scratch()?;
    let outside = dir.path().join("outside");
    fs::create_dir(&outside)?;
    let secret = Chance::new("no way out").needle();
    fs::write(outside.join("secret"), &secret)?;
    let out = outside.display().to_string();
    let hostile = [
        Tar::new().symlink("door", &out).hard_link("mine", "door/secret"),
        Tar::new().hard_link("mine", "../outside/secret"),
        Tar::new().hard_link("mine", &format!("{out}/secret")),
        Tar::new().dir("real").file("real/f", "").symlink("way", "real").hard_link("mine", "way/f"),
        Tar::new().hard_link("mine", "not/there"),
    ];
    for (n, tar) in hostile.into_iter().enumerate() {
        let layer = dir.path().join(format!("layer-{n}"));
        let done = tar.unpack(&layer)?;
        let got = fs::read_to_string(layer.join("mine")).is_ok_and(|text| text == secret);
        ensure!(!got, "archive {n} got at a file outside of the layer, by a hard link");
        ensure!(
            done.code == 125,
            "archive {n} has a link that can't be made, and it isn't refused"
        );
    }
    ensure!(fs::metadata(outside.join("secret"))?.nlink() == 1, "the secret has a second name");
    Ok(())
}

/// Each tries to write outside of the layer, by a symbolic link that it has brought along.
fn hostile_archives() -> Result<()> {
    let dir = scratch()?;
    let outside = dir.path().join("outside");
    let folder = outside.join("folder");
    fs::create_dir_all(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o711))?;
    let needle = Chance::new("hostile").needle();
    let out = outside.display().to_string();
    let name = format!("door/{needle}");
    let hostile = [
        Tar::new().symlink("door", &out).file(&name, "gotcha"),
        Tar::new().symlink("door", "../outside").file(&name, "gotcha"),
        Tar::new()
            .dir("a")
            .symlink("a/b", "..")
            .symlink("a/b/door", "../outside")
            .file(&name, "gotcha"),
        Tar::new().symlink("door", &out).dir(&format!("{name}/deep")),
        Tar::new().symlink("door", &out).symlink(&name, "/etc"),
        Tar::new().symlink("door", &out).file(&format!("door/.wh.{needle}"), ""),
        Tar::new().symlink("door", &out).dir("door/folder"),
        Tar::new().symlink("one", &out).symlink("door", "one").file(&name, "gotcha"),
    ];
    for (n, tar) in hostile.into_iter().enumerate() {
        let done = tar.unpack(&dir.path().join(format!("layer-{n}")))?;
        let made = names(&outside)?;
        ensure!(
            made == ["folder"],
            "archive {n} wrote outside of the layer, where there is {made:?} now: a name led through a \
             symbolic link that leaves the layer"
        );
        let mode = folder.metadata()?.mode() & 0o777;
        ensure!(
            mode == 0o711,
            "archive {n} changed the permissions of a directory outside: {mode:o}"
        );
        ensure!(done.code == 125, "archive {n} is hostile, and isn't refused: {}", done.stdout);
    }
    Ok(())
}

/// Most archives of real systems have such links: /lib is one.
fn links_inside_are_followed() -> Result<()> {
    let needle = Chance::new("links inside").needle();
    let dir = scratch()?;
    let layer = dir.path().join("layer");
    let tar = Tar::new()
        .dir("usr")
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .file(&format!("lib/{needle}"), "found")
        .symlink("usr/lib/up", "../../usr")
        .file("lib/up/file", "found");
    tar.unpack(&layer)?.success().context("a link that stays inside is no attack")?;
    for file in [format!("usr/lib/{needle}"), "usr/file".into()] {
        let is = fs::read_to_string(layer.join(&file)).with_context(|| format!("no {file}"))?;
        ensure!(is == "found", "{file} holds {is:?}");
    }
    Ok(())
}

fn predicted(question: &str) -> Result<()> {
    let dir = scratch()?;
    let mut command = program(PARTS);
    let provoked = finish(command.arg("provoke").arg(dir.path()).arg(question))?.with_code(125)?;
    let errno = provoked.stderr.split_once("failed: ").map_or("", |(_, rest)| rest);
    let errno = errno.split_whitespace().next().unwrap_or_default();
    ensure!(errno.starts_with('E'), "it failed without an error number: {}", provoked.stderr);
    let try_it = format!("cargo course lab -- {PARTS} provoke EMPTY-DIRECTORY {question}");
    answers::is(ERRNO, question, errno, &try_it)
}

/// Unpacks as a program does whose author has thought of some things, and not of all.
fn unpack_without_care(archive: &Path, to: &Path) -> Result<()> {
    let mut archive = Archive::new(File::open(archive).context("there is no archive")?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let is_plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        ensure!(
            name.components().all(is_plain),
            "the archive is refused, since the name {} is absolute or has a \"..\"",
            name.display()
        );
        let path = to.join(&name);
        fs::create_dir_all(path.parent().context("a file is in a directory")?)?;
        match entry.header().entry_type() {
            EntryType::Directory => fs::create_dir_all(&path)?,
            EntryType::Symlink => symlink(entry.link_name()?.context("a target")?, &path)?,
            EntryType::Regular => {
                let mut data = vec![];
                entry.read_to_end(&mut data)?;
                fs::write(&path, data)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn break_out() -> Result<()> {
    let needle = Chance::new("break out").needle();
    let dir = scratch()?;
    let (archive, outside, inside) =
        (dir.path().join("a.tar"), dir.path().join("outside"), dir.path().join("inside"));
    fs::create_dir(&outside)?;
    fs::create_dir(&inside)?;
    let mut sh = programs::clean("sh");
    finish(sh.arg(workspace().join(ESCAPE)).args([&archive, &outside]).arg(&needle))?.success()?;
    ensure!(names(&outside)?.is_empty(), "the script is to write an archive, and nothing else");
    unpack_without_care(&archive, &inside)?;
    ensure!(
        outside.join(&needle).exists(),
        "the archive was unpacked without care, and no file {needle} is outside"
    );
    Ok(())
}

/// What the student's script says of a command, in bytes.
fn copied(command: &str) -> Result<u64> {
    let mut sh = programs::clean("sh");
    let path = format!("{}:{}", bin_dir().display(), env::var("PATH").unwrap_or_default());
    let done =
        finish(sh.env("PATH", path).arg(workspace().join(COPIED)).arg(command))?.success()?;
    let number = done.stdout.trim();
    number.parse().with_context(|| {
        format!("{COPIED} should print one number, and prints {:?} {}", done.stdout, done.stderr)
    })
}

fn what_a_change_costs() -> Result<()> {
    scratch()?;
    let mut chance = Chance::new("what a change costs");
    let tools = ["cat", "ls", "sed", "grep", "id", "cp"];
    let tool = format!("/usr/bin/{}", tools[chance.below(tools.len() as u64) as usize]);
    let script = format!("wc -c <{tool} || stat -c %s {tool}");
    let size = finish(program(STEP).args(["--", "sh", "-c", &script]))?.success()?.stdout;
    let size: u64 = size.trim().parse().with_context(|| format!("the size of {tool}: {size}"))?;
    let needle = chance.needle();
    for (command, should) in [
        ("true".to_owned(), 0),
        (format!("echo {needle} >/file"), needle.len() as u64 + 1),
        (format!("echo >>{tool}"), size + 1),
        (format!("chmod 700 {tool}"), size),
        (format!("rm {tool}"), 0),
    ] {
        let is = copied(&command)?;
        ensure!(
            is == should,
            "after `{command}` the container's own layer holds {should} bytes of files, and {COPIED} \
             says {is}"
        );
    }
    Ok(())
}

/// What the example `changes` tells of a layer and what lies on it.
fn told(stack: &Stack) -> Result<BTreeSet<String>> {
    let mut command = program("changes");
    command.arg(stack.at("layer")).arg(stack.at("container/upper"));
    Ok(finish(&mut command)?.success()?.stdout.lines().map(str::to_owned).collect())
}

fn is_told(stack: &Stack, should: &[String]) -> Result<()> {
    let (is, should) = (told(stack)?, should.iter().cloned().collect::<BTreeSet<_>>());
    let missing: Vec<_> = should.difference(&is).collect();
    let wrong: Vec<_> = is.difference(&should).collect();
    ensure!(missing.is_empty() && wrong.is_empty(), "missing is {missing:?}, and wrong {wrong:?}");
    Ok(())
}

/// Changes some files by chance, through the kernel's own overlay.
fn told_as_they_were_made() -> Result<()> {
    let mut chance = Chance::new("told");
    let mut stack = Stack::new()?;
    for n in 0..24 {
        stack.write(&format!("layer/{}/file{n}", ["a", "b/c", "d"][n % 3]), "as it was")?;
    }
    fs::create_dir_all(stack.at("layer/old/deep"))?;
    stack.show_by_hand("layer")?;
    let mut should = vec![];
    for n in 0..24 {
        let path = format!("{}/file{n}", ["a", "b/c", "d"][n % 3]);
        match chance.below(4) {
            0 => {
                stack.write(&format!("merged/{path}"), "changed")?;
                should.push(format!("C /{path}"));
            }
            1 => {
                fs::remove_file(stack.at(&format!("merged/{path}")))?;
                should.push(format!("D /{path}"));
            }
            2 => {
                let new = format!("{path}-{}", chance.needle());
                stack.write(&format!("merged/{new}"), "new")?;
                should.push(format!("A /{new}"));
            }
            _ => {}
        }
    }
    fs::remove_dir_all(stack.at("merged/old"))?;
    stack.write("merged/new/folder/file", "new")?;
    should.extend(["D /old", "A /new", "A /new/folder", "A /new/folder/file"].map(str::to_owned));
    stack.hide()?;
    is_told(&stack, &should)
}

/// A directory that was removed and made anew hides all that was in the old one, at any depth.
fn opaque_all_the_way_down() -> Result<()> {
    let needle = Chance::new("all the way down").needle();
    let mut stack = Stack::new()?;
    stack.write(&format!("layer/etc/conf.d/{needle}"), "old")?;
    stack.write("layer/etc/conf.d/kept", "old")?;
    stack.write("layer/etc/hosts", "old")?;
    stack.show_by_hand("layer")?;
    fs::remove_dir_all(stack.at("merged/etc"))?;
    stack.write("merged/etc/conf.d/kept", "new")?;
    stack.hide()?;
    let should =
        [format!("D /etc/conf.d/{needle}"), "C /etc/conf.d/kept".into(), "D /etc/hosts".into()];
    is_told(&stack, &should)
}
