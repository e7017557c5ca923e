//! Layers become directories: all that an archive can hold, and all that is between archives and
//! overlayfs. Each test runs as root, as a plain user, and as root of two kinds of user namespaces.

mod common;

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{FileExt, FileTypeExt, MetadataExt, symlink},
    path::Path,
};

use common::*;
use flate2::{Compression, write::GzEncoder};
use overlay::{Digests, Expected, LeftOut, Marks, unpack};
use tar::{EntryType, GnuExtSparseHeader};

#[test]
fn files_directories_and_links() {
    run_as(ALL, "files_directories_and_links", || {
        let data = random(1_000_000);
        let (dir, unpacked) = unpacked(
            Tar::new()
                .dir("./")
                .dir("./a/")
                .file("./a/data", &data)
                .file("a/empty", "")
                .symlink("a/link", "/somewhere/else")
                .link("a/data2", "a/data")
                .link("link2", "a/link")
                .file("no/parents/here", "x"),
        );
        let layer = dir.path().join("layer");
        assert_eq!(unpacked.members, 8);
        // The archive says that all of it is root's.
        assert_eq!(unpacked.left_out.is_empty(), can_give_to(0), "{:?}", unpacked.left_out);
        assert_eq!(fs::read(layer.join("a/data")).unwrap(), data);
        assert_eq!(fs::read(layer.join("a/empty")).unwrap(), b"");
        assert_eq!(fs::read_link(layer.join("a/link")).unwrap(), Path::new("/somewhere/else"));
        let inode = |name: &str| fs::symlink_metadata(layer.join(name)).unwrap().ino();
        assert_eq!(inode("a/data"), inode("a/data2"));
        assert_eq!(inode("a/link"), inode("link2"));
        assert_eq!(fs::read(layer.join("no/parents/here")).unwrap(), b"x");
        assert_eq!(fs::metadata(layer.join("no/parents")).unwrap().mode() & 0o7777, 0o755);
    });
}

#[test]
fn permissions_owners_and_times() {
    run_as(ALL, "permissions_owners_and_times", || {
        let mode = |mode, id| {
            move |header: &mut tar::Header| {
                header.set_mode(mode);
                header.set_uid(id);
                header.set_gid(id);
                header.set_mtime(1_234_567_890);
            }
        };
        let tar = Tar::new()
            .add(EntryType::Directory, ".", "", mode(0o711, 0))
            .add(EntryType::Directory, "closed", "", mode(0o555, 0))
            .add(EntryType::Regular, "closed/secret", "x", mode(0, 0))
            .add(EntryType::Regular, "closed/suid", "x", mode(0o4755, 0))
            // Neither can be entered once it has its permissions.
            .add(EntryType::Directory, "shut", "", mode(0, 0))
            .add(EntryType::Directory, "shut/inner", "", mode(0, 0))
            .add(EntryType::Directory, "shared", "", mode(0o2775, 7))
            .add(EntryType::Regular, "shared/own", "x", mode(0o666, 0))
            .add(EntryType::Regular, "shared/sgid", "x", mode(0o2755, 7))
            .add(EntryType::Regular, "shared/suid", "x", mode(0o4755, 7))
            .add(EntryType::Directory, "tmp", "", mode(0o1777, 0))
            .add(EntryType::Fifo, "tmp/fifo", "", mode(0o622, 7))
            .pax(&[("mtime", b"1234567890.987654321")])
            .add(EntryType::Symlink, "link", "", |header| {
                mode(0o777, 7)(header);
                header.as_old_mut().linkname[0] = b'x';
            })
            .pax(&[("mtime", b"-1.25")])
            .add(EntryType::Regular, "old", "", mode(0o600, 0));
        let (dir, unpacked) = unpacked(tar);
        let layer = dir.path().join("layer");
        let seven = can_give_to(7);
        let zero = if can_give_to(0) { (0, 0) } else { own() };
        let owner = |id: u32| {
            if id == 0 {
                zero
            } else if seven {
                (id, id)
            } else {
                own()
            }
        };
        let check = |name: &str, mode: u32, id: u32| {
            let meta = fs::symlink_metadata(layer.join(name)).unwrap();
            assert_eq!((meta.uid(), meta.gid()), owner(id), "{name}");
            assert_eq!(meta.mode() & 0o7777, mode, "{name}: {:o}", meta.mode());
            if name != "old" {
                assert_eq!(meta.mtime(), 1_234_567_890, "{name}");
            }
        };
        // Bits that make a program act as its owner stay only if the owner does.
        let keep = |bits: u32, id: u32| if owner(id) == (id, id) { bits } else { 0 };
        check(".", 0o711, 0);
        check("closed", 0o555, 0);
        check("closed/secret", 0, 0);
        check("closed/suid", 0o755 | keep(0o4000, 0), 0);
        check("shut", 0, 0);
        check("shared", 0o775 | keep(0o2000, 7), 7);
        check("shared/own", 0o666, 0);
        check("shared/sgid", 0o755 | keep(0o2000, 7), 7);
        check("shared/suid", 0o755 | keep(0o4000, 7), 7);
        check("tmp", 0o1777, 0);
        check("tmp/fifo", 0o622, 7);
        check("link", 0o777, 7);
        check("old", 0o600, 0);
        let meta = |name| fs::symlink_metadata(layer.join(name)).unwrap();
        assert!(meta("tmp/fifo").file_type().is_fifo());
        assert_eq!(meta("link").mtime_nsec(), 987_654_321);
        assert_eq!((meta("old").mtime(), meta("old").mtime_nsec()), (-2, 750_000_000));
        let not_zero = if zero == (0, 0) { 0 } else { 9 };
        let not_seven = if seven { 0 } else { 5 };
        assert_eq!(
            unpacked.left_out,
            LeftOut { owners: not_zero + not_seven, ..LeftOut::default() }
        );
    });
}

fn own() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Neither the umask, nor the place's own default access list, nor its group change what is unpacked.
#[test]
fn the_place_changes_nothing() {
    run_as(ALL, "the_place_changes_nothing", || {
        let old = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        let dir = temp_dir();
        // A default access list that gives all to one user and nothing to others: version 2, and
        // entries of tag, permissions and id.
        let mut list = vec![2, 0, 0, 0];
        let entries = [(1_u16, 7_u16, u32::MAX), (2, 7, own().0), (4, 0, u32::MAX)];
        for (tag, permissions, id) in
            entries.into_iter().chain([(0x10, 7, u32::MAX), (0x20, 0, u32::MAX)])
        {
            list.extend(tag.to_le_bytes());
            list.extend(permissions.to_le_bytes());
            list.extend(id.to_le_bytes());
        }
        let name = "system.posix_acl_default";
        let set = rustix::fs::setxattr(dir.path(), name, &list, rustix::fs::XattrFlags::empty());
        if set.is_err() {
            skip("the_place_changes_nothing", "no access lists on this file system");
        }
        let layer = dir.path().join("layer");
        let tar = Tar::new().dir("d").file("d/f", "x").file("missing/f", "x").done();
        unpack_into(&layer, &tar).unwrap();
        rustix::process::umask(old);
        for (name, mode) in [("", 0o755), ("d", 0o755), ("d/f", 0o644), ("missing", 0o755)] {
            let meta = fs::metadata(layer.join(name)).unwrap();
            assert_eq!(meta.mode() & 0o7777, mode, "{name:?}: {:o}", meta.mode());
            for list in ["system.posix_acl_access", "system.posix_acl_default"] {
                assert_eq!(xattr(&layer.join(name), list), None, "{name:?}");
            }
        }
    });
}

#[test]
fn devices() {
    run_as(ALL, "devices", || {
        let (dir, unpacked) = unpacked(
            Tar::new()
                .device(EntryType::Char, "null", 1, 3)
                .device(EntryType::Block, "disk", 259, 65537)
                .link("null2", "null")
                .link("null3", "null2"),
        );
        let layer = dir.path().join("layer");
        if can_make_devices() {
            assert!(unpacked.left_out.is_empty());
            let meta = |name: &str| fs::metadata(layer.join(name)).unwrap();
            assert!(meta("null3").file_type().is_char_device());
            assert_eq!(meta("null3").rdev(), rustix::fs::makedev(1, 3));
            assert!(meta("disk").file_type().is_block_device());
            assert_eq!(meta("disk").rdev(), rustix::fs::makedev(259, 65537));
        } else {
            assert_eq!(unpacked.left_out.devices, 4);
            assert_eq!(names(&layer), [""; 0]);
            assert!(unpacked.left_out.to_string().contains("4 devices"));
        }
    });
}

#[test]
fn extended_attributes() {
    run_as(ALL, "extended_attributes", || {
        let value = b"a\nb\0c=d".as_slice();
        // A file capability, cap_net_raw=ep: version 2, and two words of two sets each.
        let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].as_slice();
        let tar = Tar::new()
            .pax(&[("SCHILY.xattr.user.x", value), ("SCHILY.xattr.user.overlay.redirect", b"/etc")])
            .add(EntryType::Regular, "file", "data", |header| header.set_mode(0o444))
            .pax(&[("SCHILY.xattr.user.x", value), ("SCHILY.xattr.trusted.overlay.metacopy", b"")])
            .add(EntryType::Directory, "dir", "", |header| header.set_mode(0o555))
            .pax(&[("SCHILY.xattr.security.capability", capability)])
            .file("ping", "data")
            .pax(&[("SCHILY.xattr.user.x", value)])
            .symlink("link", "x")
            .pax(&[("SCHILY.xattr.unknown.x", b"x")])
            .file("other", "");
        let (dir, unpacked) = unpacked(tar);
        let layer = dir.path().join("layer");
        let has = |name: &str, xattr_name: &str| xattr(&layer.join(name), xattr_name);
        assert_eq!(has("file", "user.x").as_deref(), Some(value));
        assert_eq!(has("dir", "user.x").as_deref(), Some(value));
        for name in ["file", "dir"] {
            for mark in ["redirect", "metacopy"] {
                for family in ["user", "trusted"] {
                    assert_eq!(has(name, &format!("{family}.overlay.{mark}")), None);
                }
            }
        }
        assert_eq!(fs::metadata(layer.join("file")).unwrap().mode() & 0o777, 0o444);
        let can = has("ping", "security.capability");
        // As root, be it of a user namespace, it can be set; a plain user may not.
        let is_root = rustix::process::geteuid().is_root();
        assert_eq!(can.is_some(), is_root);
        // A symbolic link can't have a user's, and there is no family "unknown".
        assert_eq!(unpacked.left_out.xattrs, if is_root { 2 } else { 3 });
    });
}

#[test]
fn long_names() {
    run_as(ALL, "long_names", || {
        let part = "a name of some length/".repeat(12);
        let (gnu, pax) = (format!("{part}gnu"), format!("{part}pax"));
        let (gnu_nul, utf8) = ([gnu.as_bytes(), b"\0"].concat(), b"caf\xc3\xa9 \xff");
        let long = |header: &mut tar::Header| {
            header.as_old_mut().name[..13].copy_from_slice(b"././@LongLink")
        };
        let tar = Tar::new()
            .add(EntryType::GNULongName, "", &gnu_nul, long)
            .file("short", "gnu")
            .pax(&[("path", pax.as_bytes())])
            .file("short", "pax")
            .add(EntryType::GNULongLink, "", &gnu_nul, long)
            .link("link", "short")
            .pax(&[("linkpath", pax.as_bytes())])
            .symlink("symlink", "short")
            .add(EntryType::Regular, utf8, "x", |_| {});
        let (dir, _) = unpacked(tar);
        let layer = dir.path().join("layer");
        assert_eq!(fs::read(layer.join(&gnu)).unwrap(), b"gnu");
        assert_eq!(fs::read(layer.join(&pax)).unwrap(), b"pax");
        assert_eq!(fs::read(layer.join("link")).unwrap(), b"gnu");
        assert_eq!(fs::read_link(layer.join("symlink")).unwrap(), Path::new(&pax));
        assert!(layer.join(path(utf8)).exists());
        // A name that is split into prefix and name, as POSIX has it.
        let mut header = tar::Header::new_ustar();
        header.set_path(format!("{}/{}", "p".repeat(100), "n".repeat(90))).unwrap();
        header.set_mode(0o644);
        header.set_size(0);
        header.set_cksum();
        let bytes = [header.as_bytes().as_slice(), &[0; 1024]].concat();
        let layer = dir.path().join("ustar");
        unpack_into(&layer, &bytes).unwrap();
        assert!(layer.join("p".repeat(100)).join("n".repeat(90)).exists());
    });
}

/// The four ways to write down a file with holes: all give the same file, with its holes.
#[test]
fn files_with_holes() {
    run_as(ALL, "files_with_holes", || {
        let size: u64 = 40 << 20;
        // Every piece is a page, so that holes can't be told by chance.
        let pieces: Vec<u64> = (0..30).map(|n| n << 20).collect();
        let data: Vec<u8> = random(pieces.len() * 4096);
        let octal = |field: &mut [u8], n: u64| {
            field.copy_from_slice(format!("{n:0width$o}\0", width = field.len() - 1).as_bytes());
        };
        let set = |to: &mut tar::GnuSparseHeader, piece: &u64| {
            octal(&mut to.offset, *piece);
            octal(&mut to.numbytes, 4096);
        };

        let mut old = Tar::new();
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..3].copy_from_slice(b"old");
        header.set_entry_type(EntryType::GNUSparse);
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.set_real_size(size);
        gnu.set_is_extended(true);
        gnu.sparse.iter_mut().zip(&pieces).for_each(|(to, piece)| set(to, piece));
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        for (n, chunk) in pieces[4..].chunks(21).enumerate() {
            let mut block = GnuExtSparseHeader::new();
            block.sparse_mut().iter_mut().zip(chunk).for_each(|(to, piece)| set(to, piece));
            block.set_is_extended(n == 0);
            bytes.extend_from_slice(block.as_bytes());
        }
        bytes.extend_from_slice(&data);

        let numbers = |between: &str| {
            let all: Vec<_> = pieces.iter().map(|at| format!("{at}{between}4096")).collect();
            all.join(between)
        };
        let size_text = size.to_string();
        let map = numbers(",");
        let (offsets, len): (Vec<_>, _) = (pieces.iter().map(u64::to_string).collect(), b"4096");
        let mut records: Vec<(&str, &[u8])> = vec![("GNU.sparse.size", size_text.as_bytes())];
        for offset in &offsets {
            records.push(("GNU.sparse.offset", offset.as_bytes()));
            records.push(("GNU.sparse.numbytes", len));
        }
        let mut with_map = format!("{}\n{}\n", pieces.len(), numbers("\n")).into_bytes();
        with_map.resize(with_map.len().next_multiple_of(512), 0);
        with_map.extend_from_slice(&data);
        old = old
            .pax(&records)
            .file("0.0", &data)
            .pax(&[
                ("GNU.sparse.size", size_text.as_bytes()),
                ("GNU.sparse.map", map.as_bytes()),
                ("GNU.sparse.name", b"0.1"),
            ])
            .file("GNUSparseFile.1/0.1", &data)
            .pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"1.0"),
                ("GNU.sparse.realsize", size_text.as_bytes()),
            ])
            .file("GNUSparseFile.1/1.0", &with_map)
            .file("after", "it");
        bytes.extend(old.done());

        let dir = temp_dir();
        let layer = dir.path().join("layer");
        unpack_into(&layer, &bytes).unwrap();
        assert_eq!(names(&layer), ["0.0", "0.1", "1.0", "after", "old"]);
        let mut whole = vec![0; size as usize];
        for (at, piece) in pieces.iter().zip(data.chunks(4096)) {
            whole[*at as usize..][..4096].copy_from_slice(piece);
        }
        for name in ["old", "0.0", "0.1", "1.0"] {
            assert!(fs::read(layer.join(name)).unwrap() == whole, "{name}");
            let used = fs::metadata(layer.join(name)).unwrap().blocks() * 512;
            assert!(used < size / 4, "{name} takes {used} bytes");
        }
        assert_eq!(fs::read(layer.join("after")).unwrap(), b"it");
    });
}

/// What GNU tar itself writes.
#[test]
fn files_with_holes_by_tar() {
    run_as(ALL, "files_with_holes_by_tar", || {
        let dir = temp_dir();
        let file = fs::File::create(dir.path().join("holes")).unwrap();
        for n in 0..40 {
            file.write_all_at(&random(4096), n << 20).unwrap();
        }
        file.set_len(100 << 20).unwrap();
        let whole = fs::read(dir.path().join("holes")).unwrap();
        for (n, format) in [&["--format=gnu"][..], &["--format=posix"]].iter().enumerate() {
            for version in ["0.0", "0.1", "1.0"] {
                let archive = dir.path().join(format!("{n}-{version}.tar"));
                let output = std::process::Command::new("tar")
                    .arg("-C")
                    .arg(dir.path())
                    .args(*format)
                    .arg(format!("--sparse-version={version}"))
                    .args(["-S", "-cf"])
                    .arg(&archive)
                    .arg("holes")
                    .output();
                match output {
                    Ok(output) if output.status.success() => {}
                    other => return skip("files_with_holes_by_tar", &format!("{other:?}")),
                }
                assert!(fs::metadata(&archive).unwrap().len() < 1 << 20, "tar found the holes");
                let layer = dir.path().join(format!("layer-{n}-{version}"));
                unpack_into(&layer, &fs::read(archive).unwrap()).unwrap();
                assert!(fs::read(layer.join("holes")).unwrap() == whole, "{format:?} {version}");
                let used = fs::metadata(layer.join("holes")).unwrap().blocks() * 512;
                assert!(used < 1 << 20, "{used}");
            }
        }
    });
}

#[test]
fn whiteouts() {
    run_as(ALL, "whiteouts", || {
        let (dir, _) = unpacked(
            Tar::new()
                .file("a/.wh.gone", "")
                .file(".wh.top", "")
                // In either order, what the layer itself has stays, and only lower layers are hidden.
                .file(".wh.before", "")
                .dir("before")
                .file("before/kept", "x")
                .dir("after")
                .file("after/kept", "x")
                .file(".wh.after", "")
                .file(".wh.file", "")
                .file("file", "x")
                .file("file2", "x")
                .file(".wh.file2", "")
                .file(".wh.implied", "")
                .file("implied/kept", "x")
                .file(".wh.twice", "")
                .file(".wh.twice", "")
                // overlayfs's own form.
                .device(EntryType::Char, "a/own", 0, 0)
                .file("a/.wh..wh.plnk/1.2", "aufs")
                .dir(".wh..wh.orph"),
        );
        let layer = dir.path().join("layer");
        for name in ["a/gone", "top", "twice", "a/own"] {
            assert!(is_whiteout(&layer.join(name)), "{name}");
        }
        for name in ["before", "after", "implied"] {
            assert!(is_opaque(&layer.join(name)), "{name}");
            assert_eq!(fs::read(layer.join(name).join("kept")).unwrap(), b"x");
        }
        assert!(!is_opaque(&layer.join("a")) && !is_opaque(&layer));
        for name in ["file", "file2"] {
            assert_eq!(fs::read(layer.join(name)).unwrap(), b"x");
        }
        assert!(!names(&layer).iter().any(|name| name.contains(".wh.")), "{:?}", names(&layer));
    });
}

#[test]
fn opaque_directories() {
    run_as(ALL, "opaque_directories", || {
        let (dir, unpacked) = unpacked(
            Tar::new()
                .file("first/.wh..wh..opq", "")
                .file("first/file", "x")
                .add(EntryType::Directory, "first", "", |header| header.set_mode(0o555))
                .dir("last")
                .file("last/file", "x")
                .file("last/.wh..wh..opq", "")
                .pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")])
                .dir("trusted")
                .pax(&[("SCHILY.xattr.user.overlay.opaque", b"y")])
                .dir("user")
                .pax(&[("SCHILY.xattr.user.overlay.opaque", b"n")])
                .dir("no"),
        );
        let layer = dir.path().join("layer");
        for name in ["first", "last", "trusted", "user"] {
            assert!(is_opaque(&layer.join(name)), "{name}");
        }
        assert!(!is_opaque(&layer.join("no")) && !is_opaque(&layer));
        assert_eq!(names(&layer).len(), 7);
        assert_eq!(unpacked.left_out.xattrs, 0);
        let other = ["trusted.overlay.opaque", "user.overlay.opaque"];
        let other = other.into_iter().find(|name| *name != opaque_name()).unwrap();
        assert_eq!(xattr(&layer.join("user"), other), None);
        let (dir, _) = common::unpacked(Tar::new().file(".wh..wh..opq", ""));
        assert!(is_opaque(&dir.path().join("layer")));
    });
}

#[test]
fn the_last_of_a_name_counts() {
    run_as(ALL, "the_last_of_a_name_counts", || {
        let mode = |mode| move |header: &mut tar::Header| header.set_mode(mode);
        let (dir, _) = unpacked(
            Tar::new()
                .file("file", "first, and longer")
                .file("other", "stays")
                .link("file2", "file")
                .file("file", "second")
                .add(EntryType::Directory, "dir", "", mode(0o500))
                .file("dir/kept", "x")
                .add(EntryType::Directory, "dir", "", mode(0o750))
                .dir("dir-file")
                .file("dir-file/a/b", "x")
                .file("dir-file", "now a file")
                .file("file-dir", "x")
                .dir("file-dir")
                .file("file-dir/x", "x")
                .symlink("link", "other")
                .file("link", "written to itself")
                .symlink("link-dir", "dir")
                .file("link-dir/by-link", "x")
                .dir("link-dir")
                .file("link-dir/not-by-link", "x")
                .symlink("again", "dir")
                .link("self", "file2")
                .link("self", "file2")
                .link("self", "self"),
        );
        let layer = dir.path().join("layer");
        let read = |name: &str| fs::read_to_string(layer.join(name)).unwrap();
        assert_eq!(read("file"), "second");
        assert_eq!(read("file2"), "first, and longer");
        assert_eq!(read("self"), "first, and longer");
        assert_eq!(read("other"), "stays");
        assert_eq!(read("link"), "written to itself");
        assert_eq!(read("dir-file"), "now a file");
        assert_eq!(names(&layer.join("dir")), ["by-link", "kept"]);
        assert_eq!(names(&layer.join("link-dir")), ["not-by-link"]);
        assert_eq!(names(&layer.join("file-dir")), ["x"]);
        assert_eq!(fs::metadata(layer.join("dir")).unwrap().mode() & 0o7777, 0o750);
        assert!(!fs::symlink_metadata(layer.join("link")).unwrap().is_symlink());
    });
}

/// A directory that was reached through a link is replaced: what comes later must not land in the
/// old one, nor must the permissions of the old one be those of the new one.
#[test]
fn a_replaced_directory_is_forgotten() {
    run_as(ALL, "a_replaced_directory_is_forgotten", || {
        let (dir, _) = unpacked(
            Tar::new()
                .add(EntryType::Directory, "a/b", "", |header| header.set_mode(0o700))
                .symlink("l", "a")
                .file("l/b/one", "x")
                .file("a", "a file")
                .file("a.txt", "x")
                .dir("a")
                .add(EntryType::Directory, "a/b", "", |header| header.set_mode(0o711))
                .file("l/b/two", "x"),
        );
        let layer = dir.path().join("layer");
        assert_eq!(names(&layer), ["a", "a.txt", "a/b", "a/b/two", "l"]);
        assert_eq!(fs::metadata(layer.join("a/b")).unwrap().mode() & 0o777, 0o711);

        // The name of the old one leads to another directory in the end.
        let private = |header: &mut tar::Header| header.set_mode(0o700);
        let tar = Tar::new().dir("e/x").add(EntryType::Directory, "d/x", "", private);
        let (dir, _) = unpacked(tar.symlink("d", "e"));
        let meta = fs::metadata(dir.path().join("layer/d/x")).unwrap();
        assert_eq!(meta.mode() & 0o777, 0o755);
    });
}

/// An archive that does harm, and what the error must say.
fn hostile() -> Vec<(Tar, &'static str, &'static str)> {
    let new = Tar::new;
    let nul = |text: &[u8]| [text, b"\0/x"].concat();
    let char_device = |name| new().device(EntryType::Char, name, 1, 3);
    vec![
        (new().file("../needle", "bad"), "../needle", "upwards"),
        (new().file("a/../../needle", "bad"), "a/../../needle", "upwards"),
        (new().file("a/..", "bad"), "a/..", "upwards"),
        (new().dir(".."), "..", "upwards"),
        (new().file("/needle", "bad"), "/needle", "absolute"),
        (new().file("//needle", "bad"), "//needle", "absolute"),
        (new().dir("/"), "/", "absolute"),
        (new().file(".", "bad"), ".", "layer's root"),
        (new().symlink("./", "/"), "./", "layer's root"),
        (new().link("x", "."), "x", "hard link"),
        (new().add(EntryType::Regular, "", "bad", |_| {}), "", "no name"),
        // Through links: relative, absolute, of several steps, in the middle of a name.
        (new().symlink("up", "..").file("up/needle", "bad"), "up/needle", "symbolic link"),
        (new().symlink("abs", "/").file("abs/x", "bad"), "abs/x", "symbolic link"),
        (new().symlink("up", "..").dir("up/new"), "up/new", "symbolic link"),
        (new().symlink("up", "..").symlink("up/new", "x"), "up/new", "symbolic link"),
        (new().symlink("up", "..").file("up/a/b/c", "bad"), "up/a/b/c", "symbolic link"),
        (new().dir("a").symlink("a/up", "../..").file("a/up/x", "bad"), "a/up/x", "symbolic link"),
        (
            new().symlink("one", "two").symlink("two", "..").file("one/x", "bad"),
            "one/x",
            "symbolic link",
        ),
        (new().symlink("loop", "loop").file("loop/x", "bad"), "loop/x", "symbolic link"),
        (new().symlink("none", "no/such").file("none/x", "bad"), "none/x", "no directory"),
        (new().symlink("up", "../layer").file("up/x", "bad"), "up/x", "symbolic link"),
        (new().symlink("up", "..").file("up/.wh.needle", ""), "up/.wh.needle", "symbolic link"),
        (new().symlink("up", "..").file("up/.wh..wh..opq", ""), "up/.wh..wh..opq", "symbolic link"),
        (new().symlink("p", "/proc/self/cwd").file("p/x", "bad"), "p/x", "symbolic link"),
        // A file in the way.
        (new().file("f", "").file("f/x", "bad"), "f/x", "no directory"),
        (new().add(EntryType::Fifo, "f", "", |_| {}).file("f/x", "bad"), "f/x", "no directory"),
        // A way that leads through what it replaces isn't there any more.
        (
            new().dir("a").symlink("a/s", "..").file("a/s/a", "").file("a/s/x", "bad"),
            "a/s/x",
            "no directory",
        ),
        // Hard links.
        (new().link("x", "../needle"), "x", "upwards"),
        (new().link("x", "/etc/passwd"), "x", "absolute"),
        (new().link("x", "missing"), "x", "linkat"),
        (new().link("x", ""), "x", "no name"),
        (new().symlink("up", "..").link("x", "up/needle"), "x", "symbolic link"),
        (new().dir("a").file("a/f", "").symlink("s", "a").link("x", "s/f"), "x", "symbolic link"),
        (new().dir("d").link("x", "d"), "x", "linkat"),
        (new().file("f", "").symlink("up", "..").link("up/x", "f"), "up/x", "symbolic link"),
        (new().link("x", "x"), "x", "linkat"),
        // Whiteouts of what isn't a file in there.
        (new().file(".wh.", ""), ".wh.", "no file"),
        (new().file(".wh..", ""), ".wh..", "no file"),
        (new().file(".wh...", ""), ".wh...", "no file"),
        (new().file("a/.wh...", ""), "a/.wh...", "no file"),
        (new().dir(".wh.d").file(".wh.d/x", "bad"), ".wh.d/x", "whiteout"),
        // Zero bytes, in PAX records, for a header can't hold them.
        (new().pax(&[("path", &nul(b"x"))]).file("x", ""), "x", "zero byte"),
        (new().pax(&[("linkpath", &nul(b"x"))]).symlink("x", "x"), "x", "zero byte"),
        (new().pax(&[("SCHILY.xattr.user.\0", b"x")]).file("x", ""), "x", "zero byte"),
        // Long names that don't go through the header's checks.
        (new().pax(&[("path", b"../needle")]).file("x", "bad"), "../needle", "upwards"),
        (
            new().add(EntryType::GNULongName, "L", "../../needle\0", |_| {}).file("x", "bad"),
            "../../needle",
            "upwards",
        ),
        (new().pax(&[("linkpath", b"../needle")]).link("x", "x"), "x", "upwards"),
        // A device can't be written through.
        (char_device("tty").file("tty/x", "bad"), "tty/x", "directory"),
        (
            new()
                .add(EntryType::Regular, "n".repeat(100), "", |_| {})
                .pax(&[("path", "n".repeat(300).as_bytes())])
                .file("x", ""),
            "nnn",
            "ENAMETOOLONG",
        ),
        // Kinds and numbers that make no sense.
        (new().add(EntryType::new(b'Q'), "odd", "", |_| {}), "odd", "kind"),
        (
            new().add(EntryType::Regular, "x", "", |h| h.as_old_mut().mode = *b"8888888\0"),
            "x",
            "mode",
        ),
        (
            new()
                .pax(&[("GNU.sparse.map", b"0,5,3,5"), ("GNU.sparse.size", b"9")])
                .file("x", "0123456789"),
            "x",
            "overlap",
        ),
        (
            new().pax(&[("GNU.sparse.map", b"0,5"), ("GNU.sparse.size", b"2")]).file("x", "01234"),
            "x",
            "end",
        ),
        (
            new().pax(&[("GNU.sparse.map", b"0,4"), ("GNU.sparse.size", b"9")]).file("x", "01234"),
            "x",
            "pieces",
        ),
        (
            new().pax(&[("GNU.sparse.map", b"18446744073709551615,9")]).file("x", "01234"),
            "x",
            "piece",
        ),
    ]
}

#[test]
fn hostile_archives_are_refused() {
    run_as(ALL, "hostile_archives_are_refused", || {
        for (n, (tar, name, reason)) in hostile().into_iter().enumerate() {
            if name == "tty/x" && !can_make_devices() {
                continue; // Nor can the archive, so nothing is in the way of a directory.
            }
            let dir = temp_dir();
            let needle = random(32);
            fs::write(dir.path().join("needle"), &needle).unwrap();
            let layer = dir.path().join("layer");
            let error = unpack_into(&layer, &tar.done())
                .expect_err(&format!("number {n}, {name:?}, should have been refused"));
            let text = format!("{error:#}");
            assert!(
                text.contains(&format!("{name:?}")[..name.len() + 1]),
                "number {n}, {name:?}: {text}"
            );
            assert!(text.contains(reason), "number {n}, {name:?}: {text}");
            // Nothing was written outside, and nothing of the outside was brought in.
            assert_eq!(fs::read(dir.path().join("needle")).unwrap(), needle, "number {n}");
            assert_eq!(fs::metadata(dir.path().join("needle")).unwrap().nlink(), 1, "number {n}");
            let mut outside: Vec<_> =
                fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            outside.sort();
            assert_eq!(outside, ["layer", "needle"], "number {n}");
        }
    });
}

/// What looks like a break-out and isn't one.
#[test]
fn harmless_archives_are_not_refused() {
    run_as(ALL, "harmless_archives_are_not_refused", || {
        let dir = temp_dir();
        let needle = random(32);
        fs::write(dir.path().join("needle"), &needle).unwrap();
        let layer = dir.path().join("layer");
        let tar = Tar::new()
            .dir("usr/bin")
            .symlink("bin", "usr/bin")
            .file("bin/sh", "x")
            .dir("a/b")
            .symlink("a/b/up", "../../usr")
            .file("a/b/up/file", "x")
            .file("..a/...", "x")
            .file("././/usr//./dots", "x")
            .symlink("outside", "../needle")
            .file("outside", "replaces the link")
            .symlink("abs", "/etc")
            .dir("abs")
            .file("abs/x", "x");
        unpack_into(&layer, &tar.done()).unwrap();
        assert_eq!(fs::read(layer.join("usr/bin/sh")).unwrap(), b"x");
        for name in ["usr/file", "..a/...", "usr/dots", "abs/x"] {
            assert!(layer.join(name).exists(), "{name}");
        }
        assert_eq!(fs::read(dir.path().join("needle")).unwrap(), needle);
        assert_eq!(fs::read(layer.join("outside")).unwrap(), b"replaces the link");
    });
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// `sha256sum`'s opinion.
fn sha256(bytes: &[u8]) -> String {
    let mut child = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    format!("sha256:{}", String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap())
}

/// A layer that takes more than the ring of buffers.
fn large() -> Vec<u8> {
    let mut tar = Tar::new();
    for n in 0..30 {
        tar = tar.file(&format!("file-{n}"), random(300_000));
    }
    tar.done()
}

#[test]
fn compressions_and_digests() {
    let tar = large();
    let (first, second) = tar.split_at(tar.len() / 3);
    let skippable = [&[0x51, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    let forms = [
        ("plain", tar.clone()),
        ("gzip", gzip(&tar)),
        ("gzip, twice", [gzip(first), gzip(second)].concat()),
        ("zstd", zstd(&tar)),
        ("zstd, twice", [skippable.clone(), zstd(first), skippable, zstd(second)].concat()),
        // What follows the end of a tar counts in its digest, and says nothing.
        ("with more behind", [&tar[..], &random(50_000)].concat()),
    ];
    for (name, blob) in forms {
        let dir = temp_dir();
        let plain = if name == "with more behind" { &blob } else { &tar };
        let digests = Digests { blob: sha256(&blob), diff_id: sha256(plain) };
        let expected = Expected { blob: Some(&digests.blob), diff_id: Some(&digests.diff_id) };
        // From a reader that gives a little at a time.
        let unpacked =
            unpack(Dribble(&blob, false), &dir.path().join("layer"), Marks::here(), &expected)
                .unwrap();
        assert_eq!(unpacked.digests, digests, "{name}");
        assert_eq!(names(&dir.path().join("layer")).len(), 30, "{name}");
    }
}

/// Gives between one byte and a few thousand at a time, and is interrupted once.
struct Dribble<'a>(&'a [u8], bool);

impl Read for Dribble<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = match self.0.len() % 7 {
            0 => 1,
            1 if !std::mem::replace(&mut self.1, true) => {
                return Err(io::ErrorKind::Interrupted.into());
            }
            n => n * 1000,
        };
        Ok(self.take_some(into, n))
    }
}

impl Dribble<'_> {
    fn take_some(&mut self, into: &mut [u8], n: usize) -> usize {
        let n = n.min(into.len()).min(self.0.len());
        into[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        n
    }
}

#[test]
fn wrong_digests() {
    let tar = Tar::new().file("a", "x").done();
    let (right, wrong) = (sha256(&tar), sha256(b"else"));
    for (blob, diff_id, says) in
        [(&wrong, &right, "the layer's digest"), (&right, &wrong, "diff id")]
    {
        let dir = temp_dir();
        let expected = Expected { blob: Some(blob), diff_id: Some(diff_id) };
        let error = unpack(&tar[..], &dir.path().join("x"), Marks::here(), &expected).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains(says) && text.contains(&wrong) && text.contains(&right), "{text}");
    }
}

#[test]
fn what_is_cut_short_or_damaged_is_refused() {
    let tar = Tar::new().file("first", random(1000)).file("second", random(5000)).done();
    let fails = |blob: &[u8]| -> String {
        let dir = temp_dir();
        let error = unpack_into(&dir.path().join("layer"), blob).expect_err("should be refused");
        format!("{error:#}")
    };
    // 512 and 1024 for the first file, 512 and 5120 for the second, 1024 for the end.
    assert_eq!(tar.len(), 8192);
    for (len, says) in [
        (0, "cut short"),
        (100, "cut short"),
        (700, "\"first\""),
        (1536, "cut short"),
        (1600, "cut short"),
        (3000, "\"second\""),
        (7100, "\"second\""), // In the padding.
        (7168, "cut short"),
    ] {
        let text = fails(&tar[..len]);
        assert!(text.contains(says), "{len}: {text}");
    }
    for compressed in [gzip(&tar), zstd(&tar)] {
        for len in [3, 20, compressed.len() / 2, compressed.len() - 1] {
            let text = fails(&compressed[..len]);
            assert!(!text.is_empty(), "{len}: {text}");
        }
    }
    let mut damaged = gzip(&tar);
    let len = damaged.len();
    damaged[len - 6] ^= 1; // The checksum.
    assert!(fails(&damaged).contains("corrupt"), "{}", fails(&damaged));
    let mut damaged = zstd(&tar);
    let len = damaged.len();
    damaged[len - 1] ^= 1; // The checksum, again.
    assert!(fails(&damaged).contains("checksum of a zstd frame"), "{}", fails(&damaged));
    let mut damaged = tar.clone();
    damaged[1536 + 3] ^= 1; // The second file's name.
    let text = fails(&damaged);
    assert!(text.contains("checksum") && text.contains("\"first\""), "{text}");
    assert!(fails(&random(4096)).contains("isn't a header of a tar"));
    assert!(fails(b"\xfd7zXZ\0 and so on").contains("xz -d"));
    assert!(fails(b"BZh9 and so on").contains("bzip2 -d"));

    // The end mark may be missing if a digest vouches for the rest.
    let blob = &tar[..7168];
    let (dir, digest) = (temp_dir(), sha256(blob));
    let expected = Expected { blob: Some(&digest), diff_id: None };
    unpack(blob, &dir.path().join("layer"), Marks::here(), &expected).unwrap();

    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the line is dead"))
        }
    }
    let dir = temp_dir();
    let half = tar[..3000].chain(Broken);
    let error = unpack(half, &dir.path().join("layer"), Marks::here(), &Expected::default());
    let text = format!("{:#}", error.unwrap_err());
    assert!(text.contains("the line is dead") && text.contains("\"second\""), "{text}");
}

/// What a member says of itself mustn't fill the memory.
#[test]
fn large_extensions_are_refused() {
    let huge = vec![b'x'; 2 << 20];
    let some: Vec<u8> = vec![b'x'; 600 << 10];
    let long_name = Tar::new().add(EntryType::GNULongName, "L", &huge, |_| {}).file("x", "");
    let records = Tar::new().pax(&[("comment", &huge)]).file("x", "");
    let many = Tar::new().pax(&[("comment", &some)]).pax(&[("comment", &some)]).file("x", "");
    for tar in [long_name, records, many] {
        let dir = temp_dir();
        let error = unpack_into(&dir.path().join("layer"), &tar.done()).unwrap_err();
        assert!(format!("{error:#}").contains("over a megabyte"), "{error:#}");
    }
}

#[test]
fn it_wants_an_empty_directory() {
    let dir = temp_dir();
    fs::write(dir.path().join("file"), "x").unwrap();
    let error = unpack_into(dir.path(), &Tar::new().done()).unwrap_err();
    assert!(format!("{error:#}").contains("isn't empty"), "{error:#}");
    symlink("nowhere", dir.path().join("link")).unwrap();
    let error = unpack_into(&dir.path().join("link"), &Tar::new().done()).unwrap_err();
    assert!(format!("{error:#}").contains("ENOENT"), "{error:#}");
}

#[test]
fn a_full_disk_is_an_error() {
    run_as(MOUNTING, "a_full_disk_is_an_error", || {
        let dir = temp_dir();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=200k", "t"])
            .arg(dir.path())
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            return skip("a_full_disk_is_an_error", "no tmpfs can be mounted");
        }
        let tar = Tar::new().file("small", "x").file("large", random(500_000)).done();
        let error = unpack_into(&dir.path().join("layer"), &tar).unwrap_err();
        let text = format!("{error:#}");
        rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        assert!(text.contains("\"large\"") && text.contains("ENOSPC"), "{text}");
    });
}
