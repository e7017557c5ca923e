//! A root file system made from this machine's own programs: does what is made really run, is it
//! found again, and is it made anew when it has to be?
//!
//! Other machines are modelled by trees of files that are laid out as theirs are. Their programs
//! are compiled here and run inside what was made of them, so the real loader has the last word.

use std::{
    collections::BTreeSet,
    env,
    fs::{self, File, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use elf::{ElfBytes, abi, endian::AnyEndian};
use mnt::rootfs::{self, PROGRAMS, Recipe, Rootfs};
use nix::unistd::{Gid, Uid};

/// One test at a time: a process that another test starts would inherit this one's locks, for the
/// moment between fork(2) and exec(2), and what isn't used any more would seem to be in use.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory for one test, removed in the end.
struct Dir(PathBuf, #[allow(dead_code)] MutexGuard<'static, ()>);

impl Dir {
    fn new(test: &str) -> Self {
        let alone = alone();
        let dir = env::temp_dir().join(format!("rootfs-test-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("host/usr/bin")).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        Dir(dir, alone)
    }

    /// A path on the modelled host; the directory above it is made.
    fn host(&self, path: &str) -> PathBuf {
        let path = self.0.join("host").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn make(&self, programs: &[&str]) -> anyhow::Result<Rootfs> {
        make(&self.0.join("host"), &self.0.join("cache"), programs)
    }

    /// The names in the cache, but for the lock.
    fn cached(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.join("cache")).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != "lock");
        names.sort();
        names
    }

    /// Runs [`child`], in a process that can be limited or killed, by way of `prefix`.
    fn child(&self, prefix: &[&str]) -> Output {
        let me = env::current_exe().unwrap();
        let own = [me.to_str().unwrap(), "child", "--exact", "--ignored", "--nocapture"];
        let command: Vec<_> = prefix.iter().chain(&own).collect();
        Command::new(command[0])
            .args(&command[1..])
            .env("ROOTFS_TEST_DIR", &self.0)
            .env_remove("RUST_BACKTRACE")
            .output()
            .unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn make(host: &Path, cache: &Path, programs: &[&str]) -> anyhow::Result<Rootfs> {
    let owner = (Uid::effective(), Gid::effective());
    rootfs::make(&Recipe { host, programs, cache, owner })
}

/// Says that a test can't run here, which is a failure where all must run.
fn skip(name: &str, reason: &str) {
    println!("SKIP {name}: {reason}");
    assert!(env::var_os("CONTAINERS_MUST_RUN").is_none(), "{name} must run, but {reason}");
}

/// Whether the program works here; if not, `test` is skipped.
fn can(test: &str, program: &str, args: &[&str]) -> bool {
    let _alone = alone();
    let output = Command::new(program).args(args).output();
    let can = output.is_ok_and(|output| output.status.success());
    if !can {
        skip(test, &format!("{program} {} doesn't work here", args.join(" ")));
    }
    can
}

/// Arguments of `unshare`, to try whether this user may mount inside, and start processes there.
const MOUNTING: &[&str] = &["-Urm", "mount", "-t", "tmpfs", "t", "/mnt"];
const RUNNING: &[&str] = &["-Urmpf", "mount", "-t", "proc", "p", "/proc"];

/// Whether programs can be compiled here and then run inside.
fn can_compile_and_run(test: &str, compiler: &str) -> bool {
    can(test, compiler, &["--version"]) && can(test, "unshare", RUNNING)
}

/// What `command` prints inside, where it runs as root of a user namespace, with /proc.
fn run(root: &Path, command: &[&str]) -> String {
    let script = r#"mount -t proc proc "$0/proc" && exec chroot "$0" "$@""#;
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "sh", "-c", script])
        .arg(root)
        .args(command)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Compiles C source text with `compiler`.
fn compile(compiler: &str, source: &str, to: &Path, flags: &[&str]) {
    let text = to.with_extension("c");
    fs::write(&text, source).unwrap();
    let output = Command::new(compiler).arg(&text).arg("-o").arg(to).args(flags).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::remove_file(text).unwrap();
}

/// A program that says by what name it was called and what its library answers.
const MAIN: &str = r#"
    #include <stdio.h>
    const char *greet(void);
    int main(int argc, char **argv) { printf("%s %s\n", argv[0], greet()); }
"#;

fn library(answer: &str) -> String {
    format!("const char *greet(void) {{ return \"{answer}\"; }}")
}

/// The loader that a program asks for.
fn interpreter(program: &Path) -> String {
    let bytes = fs::read(program).unwrap();
    let file = ElfBytes::<AnyEndian>::minimal_parse(&bytes).unwrap();
    let segment = file.segments().unwrap().iter().find(|s| s.p_type == abi::PT_INTERP).unwrap();
    let name = file.segment_data(&segment).unwrap();
    std::str::from_utf8(name).unwrap().trim_end_matches('\0').into()
}

/// Compiles a library, whose name is that of its file.
fn compile_library(compiler: &str, source: &str, to: &Path, flags: &[&str]) {
    let name = format!("-Wl,-soname,{}", to.file_name().unwrap().to_str().unwrap());
    compile(compiler, source, to, &[&["-shared", "-fPIC", &name], flags].concat());
}

/// Makes a host like Fedora, with `lib64`: this machine's loader and C library, the settings, and
/// the cache that `ldconfig` makes of them.
fn add_glibc(dir: &Dir, program: &Path) {
    for lib in ["lib", "lib64"] {
        fs::create_dir_all(dir.host("usr").join(lib)).unwrap();
        symlink(Path::new("usr").join(lib), dir.host(lib)).unwrap();
    }
    let loader = interpreter(program);
    fs::copy(&loader, dir.host(loader.trim_start_matches('/'))).unwrap();
    let libc = Command::new("gcc").arg("-print-file-name=libc.so.6").output().unwrap().stdout;
    fs::copy(String::from_utf8(libc).unwrap().trim(), dir.host("usr/lib64/libc.so.6")).unwrap();
    fs::write(dir.host("etc/ld.so.conf"), "# all\ninclude ld.so.conf.d/*.conf\n").unwrap();
    fs::write(dir.host("etc/ld.so.conf.d/64.conf"), "/opt/greet # ours\n/usr/lib64\n").unwrap();
    let args = ["--user", "--map-root-user", "/sbin/ldconfig", "-r"];
    let made = Command::new("unshare").args(args).arg(dir.0.join("host")).output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// The bytes of a static program, of `size`. It can be looked at, not run.
fn static_program(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size.max(120)];
    bytes[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\0");
    bytes[20] = 1; // e_version
    bytes[32] = 64; // e_phoff
    bytes[52] = 64; // e_ehsize
    bytes[54] = 56; // e_phentsize
    bytes[56] = 1; // e_phnum
    bytes[64] = 1; // p_type: PT_LOAD
    bytes
}

/// Puts a static program on the modelled host.
fn add_program(dir: &Dir, path: &str, size: usize) {
    let to = dir.host(path);
    fs::write(&to, static_program(size)).unwrap();
    fs::set_permissions(to, Permissions::from_mode(0o755)).unwrap();
}

/// The body of a child process of the tests: it makes a root file system out of
/// `$ROOTFS_TEST_DIR`, and prints how that went.
#[test]
#[ignore = "only other tests start it"]
fn child() {
    let dir = PathBuf::from(env::var_os("ROOTFS_TEST_DIR").expect("a test sets it"));
    let made = match env::var_os("ROOTFS_TEST_FROM_HOST") {
        Some(_) => rootfs::from_host((Uid::effective(), Gid::effective())),
        None => make(&dir.join("host"), &dir.join("cache"), &["sh", "ls"]),
    };
    match made {
        Ok(rootfs) => println!("MADE {}", rootfs.display()),
        Err(error) => println!("ERROR {error:#}"),
    }
}

#[test]
fn this_machine_s_programs_run() {
    if !can("this_machine_s_programs_run", "unshare", RUNNING) {
        return;
    }
    let dir = Dir::new("run");
    let root = make(Path::new("/"), &dir.0.join("cache"), PROGRAMS).unwrap();

    let top = run(&root, &["ls", "/"]);
    for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr"] {
        assert!(top.lines().any(|line| line == name), "{name} in {top}");
    }
    assert!(run(&root, &["id"]).starts_with("uid=0(root) gid=0(root)"));
    assert!(run(&root, &["ps", "-e"]).contains(" ps"));
    assert!(run(&root, &["ip", "addr"]).contains("lo:"));
    assert_eq!(run(&root, &["sh", "-c", "echo $((6 * 7)) | sed s/4/x/"]), "x2\n");
}

/// The loader inside says itself whether it finds all that each program needs.
#[test]
fn every_program_finds_its_libraries() {
    if !can("every_program_finds_its_libraries", "unshare", RUNNING) {
        return;
    }
    let dir = Dir::new("libraries");
    let root = make(Path::new("/"), &dir.0.join("cache"), PROGRAMS).unwrap();
    let mut checked = 0;
    for program in fs::read_dir(root.join("usr/bin")).unwrap() {
        let program = program.unwrap().path();
        let inside = format!("/usr/bin/{}", program.file_name().unwrap().to_str().unwrap());
        let bytes = fs::read(&program).unwrap();
        let file = ElfBytes::<AnyEndian>::minimal_parse(&bytes).unwrap();
        if file.segments().unwrap().iter().any(|s| s.p_type == abi::PT_INTERP) {
            let list = run(&root, &[&interpreter(&program), "--list", &inside]);
            assert!(list.contains(" => ") && !list.contains("not found"), "{inside}: {list}");
            checked += 1;
        }
    }
    assert!(checked > 0, "there is no dynamic program");
}

/// Programs with more rights than their user's, such as `mount` and `ping`, lose them: in a user's
/// cache they would give everybody on the machine that user's rights.
#[test]
fn no_copy_has_special_rights() {
    let dir = Dir::new("rights");
    add_program(&dir, "usr/bin/sh", 0);
    fs::set_permissions(dir.host("usr/bin/sh"), Permissions::from_mode(0o6755)).unwrap();
    let root = dir.make(&["sh"]).unwrap();
    assert_eq!(fs::metadata(root.join("bin/sh")).unwrap().mode() & 0o7777, 0o755);
}

/// `$ORIGIN` in a RUNPATH is for the file's own needs; a RPATH serves the libraries' needs as well.
#[test]
fn libraries_beside_the_program() {
    const NAME: &str = "libraries_beside_the_program";
    if !can_compile_and_run(NAME, "gcc") {
        return;
    }
    for (tags, program_path, library_path) in [
        ("--enable-new-dtags", "$ORIGIN/../lib/greet", "${ORIGIN}/deep"),
        ("--disable-new-dtags", "/none:$ORIGIN/../lib/greet:$ORIGIN/../lib/greet/deep", ""),
    ] {
        let dir = Dir::new(tags);
        let (deep, greet) =
            (dir.host("usr/lib/greet/deep/libdeep.so"), dir.host("usr/lib/greet/libgreet.so"));
        compile_library("gcc", "int deep(void) { return 0; }", &deep, &[]);
        let path = format!("-Wl,{tags},-rpath,{library_path}");
        let path = if library_path.is_empty() { vec![] } else { vec![path.as_str()] };
        let source = "int deep(void); const char *greet(void) { return deep() ? 0 : \"found\"; }";
        let flags = [&[deep.to_str().unwrap()], &path[..]].concat();
        compile_library("gcc", source, &greet, &flags);
        let program = dir.host("usr/bin/hello");
        let path = format!("-Wl,{tags},--allow-shlib-undefined,-rpath,{program_path}");
        compile("gcc", MAIN, &program, &[greet.to_str().unwrap(), &path]);
        add_glibc(&dir, &program);

        let root = dir.make(&["hello"]).unwrap();
        assert!(root.join("usr/lib/greet/deep/libdeep.so").exists(), "{tags}");
        assert_eq!(run(&root, &["/bin/hello"]), "/bin/hello found\n", "{tags}");
    }
}

/// A directory of `ld.so.conf` holds the right library; an earlier one holds it for another machine.
#[test]
fn a_machine_like_fedora() {
    if !can_compile_and_run("a_machine_like_fedora", "gcc") {
        return;
    }
    let dir = Dir::new("fedora");
    let (right, program) = (dir.host("opt/greet/libgreet.so.1"), dir.host("usr/bin/real-hello"));
    compile_library("gcc", &library("right"), &right, &[]);
    compile("gcc", MAIN, &program, &[right.to_str().unwrap(), "-Wl,-rpath,/opt/other"]);
    fs::rename(&right, dir.host("opt/greet/libgreet.so.1.2")).unwrap();
    symlink("libgreet.so.1.2", &right).unwrap();
    let mut other = fs::read(&right).unwrap();
    other[18] ^= 0xff; // e_machine
    fs::write(dir.host("opt/other/libgreet.so.1"), other).unwrap();
    // By way of a link that names the file from the root, as Debian's alternatives do.
    symlink("/etc/alternatives/hello", dir.host("usr/bin/hello")).unwrap();
    symlink("/usr/bin/real-hello", dir.host("etc/alternatives/hello")).unwrap();
    add_glibc(&dir, &program);

    let root = dir.make(&["hello"]).unwrap();
    assert_eq!(run(&root, &["/bin/hello"]), "/bin/hello right\n");
    assert_eq!(fs::read_link(root.join("lib64")).unwrap(), Path::new("usr/lib64"));
    assert_eq!(fs::read_link(root.join("usr/bin/hello")).unwrap(), Path::new("real-hello"));
    let link = root.join("opt/greet/libgreet.so.1");
    assert_eq!(fs::read_link(link).unwrap(), Path::new("libgreet.so.1.2"));
    assert!(!root.join("opt/other").exists());

    let new = dir.host("opt/greet/new");
    compile_library("gcc", &library("updated"), &new, &[]);
    fs::rename(new, dir.host("opt/greet/libgreet.so.1.2")).unwrap();
    let root = dir.make(&["hello"]).unwrap();
    assert_eq!(run(&root, &["/bin/hello"]), "/bin/hello updated\n");
}

/// One program with many names, in /bin and not in /usr/bin, and musl's way to find libraries.
#[test]
fn a_machine_like_alpine() {
    if !can_compile_and_run("a_machine_like_alpine", "musl-gcc") {
        return;
    }
    let dir = Dir::new("alpine");
    let (lib, program) = (dir.host("opt/lib/libgreet.so"), dir.host("bin/busybox"));
    compile_library("musl-gcc", &library("musl"), &lib, &[]);
    compile("musl-gcc", MAIN, &program, &[lib.to_str().unwrap(), "-Wl,-rpath,/opt/lib"]);
    let loader = interpreter(&program);
    let name = Path::new(&loader).file_name().unwrap().to_str().unwrap();
    fs::copy(&loader, dir.host(&format!("lib/{name}"))).unwrap();
    for (link, target) in
        [("bin/sh", "/bin/busybox"), ("sbin/ip", "../bin/busybox"), ("usr/bin/id", "/bin/busybox")]
    {
        symlink(target, dir.host(link)).unwrap();
    }
    fs::hard_link(&program, dir.host("bin/ls")).unwrap();

    let programs = ["sh", "ls", "ip", "id", "ps"];
    let root = dir.make(&programs).unwrap();
    for program in &programs[..4] {
        let inside = format!("/bin/{program}");
        assert_eq!(run(&root, &[&inside]), format!("{inside} musl\n"));
    }
    let files = fs::read_dir(root.join("usr/bin")).unwrap().map(|entry| entry.unwrap());
    let files = files.filter(|entry| entry.file_type().unwrap().is_file());
    assert_eq!(files.count(), 1, "copied once");

    // Without a RPATH, the library is where the settings say, as they replace what is built in.
    drop(root);
    compile("musl-gcc", MAIN, &program, &[lib.to_str().unwrap()]);
    let error = format!("{:#}", dir.make(&["busybox"]).unwrap_err());
    assert!(error.contains("libgreet.so"), "{error}");
    let settings = name.replace(".so.1", ".path");
    fs::write(dir.host(&format!("etc/{settings}")), "/none\n/opt/lib:/lib\n").unwrap();
    let root = dir.make(&["busybox"]).unwrap();
    assert_eq!(run(&root, &["/bin/busybox"]), "/bin/busybox musl\n");
}

#[test]
fn what_cannot_run_is_left_out() {
    let dir = Dir::new("left-out");
    add_program(&dir, "usr/bin/sh", 0);
    fs::write(dir.host("usr/bin/script"), "#!/bin/sh\n").unwrap();
    fs::write(dir.host("usr/bin/text"), "text").unwrap();
    for name in ["script", "text"] {
        let mode = Permissions::from_mode(0o755);
        fs::set_permissions(dir.host("usr/bin").join(name), mode).unwrap();
    }
    symlink("loop", dir.host("usr/bin/loop")).unwrap();
    let root = dir.make(&["sh", "script", "text", "loop", "missing"]).unwrap();
    let [script, text] = root.left_out() else { panic!("{:?}", root.left_out()) };
    assert_eq!(script, "script: it's a script");
    assert!(text.starts_with("text: it isn't a program"), "{text}");
    // The reasons are known later, too.
    assert_eq!(dir.make(&["sh", "script", "text", "loop", "missing"]).unwrap().left_out().len(), 2);

    let error = format!("{:#}", dir.make(&["missing", "sh"]).unwrap_err());
    assert!(error.contains("\"missing\"") && error.contains("--rootfs"), "{error}");
    let error = format!("{:#}", dir.make(&["script"]).unwrap_err());
    assert!(error.contains("/usr/bin/script: it's a script"), "{error}");
}

#[test]
fn it_is_found_again() {
    let dir = Dir::new("again");
    add_program(&dir, "usr/bin/sh", 0);
    let first = dir.make(&["sh"]).unwrap();
    // What a container writes beside the programs stays, and what it edits in /etc.
    fs::write(first.join("tmp/file"), "").unwrap();
    fs::write(first.join("etc/hosts"), "").unwrap();
    let second = dir.make(&["sh"]).unwrap();
    assert_eq!(first.as_ref(), second.as_ref());
    assert!(second.join("tmp/file").exists());
    assert_eq!(dir.cached().len(), 1);
}

#[test]
fn a_changed_program_is_taken_over() {
    let dir = Dir::new("changed");
    add_program(&dir, "usr/bin/sh", 200);
    let old = dir.make(&["sh", "ls"]).unwrap();
    add_program(&dir, "usr/bin/sh", 300);
    let new = dir.make(&["sh", "ls"]).unwrap();
    assert_eq!(fs::metadata(new.join("bin/sh")).unwrap().len(), 300);
    assert!(old.join("bin/sh").exists(), "it is in use");
    let old_path = old.to_path_buf();
    drop((old, new));

    // A program that wasn't there before.
    add_program(&dir, "usr/bin/ls", 0);
    let newest = dir.make(&["sh", "ls"]).unwrap();
    assert!(newest.join("bin/ls").exists());
    assert!(!old_path.exists(), "nobody uses it");
    assert_eq!(dir.cached().len(), 1);
}

/// Returns when a change of `file` would get another time than its last one: the clock of many file
/// systems ticks every few milliseconds.
fn wait_for_the_clock(file: &Path) {
    let changed = |path: &Path| fs::metadata(path).map(|m| (m.ctime(), m.ctime_nsec())).unwrap();
    let other = file.with_extension("clock");
    while {
        fs::write(&other, "").unwrap();
        changed(&other) <= changed(file)
    } {}
}

#[test]
fn a_damaged_root_is_made_anew() {
    let dir = Dir::new("damaged");
    add_program(&dir, "usr/bin/sh", 200);
    type Damage = fn(&Path);
    let damages: [Damage; 4] = [
        |root| fs::remove_file(root.join("usr/bin/sh")).unwrap(),
        |root| fs::remove_dir_all(root).unwrap(),
        |root| fs::remove_dir(root.join("proc")).unwrap(),
        |root| {
            // Other contents of the same size, and the old time put back.
            let program = root.join("usr/bin/sh");
            let time = fs::metadata(&program).unwrap().modified().unwrap();
            wait_for_the_clock(&program);
            fs::write(&program, [0; 200]).unwrap();
            File::options().write(true).open(program).unwrap().set_modified(time).unwrap();
        },
    ];
    for damage in damages {
        let used = dir.make(&["sh"]).unwrap();
        damage(&used);
        let new = dir.make(&["sh"]).unwrap();
        assert_ne!(new.as_ref(), used.as_ref(), "never pulled away from under a container");
        assert_eq!(fs::read(new.join("bin/sh")).unwrap(), static_program(200));
        assert!(new.join("proc").exists());
    }
    // Of those in use before, the last may still be there.
    assert!(dir.cached().len() <= 2, "{:?}", dir.cached());
}

#[test]
fn many_at_once_make_one() {
    let dir = Dir::new("many");
    for n in 0..50 {
        add_program(&dir, &format!("usr/bin/p{n}"), 100_000);
    }
    let names: Vec<_> = (0..50).map(|n| format!("p{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let made: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| dir.make(&names).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let paths: BTreeSet<_> = made.iter().map(|rootfs| rootfs.to_path_buf()).collect();
    assert_eq!(paths.len(), 1, "{paths:?}");
    assert_eq!(dir.cached().len(), 1);
    assert_eq!(fs::read_dir(made[0].join("usr/bin")).unwrap().count(), 50);
}

/// The kernel kills the process in the middle of the copy: `ulimit -f` is in units of 512 or 1024.
#[test]
fn what_a_killed_process_left_is_removed() {
    let dir = Dir::new("killed");
    add_program(&dir, "usr/bin/sh", 1_000_000);
    let output = dir.child(&["sh", "-c", "ulimit -c 0; ulimit -f 100; exec \"$@\"", "sh"]);
    assert!(!output.status.success(), "{output:?}");
    let [left] = &dir.cached()[..] else { panic!("{:?}", dir.cached()) };
    assert!(left.starts_with("new-"), "{left}");

    let root = dir.make(&["sh", "ls"]).unwrap();
    assert_eq!(fs::metadata(root.join("bin/sh")).unwrap().len(), 1_000_000);
    assert_eq!(dir.cached().len(), 1, "{:?}", dir.cached());
}

#[test]
fn a_full_disk_is_left_as_it_was() {
    if !can("a_full_disk_is_left_as_it_was", "unshare", MOUNTING) {
        return;
    }
    let dir = Dir::new("full");
    add_program(&dir, "usr/bin/sh", 1_000_000);
    fs::create_dir(dir.0.join("cache")).unwrap();
    let script = r#"mount -t tmpfs -o size=500k t "$ROOTFS_TEST_DIR/cache" && "$@" &&
        ls "$ROOTFS_TEST_DIR/cache""#;
    let output = dir.child(&["unshare", "-Urm", "sh", "-c", script, "sh"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let error = text.lines().find(|line| line.contains("ERROR")).expect("an error");
    assert!(error.contains("No space left") && error.contains("--rootfs"), "{error}");
    let (_, left) = text.trim_end().rsplit_once("\n\n").unwrap(); // After the child's own lines.
    assert_eq!(left, "lock");
}

/// Somebody mounted a directory with files in an old root, or a container's mount became the host's
/// since it forgot to make them private.
#[test]
fn a_forgotten_mount_is_not_emptied() {
    if !can("a_forgotten_mount_is_not_emptied", "unshare", MOUNTING) {
        return;
    }
    let dir = Dir::new("mount");
    add_program(&dir, "usr/bin/sh", 200);
    let old = dir.make(&["sh", "ls"]).unwrap().to_path_buf();
    let precious = dir.0.join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), "").unwrap();
    add_program(&dir, "usr/bin/sh", 300);
    let script = r#"mount --bind "$ROOTFS_TEST_DIR/precious" "$0/home" && exec "$@""#;
    let output = dir.child(&["unshare", "-Urm", "sh", "-c", script, old.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("MADE "), "{output:?}");
    assert!(precious.join("file").exists());
}

/// Whatever the umask, root of a container with shifted ids gets in, and others can use its /tmp.
#[test]
fn a_strict_umask_changes_nothing() {
    let dir = Dir::new("umask");
    add_program(&dir, "usr/bin/sh", 200);
    let output = dir.child(&["sh", "-c", "umask 077; exec \"$@\"", "sh"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("MADE "), "{output:?}");
    let root = dir.make(&["sh", "ls"]).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    for path in [&dir.0.join("cache"), root.parent().unwrap(), &root, &root.join("usr/bin")] {
        assert_eq!(mode(path), 0o755, "{path:?}");
    }
    assert_eq!(mode(&root.join("tmp")), 0o1777);
    assert_eq!(mode(&root.join("usr/bin/sh")), 0o755);
    assert_eq!(mode(&root.join("etc/passwd")), 0o644);
}

#[test]
fn all_of_it_belongs_to_the_owner() {
    let dir = Dir::new("owner");
    add_program(&dir, "usr/bin/sh", 200);
    symlink("sh", dir.host("usr/bin/dash")).unwrap();
    let (host, cache) = (dir.0.join("host"), dir.0.join("cache"));
    let owner = (Uid::from_raw(100_000), Gid::from_raw(200_000));
    let recipe = Recipe { host: &host, programs: &["sh", "dash"], cache: &cache, owner };
    let made = rootfs::make(&recipe);
    if !Uid::effective().is_root() {
        let error = format!("{:#}", made.unwrap_err());
        assert!(error.contains("100000:200000") && error.contains("not permitted"), "{error}");
        return;
    }
    let root = made.unwrap();
    let mut todo = vec![root.to_path_buf()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (100_000, 200_000), "{path:?}");
        if meta.is_dir() {
            todo.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    // One for each owner, side by side.
    let own = dir.make(&["sh", "dash"]).unwrap();
    assert_ne!(own.as_ref(), root.as_ref());
    drop((own, root));
    assert_eq!(dir.cached().len(), 2);
    add_program(&dir, "usr/bin/sh", 300);
    dir.make(&["sh", "dash"]).unwrap();
    assert_eq!(dir.cached().len(), 1);
}

/// Root of a user namespace may not write to the machine's directories, and has no home here.
#[test]
fn without_a_place_it_says_what_to_do() {
    if !can("without_a_place_it_says_what_to_do", "unshare", MOUNTING) {
        return;
    }
    let dir = Dir::new("place");
    let script = r#"mount -t tmpfs -o ro t /var/cache && ROOTFS_TEST_FROM_HOST=1 exec env "$@""#;
    let unshare = ["unshare", "-Urm", "sh", "-c", script, "sh"];
    let no_home = ["-u", "HOME", "-u", "XDG_CACHE_HOME"];
    let output = dir.child(&[&unshare[..], &no_home].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("ERROR there is no place"), "{output:?}");
    assert!(text.contains("Read-only file system"), "{text}");
    assert!(text.contains("--rootfs DIR") && text.contains("XDG_CACHE_HOME"), "{text}");

    let home = format!("HOME={}", dir.0.display());
    let xdg = format!("XDG_CACHE_HOME={}/xdg", dir.0.display());
    for (variables, cache) in [(["-uXDG_CACHE_HOME", &home], ".cache"), ([&xdg, &home], "xdg")] {
        let output = dir.child(&[&unshare[..], &variables].concat());
        let made = format!("MADE {}/{cache}/containers-from-scratch/rootfs-", dir.0.display());
        assert!(String::from_utf8_lossy(&output.stdout).contains(&made), "{output:?}");
    }
}
