//! Layers become a root file system: what the kernel makes of them, what a container leaves, and
//! how it becomes a layer again. Each test runs as root and as root of several user namespaces.

mod common;

use std::{
    env, fs,
    io::{self, Read},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use common::*;
use overlay::{Expected, Layers, Marks, Overlay, digest_of, pack, remove_dir, unpack};
use tar::EntryType;

/// A place for layers and a container, on a file system that overlayfs can write to.
struct Host(Dir);

impl Host {
    fn new() -> Self {
        let dir = temp_dir();
        for name in ["container", "merged"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Host(dir)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn layer(&self, name: &str, tar: Tar) -> PathBuf {
        unpack_into(&self.at(name), &tar.done()).unwrap();
        self.at(name)
    }

    fn mount(&self, layers: &[PathBuf]) -> anyhow::Result<PathBuf> {
        let merged = self.at("merged");
        // Volatile, or each test would wait for the disk when it unmounts.
        Overlay::new(layers, &self.at("container"), Marks::here())?.volatile().mount(&merged)?;
        Ok(merged)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        while rustix::mount::unmount(self.at("merged"), rustix::mount::UnmountFlags::DETACH).is_ok()
        {
        }
    }
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn one_layer() {
    run_as(MOUNTING, "one_layer", || {
        let host = Host::new();
        let needle = String::from_utf8_lossy(&random(16)).into_owned();
        let top = |header: &mut tar::Header| header.set_mode(0o711);
        let layer = Tar::new()
            .add(EntryType::Directory, "./", "", top)
            .file("file", &needle)
            .file("dir/removed", "x");
        let layer = host.layer("one", layer);
        let before = names(&layer);
        let merged = host.mount(std::slice::from_ref(&layer)).unwrap();
        assert_eq!(read(merged.join("file")), needle);
        // The root that is seen looks like the layer's.
        assert_eq!(fs::metadata(&merged).unwrap().mode() & 0o7777, 0o711);
        fs::write(merged.join("file"), "changed").unwrap();
        fs::write(merged.join("new"), "x").unwrap();
        fs::remove_dir_all(merged.join("dir")).unwrap();
        // The layer stays as it was, and the changes are the container's.
        assert_eq!(read(layer.join("file")), needle);
        assert_eq!(names(&layer), before);
        assert_eq!(names(&host.at("container/upper")), ["dir", "file", "new"]);
        assert!(is_whiteout(&host.at("container/upper/dir")));
    });
}

#[test]
fn three_layers() {
    run_as(MOUNTING, "three_layers", || {
        let host = Host::new();
        let one = Tar::new()
            .file("a", "1")
            .file("b", "1")
            .file("gone", "1")
            .file("dir/one", "1")
            .file("opaque/one", "1")
            .file("again/one", "1");
        let two = Tar::new()
            .file("b", "2")
            .file(".wh.gone", "")
            .file("dir/two", "2")
            .file("opaque/.wh..wh..opq", "")
            .file("opaque/two", "2")
            .file(".wh.again", "");
        let three =
            Tar::new().file("dir/.wh.one", "").file("again/three", "3").file(".wh.opaque", "");
        let two = host.layer("two", two);
        let (one, three) = (host.layer("one", one), host.layer("three", three));

        let merged = host.at("merged");
        let lower_two = [one.clone(), two.clone()];
        Overlay::read_only(&lower_two, Marks::here()).unwrap().mount(&merged).unwrap();
        assert_eq!(read(merged.join("a")) + &read(merged.join("b")), "12");
        assert_eq!(names(&merged), ["a", "b", "dir", "dir/one", "dir/two", "opaque", "opaque/two"]);
        rustix::mount::unmount(&merged, rustix::mount::UnmountFlags::empty()).unwrap();

        let merged = host.mount(&[one, two, three]).unwrap();
        assert_eq!(names(&merged), ["a", "again", "again/three", "b", "dir", "dir/two"]);
        // All of it can be removed, which takes the right place for the marks.
        for name in ["a", "b"] {
            fs::remove_file(merged.join(name)).unwrap();
        }
        for name in ["again", "dir"] {
            fs::remove_dir_all(merged.join(name)).unwrap();
        }
        assert_eq!(names(&merged), [""; 0]);
    });
}

/// More layers than fit into a page by their paths; and paths with what means something to mount.
#[test]
fn many_layers() {
    run_as(MOUNTING, "many_layers", || {
        let host = Host::new();
        let long = "a:long,path\\ ".repeat(10);
        fs::create_dir(host.at(&long)).unwrap();
        let layers: Vec<_> = (0..120)
            .map(|n: u32| {
                let tar = Tar::new().file(&format!("only-{n}"), "x").file("last", n.to_string());
                host.layer(&format!("{long}/{n}"), tar)
            })
            .collect();
        let merged = host.mount(&layers).unwrap();
        assert_eq!(names(&merged).len(), 121);
        assert_eq!(read(merged.join("last")), "119");
    });
}

#[test]
fn nothing_can_be_written_to_a_read_only_one() {
    run_as(MOUNTING, "nothing_can_be_written_to_a_read_only_one", || {
        let host = Host::new();
        let one = host.layer("one", Tar::new().file("a", "1"));
        let two = host.layer("two", Tar::new().file("b", "2"));
        for layers in [vec![one.clone()], vec![one, two]] {
            let merged = host.at("merged");
            Overlay::read_only(&layers, Marks::here()).unwrap().mount(&merged).unwrap();
            assert_eq!(read(merged.join("a")), "1");
            assert_eq!(names(&merged).len(), layers.len());
            let error = fs::write(merged.join("a"), "x").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
            rustix::mount::unmount(&merged, rustix::mount::UnmountFlags::empty()).unwrap();
        }
        let none: [PathBuf; 0] = [];
        let error = Overlay::read_only(&none, Marks::here()).err().unwrap();
        assert!(error.to_string().contains("at least one layer"), "{error}");
    });
}

/// The kernel takes no notice of the mark on the root of a layer, so the library does.
#[test]
fn a_layer_that_hides_all_below() {
    run_as(MOUNTING, "a_layer_that_hides_all_below", || {
        let host = Host::new();
        let one = host.layer("one", Tar::new().file("a", "1"));
        let two = host.layer("two", Tar::new().file(".wh..wh..opq", "").file("b", "2"));
        let three = host.layer("three", Tar::new().file("c", "3"));
        assert_eq!(names(&host.mount(&[one, two, three]).unwrap()), ["b", "c"]);
    });
}

/// Each advice stands beside a failure that really happens.
#[test]
fn failures_say_what_to_do() {
    run_as(MOUNTING, "failures_say_what_to_do", || {
        let host = Host::new();
        let one = host.layer("one", Tar::new().file("a/b", "1"));
        let fails = |layers: &[PathBuf], container: &Path, merged: &str| {
            let mounted = Overlay::new(layers, container, Marks::here())
                .and_then(|overlay| overlay.mount(&host.at(merged)));
            let error = format!("{:#}", mounted.unwrap_err());
            assert!(!error.contains("RUST_BACKTRACE"));
            error
        };
        let layers = std::slice::from_ref(&one);
        let container = host.at("container");

        let text = fails(&[host.at("missing")], &container, "merged");
        assert!(text.contains("missing") && text.contains("No such file"), "{text}");
        let text = fails(layers, &container, "missing");
        assert!(text.contains("ENOENT") && text.contains("missing"), "{text}");
        // A layer inside of another.
        let text = fails(&[host.0.path().to_owned(), one.clone()], &container, "merged");
        assert!(text.contains("ELOOP") && text.contains("lies inside of another"), "{text}");

        // An overlay on an overlay.
        let merged = host.mount(layers).unwrap();
        let on_overlay = merged.join("container");
        fs::create_dir(&on_overlay).unwrap();
        fs::create_dir(host.at("other")).unwrap();
        let text = fails(layers, &on_overlay, "other");
        assert!(text.contains("EINVAL") && text.contains("is on overlayfs"), "{text}");

        let many = vec![one.clone(); 300];
        fs::create_dir(host.at("container2")).unwrap();
        let text = fails(&many, &host.at("container2"), "other");
        assert!(text.contains("more layers than a mount can take"), "{text}");

        // What was thrown away once.
        fs::create_dir(host.at("container3")).unwrap();
        let overlay = Overlay::new(layers, &host.at("container3"), Marks::here()).unwrap();
        overlay.volatile().mount(&host.at("other")).unwrap();
        rustix::mount::unmount(host.at("other"), rustix::mount::UnmountFlags::empty()).unwrap();
        let text = fails(layers, &host.at("container3"), "other");
        assert!(text.contains("EINVAL") && text.contains("begin with a new layer"), "{text}");

        // Directories of another mount namespace.
        let overlay = Overlay::new(layers, &host.at("container2"), Marks::here()).unwrap();
        let other = host.at("other");
        let text = thread::spawn(move || {
            #[allow(unsafe_code)]
            // SAFETY: it concerns this thread alone, and no open files.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
            format!("{:#}", overlay.mount(&other).unwrap_err())
        });
        let text = text.join().unwrap();
        assert!(text.contains("EINVAL") && text.contains("another mount namespace"), "{text}");
    });
}

#[test]
fn only_root_may_mount() {
    run_as(&[Who::Nobody], "only_root_may_mount", || {
        let host = Host::new();
        let one = host.layer("one", Tar::new().file("a", "1"));
        let text = format!("{:#}", host.mount(&[one]).unwrap_err());
        assert!(text.contains("EPERM") && text.contains("only root"), "{text}");
    });
}

#[test]
fn what_a_container_leaves_is_removed() {
    run_as(MOUNTING, "what_a_container_leaves_is_removed", || {
        let host = Host::new();
        let one = host.layer("one", Tar::new().file("a/b", "1"));
        let merged = host.mount(&[one]).unwrap();
        let outside = host.at("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "x").unwrap();
        symlink(&outside, merged.join("link")).unwrap();
        fs::create_dir(merged.join("closed")).unwrap();
        fs::write(merged.join("closed/x"), "x").unwrap();
        fs::set_permissions(merged.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
        rustix::mount::unmount(&merged, rustix::mount::UnmountFlags::DETACH).unwrap();
        assert_eq!(fs::metadata(host.at("container/work/work")).unwrap().mode() & 0o777, 0);

        // Deeper than any path can say, and than files can be open.
        let mut deep = fs::File::open(host.at("container/upper")).unwrap();
        for _ in 0..3000 {
            use rustix::fs::{Mode, OFlags, mkdirat, openat};
            mkdirat(&deep, "deep", Mode::RWXU).unwrap();
            deep = openat(&deep, "deep", OFlags::RDONLY, Mode::empty()).unwrap().into();
        }
        drop(deep);

        // Something is mounted in there: neither it nor what is in it goes away.
        let mounted = host.at("container/mounted");
        fs::create_dir(&mounted).unwrap();
        rustix::mount::mount_bind(&outside, &mounted).unwrap();
        let error = format!("{:#}", remove_dir(&host.at("container")).unwrap_err());
        assert!(error.contains("EXDEV") && error.contains("unmount it first"), "{error}");
        rustix::mount::unmount(&mounted, rustix::mount::UnmountFlags::DETACH).unwrap();

        remove_dir(&host.at("container")).unwrap();
        assert!(!host.at("container").exists());
        assert_eq!(read(outside.join("precious")), "x");
        remove_dir(&host.at("container")).unwrap(); // There is nothing left to do.
        symlink(&outside, host.at("container")).unwrap();
        remove_dir(&host.at("container")).unwrap();
        assert_eq!(read(outside.join("precious")), "x");
    });
}

/// What a container changed is packed, unpacked elsewhere, and looks the same on the same layers.
#[test]
fn changes_become_a_layer() {
    run_as(MOUNTING, "changes_become_a_layer", || {
        let host = Host::new();
        let one = Tar::new()
            .file("changed", "1")
            .file("removed", "1")
            .file("dir/removed", "1")
            .file("dir/kept", "1")
            .file("new-dir/old", "1");
        let one = host.layer("one", one);
        let merged = host.mount(std::slice::from_ref(&one)).unwrap();
        let needle = random(300_000);
        fs::write(merged.join("changed"), &needle).unwrap();
        fs::remove_file(merged.join("removed")).unwrap();
        fs::remove_file(merged.join("dir/removed")).unwrap();
        fs::remove_dir_all(merged.join("new-dir")).unwrap();
        fs::create_dir(merged.join("new-dir")).unwrap();
        fs::write(merged.join("new-dir/new"), "x").unwrap();
        fs::hard_link(merged.join("new-dir/new"), merged.join("linked")).unwrap();
        symlink("/very/".repeat(30), merged.join("link")).unwrap();
        let long = "n".repeat(200);
        fs::write(merged.join(&long), "x").unwrap();
        let set = |name: &str| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(merged.join(name), "user.x", b"1\n2=3", flags).unwrap();
        };
        set("new-dir");
        set("changed");
        fs::set_permissions(merged.join("changed"), fs::Permissions::from_mode(0o4711)).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(merged.join("socket")).unwrap();

        rustix::mount::unmount(&merged, rustix::mount::UnmountFlags::DETACH).unwrap();
        let upper = host.at("container/upper");
        let mut bytes = Vec::new();
        let packed = pack(&upper, &mut bytes).unwrap();
        drop(socket);
        assert_eq!(packed.sockets, 1);
        assert_eq!(packed.diff_id, digest_of(&bytes[..]).unwrap());
        let mut again = Vec::new();
        pack(&upper, &mut again).unwrap();
        assert!(bytes == again, "the same, byte for byte");

        let expected = Expected { blob: None, diff_id: Some(&packed.diff_id) };
        let unpacked = unpack(&bytes[..], &host.at("two"), Marks::here(), &expected).unwrap();
        assert_eq!(unpacked.members, packed.members);
        assert!(unpacked.left_out.is_empty(), "{:?}", unpacked.left_out);
        fs::remove_file(upper.join("socket")).unwrap();
        let all = |dir: &Path| -> Vec<_> {
            let seen = |name: String| {
                let path = dir.join(&name);
                let meta = fs::symlink_metadata(&path).unwrap();
                let data = meta.is_file().then(|| fs::read(&path).unwrap());
                let time = (meta.mtime(), meta.mtime_nsec());
                let time = if is_whiteout(&path) { (0, 0) } else { time };
                let mode = if is_whiteout(&path) { 0 } else { meta.mode() };
                let links = if meta.is_file() { meta.nlink() } else { 0 };
                let target = fs::read_link(&path).ok();
                let owner = (meta.uid(), meta.gid());
                let marks = (is_opaque(&path), is_whiteout(&path), xattr(&path, "user.x"));
                (name, data, time, mode, links, target, owner, marks)
            };
            names(dir).into_iter().map(seen).collect()
        };
        for (was, is) in all(&upper).iter().zip(&all(&host.at("two"))) {
            assert!(was == is, "{was:?}\n{is:?}");
        }
        assert_eq!(names(&upper), names(&host.at("two")));
        assert!(is_opaque(&upper.join("new-dir")), "the test needs it");

        // As archives have it, and not as overlayfs does.
        let mut archive = tar::Archive::new(&bytes[..]);
        let found: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        for name in [".wh.removed", "dir/.wh.removed", "new-dir/.wh..wh..opq", &long] {
            assert!(found.iter().any(|path| path == name), "{name} in {found:?}");
        }

        fs::write(upper.join(".wh.odd"), "x").unwrap();
        let error = format!("{:#}", pack(&upper, io::sink()).unwrap_err());
        assert!(error.contains(".wh.odd") && error.contains("removed"), "{error}");
    });
}

fn small() -> Vec<u8> {
    Tar::new().dir("closed").file("closed/file", random(100)).file("other", random(400_000)).done()
}

/// What is in a store, but for its lock and what it notes about boots.
fn stored(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.retain(|name| name != "lock" && !name.starts_with("unsynced-"));
    names.sort();
    names
}

#[test]
fn a_layer_is_unpacked_once() {
    run_as(ALL, "a_layer_is_unpacked_once", || {
        let dir = temp_dir();
        let store = dir.path().join("store");
        let layers = Layers::open(&store, Marks::here()).unwrap();
        assert_eq!(fs::metadata(&store).unwrap().mode() & 0o777, 0o700);
        let tar = small();
        let digest = digest_of(&tar[..]).unwrap();
        let hex = digest.strip_prefix("sha256:").unwrap();
        let archive = dir.path().join("layer.tar");
        fs::write(&archive, &tar).unwrap();

        let first = layers.add_file(&archive).unwrap();
        assert_eq!(first.diff_id, digest);
        assert_eq!(first.path, store.join(format!("sha256-{hex}")));
        assert!(first.left_out.is_some());
        assert_eq!(stored(&store), [format!("blob-sha256-{hex}"), format!("sha256-{hex}")]);
        let inode = fs::metadata(&first.path).unwrap().ino();

        struct Unread;
        impl Read for Unread {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                panic!("there is no need to read it")
            }
        }
        let by_blob = Expected { blob: Some(&digest), diff_id: None };
        let by_diff_id = Expected { blob: None, diff_id: Some(&digest) };
        for expected in [by_blob, by_diff_id] {
            let again = layers.add(Unread, &expected).unwrap();
            assert_eq!(again.path, first.path);
            assert!(again.left_out.is_none());
        }
        assert_eq!(layers.get(&digest).unwrap().path, first.path);
        assert!(layers.add_file(&archive).unwrap().left_out.is_none());
        // Without a digest, it has to be unpacked to be known.
        layers.add(&tar[..], &Expected::default()).unwrap();
        assert_eq!(fs::metadata(&first.path).unwrap().ino(), inode, "it wasn't replaced");
        assert_eq!(stored(&store).len(), 2);

        // A digest is never taken for a path.
        for odd in ["sha256:../../etc", "sha256:", "../x", "sha512:00"] {
            assert!(layers.get(odd).is_none());
            let expected = Expected { blob: Some(odd), diff_id: None };
            layers.add(&tar[..], &expected).map(|layer| layer.path).unwrap_err();
        }
        assert_eq!(stored(&store).len(), 2);
    });
}

#[test]
fn a_bad_layer_leaves_nothing() {
    let dir = temp_dir();
    let layers = Layers::open(dir.path(), Marks::here()).unwrap();
    let (tar, wrong) = (small(), digest_of(&b"else"[..]).unwrap());
    for expected in [
        Expected { blob: Some(&wrong), diff_id: None },
        Expected { blob: None, diff_id: Some(&wrong) },
    ] {
        let error = format!("{:#}", layers.add(&tar[..], &expected).unwrap_err());
        assert!(error.contains(&wrong) && error.contains("should be"), "{error}");
        assert_eq!(stored(dir.path()), [""; 0]);
    }
    layers.add(&tar[..tar.len() / 2], &Expected::default()).unwrap_err();
    assert_eq!(stored(dir.path()), [""; 0]);
}

/// After a power failure, a layer that wasn't synced may be full of empty files.
#[test]
fn a_layer_of_another_boot_is_not_trusted() {
    let dir = temp_dir();
    let layers = Layers::open(dir.path(), Marks::here()).unwrap();
    let tar = small();
    let digest = digest_of(&tar[..]).unwrap();
    let expected = Expected { blob: None, diff_id: Some(&digest) };
    let layer = layers.add(&tar[..], &expected).unwrap();
    let note = dir.path().join(format!("unsynced-{}", layer.path.file_name().unwrap().display()));
    let another_boot = || {
        fs::File::create(layer.path.join("other")).unwrap(); // Empty now.
        fs::remove_file(&note).unwrap();
        symlink("another-boot", &note).unwrap();
    };
    for _ in 0..2 {
        another_boot();
        assert!(layers.get(&digest).is_none());
        assert!(layers.add(io::empty(), &expected).is_err(), "it must be unpacked again");
        layers.sync().unwrap();
        assert!(layers.get(&digest).is_none(), "what is lost can't be synced any more");
        let again = layers.add(&tar[..], &expected).unwrap();
        assert_eq!(again.path, layer.path);
        assert_eq!(fs::metadata(layer.path.join("other")).unwrap().len(), 400_000);
        assert!(layers.get(&digest).is_some());
        assert_eq!(stored(dir.path()).len(), 2, "{:?}", stored(dir.path()));
    }
    layers.sync().unwrap();
    assert!(fs::symlink_metadata(&note).is_err(), "it is good for ever");
    assert!(layers.get(&digest).is_some());
}

#[test]
fn many_at_once_make_one() {
    let dir = temp_dir();
    let layers = Layers::open(dir.path(), Marks::here()).unwrap();
    let (tar, empty) = (small(), Tar::new().done());
    for tar in [tar, empty] {
        let new = AtomicU64::new(0);
        let paths: Vec<_> = thread::scope(|scope| {
            let add = || {
                let layer = layers.add(&tar[..], &Expected::default()).unwrap();
                new.fetch_add(1, Ordering::Relaxed);
                (layer.path.clone(), fs::metadata(&layer.path).unwrap().ino())
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(add)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(new.into_inner(), 8);
        assert!(paths.iter().all(|path| *path == paths[0]), "{paths:?}");
    }
    assert_eq!(stored(dir.path()).len(), 4, "{:?}", stored(dir.path()));
}

const STORE: &str = "OVERLAY_TEST_STORE";

/// Is killed in the middle of a layer: `ulimit -f` is in units of 512 or 1024 bytes.
#[test]
fn what_a_killed_process_left_is_removed() {
    let dir = temp_dir();
    let me = env::current_exe().unwrap();
    let script = r#"ulimit -c 0; ulimit -f 100; exec "$@""#;
    let output = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(me)
        .args(["child_that_adds", "--exact", "--ignored"])
        .env(STORE, dir.path())
        .output()
        .unwrap();
    assert!(!output.status.success(), "{output:?}");
    let [left] = &stored(dir.path())[..] else { panic!("{:?}", stored(dir.path())) };
    assert!(left.starts_with("new-"), "{left}");

    let layers = Layers::open(dir.path(), Marks::here()).unwrap();
    layers.add(&Tar::new().file("a", "x").done()[..], &Expected::default()).unwrap();
    let names = stored(dir.path());
    assert_eq!(names.len(), 2);
    assert!(!names.iter().any(|name| name.starts_with("new-")), "{names:?}");
}

#[test]
#[ignore = "it is run by another test"]
fn child_that_adds() {
    let layers = Layers::open(Path::new(&env::var_os(STORE).unwrap()), Marks::here()).unwrap();
    layers.add(&small()[..], &Expected::default()).unwrap();
}
