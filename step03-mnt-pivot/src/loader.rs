//! Which libraries a program needs: the dynamic loader's search, done ahead of time.
//!
//! A program in an ELF file names its loader (`PT_INTERP`) and the libraries that it needs by bare
//! names (`DT_NEEDED`). The loader looks each of them up in directories that depend on the file
//! that asks (`DT_RPATH`, `DT_RUNPATH`), on the machine's settings, and on the loader itself:
//! glibc's and musl's differ. `ldd` finds out by running the loader, which is nothing to do to
//! files of other machines; here the files are only read.
//!
//! Source: [ld.so(8)](https://man7.org/linux/man-pages/man8/ld.so.8.html),
//! [ldconfig(8)](https://man7.org/linux/man-pages/man8/ldconfig.8.html), System V ABI
//! ["Dynamic linking"](https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.dynamic.html),
//! [musl's manual](https://musl.libc.org/doc/1.1.24/manual.html).

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    iter,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context, Result, bail, ensure};
use elf::{
    ElfBytes, abi,
    endian::AnyEndian,
    file::{Class, FileHeader},
    string_table::StringTable,
};
use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags, openat2};

/// A directory whose files are looked up as if it were the root: absolute links stay inside.
pub(crate) struct Tree {
    path: PathBuf,
    root: OwnedFd,
}

impl Tree {
    pub(crate) fn open_root(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::empty())?;
        Ok(Tree { path: path.into(), root })
    }

    /// Opens a file for reading.
    pub(crate) fn open(&self, path: &Path) -> io::Result<File> {
        // NONBLOCK, so that a FIFO in the place of a file doesn't stop the search for ever.
        self.open_with(path, OFlags::RDONLY | OFlags::NONBLOCK)
    }

    /// What stat(2) says of a file.
    pub(crate) fn stat(&self, path: &Path) -> io::Result<fs::Metadata> {
        if self.path == Path::new("/") {
            return fs::metadata(path); // One call instead of three, at every start of a container.
        }
        self.open_with(path, OFlags::PATH)?.metadata()
    }

    /// Where `path` leads if it is a link. None of the directories above it may be one.
    pub(crate) fn read_link(&self, path: &Path) -> Option<PathBuf> {
        fs::read_link(self.join(path)).ok()
    }

    /// The names in a directory, sorted; none if it can't be read.
    fn names(&self, dir: &Path) -> Vec<String> {
        let entries = self.open(dir).and_then(|dir| Ok(Dir::new(OwnedFd::from(dir))?));
        let names = entries.into_iter().flatten().flatten();
        let mut names: Vec<_> =
            names.filter_map(|e| e.file_name().to_str().ok().map(String::from)).collect();
        names.sort();
        names
    }

    fn join(&self, path: &Path) -> PathBuf {
        self.path.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn open_with(&self, path: &Path, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC;
        loop {
            match openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
                // Something was renamed while the kernel went up a "..".
                Err(rustix::io::Errno::AGAIN) => continue,
                result => return Ok(result?.into()),
            }
        }
    }
}

/// An ELF file, as far as the loader looks at it.
struct Elf {
    /// What it is made for: a 64-bit program can't use a 32-bit library of the same name.
    kind: (Class, AnyEndian, u16),
    interpreter: Option<PathBuf>,
    soname: Option<String>,
    needed: Vec<String>,
    /// The directories of `DT_RPATH`, the older of the two ways, inherited by libraries.
    rpath: Vec<String>,
    /// The directories of `DT_RUNPATH`, which are for the file's own needs alone.
    runpath: Option<Vec<String>>,
}

impl Elf {
    /// # Errors
    /// If it isn't an ELF file that a loader would take.
    fn parse(bytes: &[u8]) -> Result<Self> {
        let file = ElfBytes::<AnyEndian>::minimal_parse(bytes)?;
        let FileHeader { class, endianness, e_machine, .. } = file.ehdr;
        let mut elf = Elf {
            kind: (class, endianness, e_machine),
            interpreter: None,
            soname: None,
            needed: Vec::new(),
            rpath: Vec::new(),
            runpath: None,
        };
        let segments = file.segments().context("it has no segments")?;
        if let Some(segment) = segments.iter().find(|s| s.p_type == abi::PT_INTERP) {
            let name = file.segment_data(&segment)?;
            elf.interpreter = Some(StringTable::new(name).get(0)?.into());
        }
        // Nothing here goes by the names of sections: the loader needs none, so they may be missing.
        let Some(table) = file.dynamic()? else { return Ok(elf) };
        let value = |tag| table.iter().find(|d| d.d_tag == tag).map(|d| d.d_val());
        let Some(address) = value(abi::DT_STRTAB) else { return Ok(elf) };
        let strings = strings(&file, address)?;
        let get = |offset: u64| anyhow::Ok(strings.get(usize::try_from(offset)?)?.to_owned());
        let dirs = |list: String| list.split(':').map(String::from).collect::<Vec<_>>();
        for entry in table.iter() {
            match entry.d_tag {
                abi::DT_NEEDED => elf.needed.push(get(entry.d_val())?),
                abi::DT_SONAME => elf.soname = Some(get(entry.d_val())?),
                abi::DT_RPATH => elf.rpath = dirs(get(entry.d_val())?),
                abi::DT_RUNPATH => elf.runpath = Some(dirs(get(entry.d_val())?)),
                _ => {}
            }
        }
        Ok(elf)
    }
}

/// The table of strings that is at `address` once the file is loaded.
fn strings<'a>(file: &ElfBytes<'a, AnyEndian>, address: u64) -> Result<StringTable<'a>> {
    let mut loaded = file.segments().into_iter().flatten().filter(|s| s.p_type == abi::PT_LOAD);
    let (segment, start) = loaded
        .find_map(|s| Some((s, address.checked_sub(s.p_vaddr).filter(|&at| at < s.p_filesz)?)))
        .context("its table of strings isn't loaded")?;
    Ok(StringTable::new(&file.segment_data(&segment)?[start as usize..]))
}

/// A file of a program that is being looked at: the program, or a library that it needs.
struct Object {
    /// Where it was found. For the program itself no part of this is a link.
    path: PathBuf,
    elf: Rc<Elf>,
    /// Which of the objects before it needs it.
    needed_by: Option<usize>,
}

impl Object {
    /// Whether the loader would take this for the library of that name.
    fn is(&self, name: &str) -> bool {
        self.elf.soname.as_deref() == Some(name) || self.path.file_name() == Some(name.as_ref())
    }
}

/// How a loader searches, apart from what the files themselves say.
struct Settings {
    musl: bool,
    /// The directories for libraries that no file says more about.
    dirs: Vec<PathBuf>,
}

/// Looks up the libraries of one program after the other, reading each file once.
pub(crate) struct Loader<'a> {
    tree: &'a Tree,
    files: HashMap<PathBuf, Option<Rc<Elf>>>,
    settings: HashMap<PathBuf, Rc<Settings>>,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(tree: &'a Tree) -> Self {
        Loader { tree, files: HashMap::new(), settings: HashMap::new() }
    }

    /// The files that the loader opens to start `program`, a path without links: the loader
    /// itself, and libraries by the paths at which it finds them. None for a static program.
    ///
    /// Of glibc's libraries in `also`, which no file names, those that there are.
    ///
    /// # Errors
    /// If it isn't a program in an ELF file, or a library isn't found.
    pub(crate) fn needs(&mut self, program: &Path, also: &[&str]) -> Result<Vec<PathBuf>> {
        let elf = self.program(program)?;
        let Some(interpreter) = elf.interpreter.clone() else { return Ok(Vec::new()) };
        let settings = self.settings_of(&interpreter);
        let loader = self
            .read(&interpreter)
            .with_context(|| format!("its loader {interpreter:?} isn't there"))?;
        let kind = elf.kind;
        ensure!(loader.kind == kind, "its loader {interpreter:?} is for another kind of program");
        let mut objects = vec![
            Object { path: program.into(), elf, needed_by: None },
            Object { path: interpreter, elf: loader, needed_by: None },
        ];
        for name in also.iter().filter(|_| !settings.musl) {
            let _ = self.load(&mut objects, &settings, 0, name);
        }
        // In the order of the needs: an earlier library may be the one that a later one asks for.
        let mut next = 0;
        while next < objects.len() {
            for name in objects[next].elf.needed.clone() {
                self.load(&mut objects, &settings, next, &name)?;
            }
            next += 1;
        }
        Ok(objects.into_iter().skip(1).map(|object| object.path).collect())
    }

    /// Reads the file of a program.
    fn program(&mut self, path: &Path) -> Result<Rc<Elf>> {
        let mut bytes = Vec::new();
        self.tree.open(path)?.read_to_end(&mut bytes)?;
        ensure!(!bytes.starts_with(b"#!"), "it's a script");
        Elf::parse(&bytes).map(Rc::new).context("it isn't a program in an ELF file")
    }

    /// Adds the library `name`, and says who needs it if there is none.
    fn load(
        &mut self,
        objects: &mut Vec<Object>,
        settings: &Settings,
        needed_by: usize,
        name: &str,
    ) -> Result<()> {
        if objects[1..].iter().any(|o| o.is(name)) || settings.musl && is_part_of_musl(name) {
            return Ok(());
        }
        let candidates = match name.contains('/') {
            true => places(name, &objects[needed_by].path, settings),
            false => {
                let dirs = search_path(objects, settings, needed_by);
                dirs.into_iter().map(|dir| dir.join(name)).collect()
            }
        };
        let kind = objects[0].elf.kind;
        for path in candidates {
            if let Some(elf) = self.read(&path).filter(|elf| elf.kind == kind) {
                objects.push(Object { path, elf, needed_by: Some(needed_by) });
                return Ok(());
            }
        }
        bail!("the library {name:?} isn't found, which {:?} needs", objects[needed_by].path)
    }

    /// Reads an ELF file, unless it has been read before. `None` if there is none of this name.
    fn read(&mut self, path: &Path) -> Option<Rc<Elf>> {
        if let Some(elf) = self.files.get(path) {
            return elf.clone();
        }
        let read = || {
            let mut file = self.tree.open(path).ok()?;
            let mut bytes = Vec::new();
            file.metadata().ok()?.is_file().then(|| file.read_to_end(&mut bytes))?.ok()?;
            // A text file is possible: some libraries' development files are scripts for `ld`.
            Elf::parse(&bytes).ok().map(Rc::new)
        };
        let elf = read();
        self.files.insert(path.into(), elf.clone());
        elf
    }

    fn settings_of(&mut self, interpreter: &Path) -> Rc<Settings> {
        if let Some(settings) = self.settings.get(interpreter) {
            return settings.clone();
        }
        let settings = Rc::new(match musl_path_file(interpreter) {
            Some(file) => Settings { musl: true, dirs: musl_dirs(self.tree, &file) },
            None => Settings { musl: false, dirs: glibc_dirs(self.tree) },
        });
        self.settings.insert(interpreter.into(), settings.clone());
        settings
    }
}

/// The directories in which the loader looks for what `objects[needed_by]` needs, first one first.
fn search_path(objects: &[Object], settings: &Settings, needed_by: usize) -> Vec<PathBuf> {
    let chain = iter::successors(Some(&objects[needed_by]), |o| Some(&objects[o.needed_by?]));
    let own = objects[needed_by].elf.runpath.as_ref();
    let mut dirs = Vec::new();
    for Object { path, elf, .. } in chain {
        // glibc: the RPATHs of the whole chain, unless the file has a RUNPATH, which is for it
        // alone. musl: either of the two, for the whole chain.
        let list = match (settings.musl, own) {
            (true, _) => elf.runpath.as_ref().unwrap_or(&elf.rpath),
            (false, Some(own)) => own,
            (false, None) if elf.runpath.is_none() => &elf.rpath,
            (false, None) => continue,
        };
        dirs.extend(list.iter().flat_map(|dir| places(dir, path, settings)));
        if !settings.musl && own.is_some() {
            break;
        }
    }
    dirs.extend_from_slice(&settings.dirs);
    dirs
}

/// What a path in the file `asker` stands for: `$ORIGIN` is the file's directory, `$PLATFORM` the
/// processor. `$LIB` is built into a loader, so all that it may be is tried.
fn places(path: &str, asker: &Path, settings: &Settings) -> Vec<PathBuf> {
    let replace = |path: &str, name: &str, value: &str| {
        path.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value)
    };
    let origin = asker.parent().unwrap_or(Path::new("/")).to_string_lossy();
    let path = replace(path, "ORIGIN", &origin);
    let machine = rustix::system::uname();
    let path = replace(&path, "PLATFORM", &machine.machine().to_string_lossy());
    let libs = settings.dirs.iter().filter_map(|dir| {
        let dir = dir.strip_prefix("/usr").or(dir.strip_prefix("/")).ok()?.to_str()?;
        dir.starts_with("lib").then_some(dir)
    });
    let mut paths: Vec<PathBuf> =
        libs.map(|lib| PathBuf::from(replace(&path, "LIB", lib))).collect();
    paths.push(path.into());
    paths.dedup();
    // Relative to the current directory, which is another one each time. An empty one is that, too.
    paths.retain(|path| path.is_absolute());
    paths
}

/// glibc's directories: those of `/etc/ld.so.conf`, then those that it has built in. The last
/// differ: Fedora has `lib64`, Debian directories named for the machine.
fn glibc_dirs(tree: &Tree) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    read_ld_so_conf(tree, Path::new("/etc/ld.so.conf"), 0, &mut dirs);
    for lib in ["/lib", "/usr/lib"].map(Path::new) {
        let names = tree.names(lib).into_iter();
        dirs.extend(names.filter(|name| name.contains("-linux-gnu")).map(|name| lib.join(name)));
    }
    dirs.extend(["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(PathBuf::from));
    dirs
}

/// Reads a file with a directory on each line, or `include` and a pattern for further files.
fn read_ld_so_conf(tree: &Tree, file: &Path, depth: u32, dirs: &mut Vec<PathBuf>) {
    let mut text = String::new();
    let read = tree.open(file).and_then(|mut file| file.read_to_string(&mut text));
    if read.is_err() || depth > 8 {
        return; // No such file is needed; and one may include itself.
    }
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        match line.split_once(char::is_whitespace) {
            Some(("include", patterns)) => {
                for included in patterns.split_whitespace().flat_map(|p| glob(tree, file, p)) {
                    read_ld_so_conf(tree, &included, depth + 1, dirs);
                }
            }
            _ if line.starts_with('/') => dirs.push(line.into()),
            _ => {}
        }
    }
}

/// The files that a pattern with up to one `*`, in its last part, stands for.
fn glob(tree: &Tree, relative_to: &Path, pattern: &str) -> Vec<PathBuf> {
    let pattern = relative_to.parent().unwrap_or(Path::new("/")).join(pattern);
    let (Some(dir), Some(name)) = (pattern.parent(), pattern.file_name().and_then(|n| n.to_str()))
    else {
        return Vec::new();
    };
    let Some((start, end)) = name.split_once('*') else { return vec![pattern] };
    let fits = |name: &String| {
        let long_enough = name.len() >= start.len() + end.len();
        long_enough && name.starts_with(start) && name.ends_with(end) && !name.starts_with('.')
    };
    tree.names(dir).into_iter().filter(fits).map(|name| dir.join(name)).collect()
}

/// The file that tells musl's loader where to look, if `interpreter` is one: its own name says so.
pub(crate) fn musl_path_file(interpreter: &Path) -> Option<PathBuf> {
    let name = interpreter.file_name()?.to_str()?;
    let machine = name.strip_prefix("ld-musl-")?.split(".so").next()?;
    Some(format!("/etc/ld-musl-{machine}.path").into())
}

fn musl_dirs(tree: &Tree, file: &Path) -> Vec<PathBuf> {
    let mut text = String::new();
    let read = tree.open(file).and_then(|mut file| file.read_to_string(&mut text));
    let dirs = if read.is_ok() { &text } else { "/lib:/usr/local/lib:/usr/lib" };
    dirs.split([':', '\n']).filter(|dir| dir.starts_with('/')).map(PathBuf::from).collect()
}

/// Whether a library is musl's loader by another name: it holds all of C's standard library.
fn is_part_of_musl(name: &str) -> bool {
    let stem = name.strip_prefix("lib").and_then(|name| name.split_once('.'));
    stem.is_some_and(|(stem, _)| ["c", "pthread", "rt", "m", "dl", "util", "xnet"].contains(&stem))
}
