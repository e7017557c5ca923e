//! Images of every kind, made by hand and by the tools that people use, whole and damaged.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use flate2::{Compression as Level, write::GzEncoder};
use runtime::images::{self, Compression, Image, Key, Kind};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

// ---------------------------------------------------------------- images, made by hand

/// The files of an image, by name: a folder or an archive to be.
#[derive(Clone, Default)]
struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    fn put(&mut self, name: &str, content: impl AsRef<[u8]>) {
        self.0.insert(name.into(), content.as_ref().into());
    }

    fn json(&mut self, name: &str, content: &Value) {
        self.put(name, content.to_string());
    }

    /// Adds a blob, and gives its descriptor.
    fn blob(&mut self, media_type: &str, content: impl AsRef<[u8]>) -> Value {
        let hex = sha256(content.as_ref());
        self.put(&format!("blobs/sha256/{hex}"), &content);
        json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": content.as_ref().len() })
    }

    fn index(&mut self, manifests: &[Value]) {
        self.json("index.json", &json!({ "schemaVersion": 2, "manifests": manifests }));
    }

    fn write_dir(&self, dir: &Path) {
        for (name, content) in &self.0 {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    fn tar(&self) -> Vec<u8> {
        let mut tar = tar::Builder::new(vec![]);
        for (name, content) in &self.0 {
            member(&mut tar, name, content);
        }
        tar.into_inner().unwrap()
    }

    /// Changes a JSON file. Nothing points to it by digest.
    fn edit(&mut self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_slice(&self.0[name]).unwrap();
        edit(&mut value);
        self.json(name, &value);
    }
}

fn member(tar: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content).unwrap();
}

fn link(tar: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, name: &str, target: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_entry_type(kind);
    tar.append_link(&mut header, name, target).unwrap();
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The plain tar of a layer with one file.
fn layer_tar(name: &str) -> Vec<u8> {
    let mut files = Files::default();
    files.put(name, format!("this is {name}\n"));
    files.tar()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(vec![], Level::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// Go's name for this machine's architecture, as far as these tests know it.
fn this_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn other_arch() -> &'static str {
    if this_arch() == "s390x" { "amd64" } else { "s390x" }
}

fn config_json(arch: &str, tars: &[&[u8]]) -> Value {
    let diff_ids = tars.iter().map(|tar| format!("sha256:{}", sha256(tar))).collect::<Vec<_>>();
    json!({
        "architecture": arch, "os": "linux",
        "config": {
            "Env": ["PATH=/bin", "A=b=c"], "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo hello"],
            "WorkingDir": "/srv", "User": "7:8", "StopSignal": "SIGQUIT",
            "ExposedPorts": { "80/tcp": {}, "53/udp": {} }, "Volumes": null, "Hostname": "",
        },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": [{ "created_by": "one" }, { "created_by": "none", "empty_layer": true }],
    })
}

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Adds an image of a plain and a gzip layer, and gives the descriptor of its manifest. `edit`
/// changes the manifest, which is `[config, layers]` by then, before it gets its digest.
fn add_image(files: &mut Files, arch: &str, edit: impl FnOnce(&mut Value)) -> Value {
    let tars = [layer_tar("etc/one"), layer_tar(arch)];
    let config = config_json(arch, &[&tars[0], &tars[1]]).to_string();
    let config = files.blob(OCI_CONFIG, config);
    let plain = files.blob(OCI_LAYER, &tars[0]);
    let gzip = files.blob(&format!("{OCI_LAYER}+gzip"), gzip(&tars[1]));
    let mut manifest = json!({ "schemaVersion": 2, "config": config, "layers": [plain, gzip] });
    edit(&mut manifest);
    files.blob(OCI_MANIFEST, manifest.to_string())
}

fn empty_layout() -> Files {
    let mut files = Files::default();
    files.put("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    files
}

/// A layout with one image.
fn layout() -> Files {
    layout_with(|_| ())
}

fn layout_with(edit: impl FnOnce(&mut Value)) -> Files {
    let mut files = empty_layout();
    let manifest = add_image(&mut files, this_arch(), edit);
    files.index(&[manifest]);
    files
}

fn tagged(mut descriptor: Value, tag: &str) -> Value {
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    descriptor
}

fn for_platform(mut descriptor: Value, os: &str, arch: &str) -> Value {
    descriptor["platform"] = json!({ "os": os, "architecture": arch });
    descriptor
}

/// A docker archive of the old form, with one image for each list of tags. They share their first
/// layer, by a link.
fn docker_archive(images: &[&[&str]], edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    let shared = layer_tar("etc/one");
    member(&mut tar, "first/layer.tar", &shared);
    let mut manifest = vec![];
    for (n, tags) in images.iter().enumerate() {
        let own = layer_tar(&format!("own{n}"));
        let config = config_json(this_arch(), &[&shared, &own]).to_string();
        let config_name = format!("{}.json", sha256(config.as_bytes()));
        member(&mut tar, &config_name, config.as_bytes());
        link(&mut tar, tar::EntryType::Symlink, &format!("id{n}/layer.tar"), "../first/layer.tar");
        member(&mut tar, &format!("{n}.tar"), &own);
        let layers = [format!("id{n}/layer.tar"), format!("{n}.tar")];
        manifest.push(json!({ "Config": config_name, "RepoTags": tags, "Layers": layers }));
    }
    let mut manifest = Value::from(manifest);
    edit(&mut manifest);
    member(&mut tar, "manifest.json", manifest.to_string().as_bytes());
    tar.into_inner().unwrap()
}

// ---------------------------------------------------------------- how they are opened

/// A directory to try images in.
struct Lab(TempDir);

impl Lab {
    fn new() -> Self {
        Lab(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn scratch(&self) -> PathBuf {
        self.path("scratch")
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    fn dir(&self, name: &str, files: &Files) -> PathBuf {
        files.write_dir(&self.path(name));
        self.path(name)
    }

    fn open(&self, path: &Path, tag: Option<&str>) -> anyhow::Result<Image> {
        images::open(path, tag, &self.scratch())
    }

    fn content(&self, image: &Image, layer: usize) -> Vec<u8> {
        let mut bytes = vec![];
        let mut blob = image.open_layer(&image.layers[layer], &self.scratch()).unwrap();
        blob.read_to_end(&mut bytes).unwrap();
        bytes
    }
}

/// The error that opening an image made of these bytes gives.
fn error_of(archive: &[u8], tag: Option<&str>) -> String {
    let lab = Lab::new();
    let path = lab.file("image.tar", archive);
    error(lab.open(&path, tag))
}

/// The error of a layout, which must be the same for the directory and the archive.
fn layout_error(files: &Files, tag: Option<&str>) -> String {
    let lab = Lab::new();
    let dir = error(lab.open(&lab.dir("layout", files), tag));
    let archive = error_of(&files.tar(), tag);
    let cause = |error: &str| error.split_once(": ").unwrap().1.to_owned();
    // Only about what isn't there they have different things to say.
    if ["oci-layout", "index.json"].iter().all(|name| files.0.contains_key(*name))
        && !dir.contains("No such file")
    {
        assert_eq!(cause(&dir), cause(&archive));
    }
    archive
}

fn error(result: anyhow::Result<Image>) -> String {
    let error = format!("{:#}", result.expect_err("this image must be refused"));
    assert!(error.starts_with("the image /"), "the error names the image: {error}");
    error
}

#[track_caller]
fn says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{part:?} isn't in: {error}");
    }
}

fn assert_is_the_image(lab: &Lab, image: &Image) {
    let config = &image.config;
    assert_eq!(config.env, ["PATH=/bin", "A=b=c"]);
    assert_eq!(config.entrypoint, ["/bin/sh", "-c"]);
    assert_eq!(config.cmd, ["echo hello"]);
    assert_eq!(config.working_dir.as_deref(), Some("/srv"));
    assert_eq!(config.user.as_deref(), Some("7:8"));
    assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
    assert_eq!(config.exposed_ports, ["53/udp", "80/tcp"]);
    assert_eq!((&*config.os, &*config.architecture), ("linux", this_arch()));

    assert_eq!(image.layers.len(), 2);
    for (n, layer) in image.layers.iter().enumerate() {
        let stored = lab.content(image, n);
        assert_eq!(stored.len() as u64, layer.size);
        let plain = match layer.compression {
            Compression::None => stored.clone(),
            Compression::Gzip => {
                let mut plain = vec![];
                flate2::read::GzDecoder::new(&stored[..]).read_to_end(&mut plain).unwrap();
                plain
            }
            Compression::Zstd => panic!("there is none in here"),
        };
        if let Some(digest) = &layer.digest {
            assert_eq!(digest.digest(), sha256(&stored));
        }
        assert_eq!(layer.diff_id.as_ref().unwrap().digest(), sha256(&plain));
    }
}

// ---------------------------------------------------------------- the five kinds

#[test]
fn an_oci_layout() {
    let lab = Lab::new();
    let image = lab.open(&lab.dir("layout", &layout()), None).unwrap();
    assert_eq!(image.kind, Kind::OciLayout);
    assert_eq!(image.layers[1].compression, Compression::Gzip);
    assert!(image.layers[0].digest.is_some());
    assert_is_the_image(&lab, &image);
}

#[test]
fn an_oci_archive_plain_and_compressed() {
    let tar = layout().tar();
    let (half, rest) = tar.split_at(1000);
    let skippable = [&[0x51, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    let files = [
        ("plain", tar.clone()),
        ("gzip", gzip(&tar)),
        ("gzip in two", [gzip(half), gzip(rest)].concat()),
        ("zstd", zstd(&tar)),
        ("zstd in two", [skippable.clone(), zstd(half), skippable, zstd(rest)].concat()),
    ];
    for (name, content) in files {
        let lab = Lab::new();
        let image = lab.open(&lab.file(name, &content), None).unwrap();
        assert_eq!(image.kind, Kind::OciArchive, "{name}");
        assert_is_the_image(&lab, &image);

        // A plain archive is read in place, a compressed one from a copy: one, made once.
        let copies = || -> Vec<u64> {
            let files = fs::read_dir(lab.scratch()).into_iter().flatten();
            files.map(|file| file.unwrap().metadata().unwrap().ino()).collect()
        };
        let first = copies();
        assert_eq!(first.len(), usize::from(name != "plain"), "{name}");
        assert_eq!(lab.open(image.key.path(), None).unwrap(), image);
        assert_eq!(copies(), first, "{name}");
        let _ = fs::remove_dir_all(lab.scratch());
        assert_is_the_image(&lab, &image);
    }
}

#[test]
fn names_with_a_leading_dot() {
    let mut tar = tar::Builder::new(vec![]);
    for (name, content) in layout().0 {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        let name = format!("./{name}");
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, &content[..]).unwrap();
    }
    let lab = Lab::new();
    let image = lab.open(&lab.file("a.tar", &tar.into_inner().unwrap()), None).unwrap();
    assert_is_the_image(&lab, &image);
}

#[test]
fn a_docker_archive() {
    let tar = docker_archive(&[&["busybox:latest"]], |_| ());
    for content in [tar.clone(), gzip(&tar), zstd(&tar)] {
        let lab = Lab::new();
        let image = lab.open(&lab.file("save.tar", &content), None).unwrap();
        assert_eq!(image.kind, Kind::DockerArchive);
        assert_eq!(image.layers[0].digest, None);
        assert_is_the_image(&lab, &image);
    }
}

#[test]
fn a_docker_archive_with_compressed_layers() {
    let plain = layer_tar("etc/one");
    let config = config_json(this_arch(), &[&plain, &plain]).to_string();
    let mut files = Files::default();
    files.put("config", config);
    files.put("a.tar.gz", gzip(&plain));
    files.json(
        "manifest.json",
        &json!([{ "Config": "config", "Layers": ["a.tar.gz", "a.tar.gz"] }]),
    );
    let lab = Lab::new();
    let image = lab.open(&lab.file("save.tar", &files.tar()), None).unwrap();
    assert_eq!(image.layers[0].compression, Compression::Gzip);
    assert_is_the_image(&lab, &image);
}

/// Both forms in one tar, as docker 25 writes it: the one with digests is read.
#[test]
fn what_a_new_docker_saves() {
    let mut files = empty_layout();
    let mut manifest = add_image(&mut files, this_arch(), |_| ());
    manifest["annotations"] = json!({
        "io.containerd.image.name": "docker.io/library/busybox:1.37",
        "org.opencontainers.image.ref.name": "1.37",
    });
    files.index(&[manifest]);
    files.put("manifest.json", "this isn't read");
    let lab = Lab::new();
    let path = lab.file("save.tar", &files.tar());
    for tag in [None, Some("1.37"), Some("busybox:1.37"), Some("docker.io/library/busybox:1.37")] {
        let image = lab.open(&path, tag).unwrap();
        assert_eq!(image.kind, Kind::OciArchive);
        assert_is_the_image(&lab, &image);
    }
    says(
        &error(lab.open(&path, Some("busybox:1.36"))),
        &["busybox:1.36", "there are", "busybox:1.37"],
    );
}

#[test]
fn a_tar_of_a_root_file_system() {
    let mut files = Files::default();
    files.put("bin/sh", "a shell");
    files.put("etc/passwd", "root");
    let usual = files.tar();
    let mut files = Files::default();
    files.put("hello", "a static program");
    let unusual = files.tar();
    for tar in [&usual, &unusual] {
        for content in [tar.clone(), gzip(tar), zstd(tar)] {
            let lab = Lab::new();
            let image = lab.open(&lab.file("rootfs.tar", &content), None).unwrap();
            assert_eq!(image.kind, Kind::RootfsArchive);
            assert_eq!(image.config, images::Config::default());
            assert_eq!(image.layers.len(), 1);
            let layer = &image.layers[0];
            assert_eq!((&layer.digest, &layer.diff_id), (&None, &None));
            assert_eq!(lab.content(&image, 0), content);
            if tar == &usual {
                assert!(!lab.scratch().exists(), "a usual one needs no copy to be known");
            }
        }
    }
    let tag = error_of(&usual, Some("latest"));
    says(&tag, &["is a root file system", "latest"]);
}

#[test]
fn a_root_file_system() {
    let lab = Lab::new();
    let mut files = Files::default();
    files.put("bin/sh", "a shell");
    let dir = lab.dir("rootfs", &files);
    let image = lab.open(&dir, None).unwrap();
    assert_eq!(image.kind, Kind::RootfsDirectory);
    assert_eq!(image.key.path(), dir.canonicalize().unwrap());
    assert!(image.layers.is_empty());
    says(&error(lab.open(&dir, Some("latest"))), &["is a root file system"]);
}

#[test]
fn docker_media_types() {
    let mut files = empty_layout();
    let docker = |kind: &str| format!("application/vnd.docker.{kind}");
    let mut manifest = add_image(&mut files, this_arch(), |manifest| {
        manifest["config"]["mediaType"] = docker("container.image.v1+json").into();
        manifest["layers"][0]["mediaType"] = docker("image.rootfs.diff.tar").into();
        manifest["layers"][1]["mediaType"] = docker("image.rootfs.diff.tar.gzip").into();
    });
    manifest["mediaType"] = docker("distribution.manifest.v2+json").into();
    let list =
        json!({ "schemaVersion": 2, "manifests": [for_platform(manifest, "linux", this_arch())] });
    let list = files.blob(&docker("distribution.manifest.list.v2+json"), list.to_string());
    files.index(&[list]);
    let lab = Lab::new();
    let image = lab.open(&lab.dir("layout", &files), None).unwrap();
    assert_is_the_image(&lab, &image);
}

// ---------------------------------------------------------------- which image

#[test]
fn the_platform_is_chosen_in_nested_indexes() {
    let mut files = empty_layout();
    let other = add_image(&mut files, other_arch(), |_| ());
    let this = add_image(&mut files, this_arch(), |_| ());
    let attestation = add_image(&mut files, "unknown", |_| ());
    let mut signature = this.clone();
    signature["artifactType"] = "application/vnd.example.signature".into();
    signature["digest"] = format!("sha256:{}", "5".repeat(64)).into();
    let inner = json!({ "schemaVersion": 2, "manifests": [
        for_platform(attestation, "unknown", "unknown"),
        signature,
        for_platform(other, "linux", other_arch()),
        for_platform(this.clone(), "windows", this_arch()),
        { "mediaType": "application/x-new", "digest": format!("sha256:{}", "6".repeat(64)), "size": 1 },
        for_platform(this, "linux", this_arch()),
    ]});
    let inner = files.blob(OCI_INDEX, inner.to_string());
    let outer = json!({ "schemaVersion": 2, "manifests": [inner] });
    let outer = files.blob(OCI_INDEX, outer.to_string());
    files.index(&[tagged(outer, "v1")]);
    let lab = Lab::new();
    let image = lab.open(&lab.dir("layout", &files), Some("v1")).unwrap();
    assert_is_the_image(&lab, &image);
    // The same one in a list at the top, without names.
    let image = lab.open(&lab.file("a.tar", &files.tar()), None).unwrap();
    assert_is_the_image(&lab, &image);
}

#[test]
fn what_is_no_image_is_passed_over() {
    let mut files = empty_layout();
    let image = add_image(&mut files, this_arch(), |_| ());
    let other = add_image(&mut files, "unknown", |_| ());
    let mut signature = other.clone();
    signature["artifactType"] = "application/vnd.example.signature".into();
    let attestation = for_platform(other.clone(), "unknown", "unknown");
    let mut unknown = other;
    unknown["mediaType"] = "application/x-new".into();
    for no_image in [signature, attestation, unknown] {
        files.index(&[no_image.clone(), image.clone()]);
        let lab = Lab::new();
        assert_is_the_image(&lab, &lab.open(&lab.dir("layout", &files), None).unwrap());
        files.index(&[no_image]);
        says(&layout_error(&files, None), &["index.json lists no image"]);
    }
}

#[test]
fn a_list_of_platforms_at_the_top() {
    let mut files = empty_layout();
    let other = add_image(&mut files, other_arch(), |_| ());
    let this = add_image(&mut files, this_arch(), |_| ());
    let (other, this) =
        (for_platform(other, "linux", other_arch()), for_platform(this, "linux", this_arch()));
    let lab = Lab::new();
    for (n, list) in
        [[other.clone(), this.clone()], [tagged(other.clone(), "v1"), tagged(this.clone(), "v1")]]
            .iter()
            .enumerate()
    {
        files.index(list);
        let image = lab.open(&lab.dir(&n.to_string(), &files), None).unwrap();
        assert_is_the_image(&lab, &image);
    }
    files.index(&[tagged(other, "v1"), tagged(this, "v2")]);
    says(&layout_error(&files, None), &["several images", "v1, v2"]);
}

#[test]
fn an_image_for_another_machine() {
    let both = [format!("linux/{}", other_arch()), format!("linux/{}", this_arch())];
    let both = [both[0].as_str(), both[1].as_str()];
    let mut files = empty_layout();
    let other = add_image(&mut files, other_arch(), |_| ());
    // Known by the configuration alone, or by the descriptor.
    files.index(std::slice::from_ref(&other));
    says(&layout_error(&files, None), &both);
    files.index(&[for_platform(other.clone(), "linux", other_arch())]);
    says(&layout_error(&files, None), &both);
    files.index(&[
        for_platform(other.clone(), "linux", other_arch()),
        for_platform(other, "plan9", "arm"),
    ]);
    says(&layout_error(&files, None), &both);

    let mut files = Files::default();
    files.put("config", config_json(other_arch(), &[]).to_string());
    files.json("manifest.json", &json!([{ "Config": "config", "Layers": null }]));
    says(&error_of(&files.tar(), None), &both);
}

#[test]
fn a_tag_chooses_in_a_layout() {
    let mut files = empty_layout();
    let first = add_image(&mut files, this_arch(), |_| ());
    let second = add_image(&mut files, this_arch(), |m| {
        m["annotations"] = json!({ "which": "second" });
        m["layers"] = json!([m["layers"][0], m["layers"][1]]);
    });
    let digest = first["digest"].as_str().unwrap().to_owned();
    files.index(&[tagged(first.clone(), "one"), tagged(second.clone(), "docker.io/x/two:v2")]);
    for tag in ["one", "x/two:v2", "docker.io/x/two:v2", &digest] {
        let lab = Lab::new();
        let image = lab.open(&lab.dir("layout", &files), Some(tag)).unwrap();
        assert_is_the_image(&lab, &image);
    }
    says(&layout_error(&files, None), &["several images", "docker.io/x/two:v2, one"]);
    says(&layout_error(&files, Some("three")), &["tagged three", "docker.io/x/two:v2, one"]);

    // Two tags for one image are no reason to ask.
    files.index(&[tagged(first.clone(), "one"), tagged(first.clone(), "two")]);
    let lab = Lab::new();
    assert_is_the_image(&lab, &lab.open(&lab.dir("two", &files), None).unwrap());
    // What was called "one" before isn't called anything now.
    files.index(&[first.clone(), tagged(second.clone(), "one")]);
    assert_is_the_image(&lab, &lab.open(&lab.dir("left", &files), None).unwrap());
    // Without names there are the digests to choose by.
    files.index(&[first, second]);
    says(&layout_error(&files, None), &["several images", &digest]);
}

#[test]
fn a_tag_chooses_in_a_docker_archive() {
    let tar = docker_archive(&[&["docker.io/library/a:latest"], &["b:1", "b:2"]], |_| ());
    let lab = Lab::new();
    let path = lab.file("save.tar", &tar);
    for (tag, own) in
        [("a", "own0"), ("a:latest", "own0"), ("b:2", "own1"), ("localhost/b:1", "own1")]
    {
        let image = lab.open(&path, Some(tag)).unwrap();
        assert_is_the_image(&lab, &image);
        assert_eq!(lab.content(&image, 1), layer_tar(own), "{tag}");
    }
    says(&error_of(&tar, None), &["several images", "b:1, b:2, docker.io/library/a:latest"]);
    says(&error_of(&tar, Some("b")), &["tagged b;", "b:1"]);
}

#[test]
fn a_reference_is_split_where_the_path_ends() {
    let lab = Lab::new();
    let odd = lab.file("with:colon", b"");
    let plain = lab.file("plain", b"");
    let split = |path: &Path, rest: &str| images::split(&format!("{}{rest}", path.display()));
    assert_eq!(split(&plain, "").unwrap(), (plain.clone(), None));
    assert_eq!(split(&odd, "").unwrap(), (odd.clone(), None));
    assert_eq!(split(&plain, ":busybox:1").unwrap(), (plain.clone(), Some("busybox:1".into())));
    assert_eq!(split(&odd, ":v1").unwrap(), (odd, Some("v1".into())));
    says(
        &format!("{:#}", images::split("busybox:latest").unwrap_err()),
        &["no file", "skopeo copy"],
    );
    says(&format!("{:#}", split(&plain, ":").unwrap_err()), &["no file"]);
}

// ---------------------------------------------------------------- damaged and hostile ones

#[test]
fn no_image_at_all() {
    let lab = Lab::new();
    says(&error(lab.open(&lab.path("nothing"), None)), &["nothing", "No such file"]);
    fs::create_dir(lab.path("empty")).unwrap();
    says(&error(lab.open(&lab.path("empty"), None)), &["the directory is empty"]);
    says(&error_of(b"", None), &["the archive is empty"]);
    says(&error_of(&[0; 10240], None), &["the archive is empty"]);
    says(&error_of(&[b'x'; 5000], None), &["neither a tar"]);
    says(&error_of(&gzip(b"some text"), None), &["neither a tar"]);
    says(&error_of(b"\xfd7zXZ\0......", None), &["xz -d"]);
    says(&error_of(b"BZh9......", None), &["bzip2 -d"]);
    // It must not wait for a writer.
    let fifo = lab.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    says(&error(lab.open(&fifo, None)), &["isn't a regular file"]);
}

#[test]
fn an_incomplete_layout() {
    for (missing, says_so) in [("oci-layout", "oci-layout"), ("index.json", "index.json")] {
        let mut files = layout();
        files.0.remove(missing);
        says(&layout_error(&files, None), &[says_so]);
    }
    let all = layout();
    for blob in all.0.keys().filter(|name| name.starts_with("blobs/")) {
        let mut files = all.clone();
        files.0.remove(blob);
        says(&layout_error(&files, None), &[blob, "missing"]);

        let mut files = all.clone();
        let size = files.0[blob].len();
        files.0.get_mut(blob).unwrap().push(b' ');
        let (has, not) = (format!("has {} bytes", size + 1), format!("instead of {size}"));
        says(&layout_error(&files, None), &[blob.rsplit('/').next().unwrap(), &has, &not]);

        // Layers are checked by whoever unpacks them.
        if files.0[blob][0] == b'{' {
            let mut files = all.clone();
            files.0.get_mut(blob).unwrap()[size - 1] = b' ';
            says(&layout_error(&files, None), &[blob.rsplit('/').next().unwrap(), "is damaged"]);
        }
    }
}

#[test]
fn documents_that_do_not_parse() {
    for name in ["oci-layout", "index.json"] {
        for content in ["", "{", "[]", "{}", "null", "\u{0}"] {
            let mut files = layout();
            files.put(name, content);
            says(&layout_error(&files, None), &[name]);
        }
    }
    let mut files = layout();
    files.put("oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#);
    says(&layout_error(&files, None), &["version 2.0.0"]);
    let mut files = layout();
    files.index(&[]);
    says(&layout_error(&files, None), &["lists no image"]);
    let mut files = empty_layout();
    let manifest = files.blob(OCI_MANIFEST, "{}");
    files.index(std::slice::from_ref(&manifest));
    says(&layout_error(&files, None), &[manifest["digest"].as_str().unwrap(), "missing field"]);
    // Deep nesting must not overflow the stack.
    let mut files = layout();
    files.put("index.json", "[".repeat(1 << 20));
    says(&layout_error(&files, None), &["index.json"]);
}

#[test]
fn documents_of_unreasonable_size() {
    let mut files = layout();
    files.put("index.json", " ".repeat((4 << 20) + 1));
    says(&layout_error(&files, None), &["index.json is larger than 4194304 bytes"]);

    // Gigabytes that are only promised, by an index and by an archive.
    let mut files = layout();
    files.edit("index.json", |index| index["manifests"][0]["size"] = (1u64 << 62).into());
    says(&layout_error(&files, None), &["bytes instead of 4611686018427387904"]);
}

#[test]
fn manifests_that_make_no_sense() {
    let error = |edit: &dyn Fn(&mut Value)| layout_error(&layout_with(edit), None);
    let one_less = |m: &mut Value| drop(m["layers"].as_array_mut().unwrap().pop());
    says(&error(&one_less), &["the manifest has 1 layers", "2 diff_ids"]);
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    for kind in [foreign, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"] {
        says(
            &error(&|m| m["layers"][1]["mediaType"] = kind.into()),
            &["may not be distributed", kind],
        );
    }
    let encrypted = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
    says(&error(&|m| m["layers"][1]["mediaType"] = encrypted.into()), &[encrypted, "unknown"]);
    let artifact = "application/vnd.oci.empty.v1+json";
    says(&error(&|m| m["config"]["mediaType"] = artifact.into()), &["isn't an image", artifact]);
    let sha512 = format!("sha512:{}", "0".repeat(128));
    says(&error(&|m| m["layers"][0]["digest"] = sha512.clone().into()), &["sha512", "only sha256"]);
}

#[test]
fn a_diff_id_that_is_no_digest() {
    for (id, why) in [("sha256:abc", "diff_id"), ("../../etc", "diff_id"), ("md5:abc", "md5")] {
        let mut config = config_json(this_arch(), &[]);
        config["rootfs"]["diff_ids"] = json!([id]);
        let mut files = Files::default();
        files.put("config", config.to_string());
        files.json("manifest.json", &json!([{ "Config": "config", "Layers": ["config"] }]));
        says(&error_of(&files.tar(), None), &[why]);
    }
}

#[test]
fn digests_that_are_paths() {
    let zeros = "0".repeat(64);
    for digest in [
        "sha256:../../../../etc/passwd".to_owned(),
        "../../etc:passwd".to_owned(),
        format!("sha256:{}/..", &zeros[..61]),
        format!("sha256:{}", zeros.to_uppercase().replace('0', "A")),
        "sha256:".to_owned(),
        "passwd".to_owned(),
    ] {
        let mut files = layout();
        files.edit("index.json", |index| index["manifests"][0]["digest"] = digest.clone().into());
        says(&layout_error(&files, None), &["index.json isn't what it should be"]);
    }
}

#[test]
fn indexes_that_never_end() {
    // Each of 30 levels lists the one below it many times.
    let mut files = empty_layout();
    let mut index = add_image(&mut files, this_arch(), |_| ());
    for _ in 0..30 {
        let list = json!({ "schemaVersion": 2, "manifests": vec![index; 50] });
        index = files.blob(OCI_INDEX, list.to_string());
    }
    files.index(&[index]);
    says(&layout_error(&files, None), &["nested more than 8 deep"]);

    let mut files = empty_layout();
    let mut index = add_image(&mut files, this_arch(), |_| ());
    for _ in 0..7 {
        let list = json!({ "schemaVersion": 2, "manifests": vec![index; 50] });
        index = files.blob(OCI_INDEX, list.to_string());
    }
    files.index(&[index]);
    let lab = Lab::new();
    assert_is_the_image(&lab, &lab.open(&lab.dir("layout", &files), None).unwrap());
}

#[test]
fn a_blob_that_is_no_file() {
    let lab = Lab::new();
    let files = layout();
    let dir = lab.dir("layout", &files);
    for name in files.0.keys() {
        fs::remove_file(dir.join(name)).unwrap();
        nix::unistd::mkfifo(&dir.join(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
        says(&error(lab.open(&dir, None)), &[name, "isn't a regular file"]);
        fs::remove_file(dir.join(name)).unwrap();
        fs::write(dir.join(name), &files.0[name]).unwrap();
    }
    assert_is_the_image(&lab, &lab.open(&dir, None).unwrap());
}

#[test]
fn docker_archives_that_make_no_sense() {
    let error = |edit: &dyn Fn(&mut Value)| error_of(&docker_archive(&[&["a:1"]], edit), None);
    says(&error(&|m| *m = json!([])), &["lists no image"]);
    says(&error(&|m| *m = json!({})), &["manifest.json isn't what it should be"]);
    says(&error(&|m| m[0]["Config"] = "../../etc/passwd".into()), &["../../etc/passwd is missing"]);
    says(&error(&|m| m[0]["Config"] = "0.tar".into()), &["0.tar isn't what it should be"]);
    says(&error(&|m| m[0]["Layers"][0] = "/etc/passwd".into()), &["/etc/passwd is missing"]);
    says(&error(&|m| m[0]["Layers"][0] = "..".into()), &[".. is missing"]);
    says(&error(&|m| m[0]["Layers"] = json!(["0.tar"])), &["1 layers", "2 diff_ids"]);

    let mut files = Files::default();
    let config = config_json(this_arch(), &[]).to_string();
    let name = format!("{}.json", sha256(config.as_bytes()));
    files.put(&name, config + " ");
    files.json("manifest.json", &json!([{ "Config": name, "Layers": [] }]));
    says(&error_of(&files.tar(), None), &[&name, "is damaged"]);

    let mut files = Files::default();
    files.put("repositories", "{}");
    says(&error_of(&files.tar(), None), &["older than 1.10"]);
}

#[test]
fn links_in_docker_archives() {
    use tar::EntryType::{Directory, Link, Symlink};
    let config = config_json(this_arch(), &[&layer_tar("etc/one")]).to_string();
    let open = |links: &[(tar::EntryType, &str, &str)]| {
        let mut tar = tar::Builder::new(vec![]);
        member(&mut tar, "deep/real.tar", &layer_tar("etc/one"));
        member(&mut tar, "config", config.as_bytes());
        let manifest = json!([{ "Config": "config", "Layers": ["a/layer.tar"] }]);
        member(&mut tar, "manifest.json", manifest.to_string().as_bytes());
        for (kind, name, target) in links {
            link(&mut tar, *kind, name, target);
        }
        let lab = Lab::new();
        let path = lab.file("save.tar", &tar.into_inner().unwrap());
        lab.open(&path, None).map(|image| lab.content(&image, 0))
    };
    let error = |links: &[_]| format!("{:#}", open(links).unwrap_err());
    let name = "a/layer.tar";
    assert_eq!(open(&[(Symlink, name, "../deep/./real.tar")]).unwrap(), layer_tar("etc/one"));
    assert_eq!(open(&[(Link, name, "deep/real.tar")]).unwrap(), layer_tar("etc/one"));
    assert_eq!(
        open(&[(Symlink, name, "b"), (Link, "a/b", "c"), (Symlink, "c", "deep/real.tar")]).unwrap(),
        layer_tar("etc/one")
    );
    says(&error(&[(Symlink, name, "/etc/passwd")]), &["isn't a regular file in the archive"]);
    says(&error(&[(Symlink, name, "../../etc/passwd")]), &["isn't a regular file in the archive"]);
    says(&error(&[(Link, name, "../etc/passwd")]), &["isn't a regular file in the archive"]);
    says(
        &error(&[(Symlink, name, "../etc/passwd")]),
        &["link to etc/passwd", "isn't in the archive"],
    );
    says(&error(&[(Symlink, name, "layer.tar")]), &["leads on and on"]);
    says(&error(&[(Symlink, name, "b"), (Symlink, "a/b", "layer.tar")]), &["leads on and on"]);
    says(&error(&[(Directory, name, "x")]), &["isn't a regular file in the archive"]);
}

#[test]
fn an_archive_that_is_cut_short() {
    let whole = layout().tar();
    let lab = Lab::new();
    let members = whole.len() - 1024; // Two empty blocks end a tar.
    for length in (0..members).step_by(97) {
        let path = lab.file("cut.tar", &whole[..length]);
        let result = lab.open(&path, None);
        assert!(result.is_err(), "cut at {length} of {}", whole.len());
    }
    says(&error_of(&whole[..600], None), &["cut short inside of blobs/sha256/"]);
    says(&error_of(&whole[..members], None), &["cut short behind oci-layout"]);

    let packed = gzip(&docker_archive(&[&["a:1"]], |_| ()));
    for length in (10..packed.len() - 9).step_by(53) {
        let path = lab.file("cut.tar.gz", &packed[..length]);
        says(&error(lab.open(&path, None)), &["damaged or cut short"]);
    }
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 9, 0, 0, 0, 1];
    let packed = [zstd(&whole), skippable.into()].concat();
    says(&error_of(&packed, None), &["damaged or cut short"]);
    let copies = fs::read_dir(lab.scratch()).unwrap().count();
    assert_eq!(copies, 0, "no half copy is left");
}

/// Any byte may be wrong: it's an error or it doesn't matter, and never a panic or a hang.
#[test]
fn archives_with_wrong_bytes() {
    let archives = [
        layout().tar(),
        docker_archive(&[&["a:1"]], |_| ()),
        gzip(&layout().tar()),
        zstd(&layout().tar()),
    ];
    let mut random = 1u64;
    let mut next = || {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) as usize
    };
    let lab = Lab::new();
    for n in 0..2000 {
        let mut archive = archives[n % archives.len()].clone();
        for _ in 0..=next() % 3 {
            let at = next() % archive.len();
            archive[at] = next() as u8;
        }
        let path = lab.file("wrong", &archive);
        let _ = lab.open(&path, None);
        let _ = fs::remove_dir_all(lab.scratch());
    }
}

#[test]
fn a_name_of_gigabytes() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(3 << 30);
    header.set_cksum();
    let lab = Lab::new();
    let path = lab.file("long.tar", header.as_bytes());
    File::options().write(true).open(&path).unwrap().set_len(512 + (3 << 30)).unwrap();
    says(&error(lab.open(&path, None)), &["longer than 1 MiB"]);
    assert!(peak_memory() < 1 << 30);
}

#[test]
fn a_layer_of_gigabytes_is_not_read() {
    let lab = Lab::new();
    let path = lab.path("large.tar");
    let config = config_json(this_arch(), &[b"whatever"]).to_string();
    let manifest = json!([{ "Config": "config", "Layers": ["large"] }]).to_string();
    let size = 9u64 << 30; // More than the usual field of a header can say.
    let mut tar = tar::Builder::new(vec![]);
    member(&mut tar, "config", config.as_bytes());
    member(&mut tar, "manifest.json", manifest.as_bytes());
    let mut header = tar::Header::new_gnu();
    header.set_path("large").unwrap();
    header.set_size(size);
    header.set_cksum();
    let start = tar.into_inner().unwrap();
    let start = [&start[..start.len() - 1024], header.as_bytes()].concat();
    fs::write(&path, &start).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(start.len() as u64 + size + 1024)
        .unwrap();

    let image = lab.open(&path, None).unwrap();
    assert_eq!(image.layers[0].size, size);
    assert!(peak_memory() < 1 << 30);
}

/// The most memory that this process ever had, in bytes.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn members_without_end() {
    let mut tar = tar::Builder::new(vec![]);
    member(&mut tar, "manifest.json", b"[]");
    for n in 0..10_000 {
        member(&mut tar, &format!("{n}"), b"");
    }
    says(&error_of(&tar.into_inner().unwrap(), None), &["over 10000 members"]);
}

// ---------------------------------------------------------------- the second time

#[test]
fn a_key_tells_what_has_changed() {
    let lab = Lab::new();
    let dir = lab.dir("layout", &layout());
    let tar = lab.file("image.tar", &layout().tar());
    for (path, file) in [(&dir, dir.join("index.json")), (&tar, tar.clone())] {
        let key = Key::of(path, None).unwrap();
        assert_eq!(key, Key::of(path, None).unwrap());
        let other = Key::of(path, Some("v1")).unwrap();
        assert_ne!(key, other);
        assert_ne!((key.id(), key.name()), (other.id(), other.name()));

        // Same content, size and time of writing: the inode's time of change tells.
        let written = fs::metadata(&file).unwrap().modified().unwrap();
        let content = fs::read(&file).unwrap();
        // Within one tick of the clock it can't: so until it does, but not for ever.
        let deadline = Instant::now() + Duration::from_secs(5);
        while Key::of(path, None).unwrap() == key && Instant::now() < deadline {
            fs::write(&file, &content).unwrap();
            File::options().write(true).open(&file).unwrap().set_modified(written).unwrap();
        }
        assert_ne!(key.id(), Key::of(path, None).unwrap().id());
        assert_eq!(key.name(), Key::of(path, None).unwrap().name());
    }
}

#[test]
fn the_answer_is_remembered() {
    let lab = Lab::new();
    let path = lab.file("image.tar", &gzip(&layout().tar()));
    let cache = lab.path("cache");
    let open = || images::open_cached(&path, None, &cache, &lab.scratch());
    let first = open().unwrap();
    assert_is_the_image(&lab, &first);
    assert_eq!(open().unwrap(), first);

    // Proof that it comes from there: a word is changed there.
    let file = fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
    let json = fs::read_to_string(&file).unwrap();
    assert!(json.len() < 4096, "{} bytes", json.len());
    fs::write(&file, json.replace("echo hello", "echo again")).unwrap();
    fs::remove_dir_all(lab.scratch()).unwrap();
    assert_eq!(open().unwrap().config.cmd, ["echo again"]);
    assert!(!lab.scratch().exists());

    // A damaged memory and a changed image are as none.
    fs::write(&file, "{").unwrap();
    assert_eq!(open().unwrap(), first);
    fs::write(&path, docker_archive(&[&["a:1"]], |_| ())).unwrap();
    assert_eq!(open().unwrap().kind, Kind::DockerArchive);
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 1, "the new takes the place of the old");
}

#[test]
fn an_image_that_changes_under_way() {
    let lab = Lab::new();
    for content in [layout().tar(), gzip(&layout().tar())] {
        let path = lab.file("image.tar", &content);
        let image = lab.open(&path, None).unwrap();
        lab.file("image.tar", b"something else");
        let layer = image.open_layer(&image.layers[0], &lab.scratch());
        says(&format!("{:#}", layer.unwrap_err()), &["has changed", "start again"]);
    }
    let dir = lab.dir("layout", &layout());
    let image = lab.open(&dir, None).unwrap();
    fs::remove_dir_all(dir.join("blobs")).unwrap();
    let layer = image.open_layer(&image.layers[0], &lab.scratch());
    let digest = image.layers[0].digest.as_ref().unwrap().to_string();
    says(&format!("{:#}", layer.unwrap_err()), &["can't read a layer", &digest, "No such file"]);
}

#[test]
fn a_path_that_is_not_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let lab = Lab::new();
    let path = lab.0.path().join(std::ffi::OsStr::from_bytes(b"\xff.tar"));
    fs::write(&path, layout().tar()).unwrap();
    let open = || images::open_cached(&path, None, &lab.path("cache"), &lab.scratch());
    assert_eq!(open().unwrap(), open().unwrap());
}

// ---------------------------------------------------------------- the tools that people use

/// Whether these programs are there; if not, the test is skipped, and says so.
fn have(test: &str, programs: &[&str]) -> bool {
    for program in programs {
        if Command::new(program).arg("--version").output().is_err() {
            let must_run =
                std::env::var_os("CONTAINERS_MUST_RUN").is_some_and(|value| value == "1");
            assert!(!must_run, "{test} needs {program}");
            println!("SKIP {test}: there is no {program}");
            return false;
        }
    }
    true
}

fn run(lab: &Lab, command: &str) -> String {
    let output = Command::new("sh")
        .args(["-euc", command])
        .current_dir(lab.0.path())
        .env("HOME", lab.0.path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}\n{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// A layout by umoci: `made`, with the tags `v1` (two layers and a configuration) and `v0`.
fn umoci_layout(lab: &Lab) {
    fs::create_dir_all(lab.path("more/etc")).unwrap();
    fs::create_dir_all(lab.path("base/bin")).unwrap();
    fs::write(lab.path("base/bin/sh"), "a shell").unwrap();
    fs::write(lab.path("more/etc/motd"), "hello").unwrap();
    run(
        lab,
        "tar -C base -cf base.tar bin; tar -C more -cf more.tar etc
        umoci init --layout made; umoci new --image made:v0
        umoci raw add-layer --image made:v0 base.tar
        umoci raw add-layer --image made:v0 --tag v1 more.tar
        umoci config --image made:v1 --config.entrypoint /bin/sh --config.cmd -c \
            --config.cmd 'echo $A' --config.env A=b --config.env PATH=/bin --config.user 1:2 \
            --config.workingdir /etc --config.stopsignal SIGINT \
            --config.exposedports 80/tcp --config.exposedports 53/udp",
    );
}

/// Compares what was read with what skopeo says about the same image, and the layers' contents
/// with their diff_ids, by way of gzip(1).
fn compare_with_skopeo(lab: &Lab, image: &Image, reference: &str) {
    let theirs = run(lab, &format!("skopeo inspect --config {reference}"));
    let theirs: Value = serde_json::from_str(&theirs).unwrap();
    let config = &image.config;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let ports = theirs["config"]["ExposedPorts"].as_object().unwrap();
    assert_eq!(json!(config.env), theirs["config"]["Env"]);
    assert_eq!(json!(config.entrypoint), theirs["config"]["Entrypoint"]);
    assert_eq!(json!(config.cmd), theirs["config"]["Cmd"]);
    assert_eq!(json!(text(&config.working_dir)), theirs["config"]["WorkingDir"]);
    assert_eq!(json!(text(&config.user)), theirs["config"]["User"]);
    assert_eq!(json!(text(&config.stop_signal)), theirs["config"]["StopSignal"]);
    assert!(config.exposed_ports.iter().eq(ports.keys()));
    assert_eq!(json!(config.architecture), theirs["architecture"]);
    let ids = image.layers.iter().map(|l| l.diff_id.as_ref().unwrap().to_string());
    assert_eq!(json!(ids.collect::<Vec<_>>()), theirs["rootfs"]["diff_ids"]);

    for (n, layer) in image.layers.iter().enumerate() {
        lab.file("layer", &lab.content(image, n));
        let decode = match layer.compression {
            Compression::None => "cat",
            Compression::Gzip => "gzip -dc",
            Compression::Zstd => "zstd -dc",
        };
        let sum = run(lab, &format!("{decode} < layer | sha256sum"));
        assert!(sum.starts_with(layer.diff_id.as_ref().unwrap().digest()));
    }
}

#[test]
fn images_by_umoci_and_skopeo() {
    if !have("images_by_umoci_and_skopeo", &["umoci", "skopeo", "gzip", "zstd"]) {
        return;
    }
    let lab = Lab::new();
    umoci_layout(&lab);
    run(
        &lab,
        "skopeo copy oci:made:v1 oci:copy:x/y:v1
        skopeo copy oci:made:v1 oci-archive:oci.tar:x/y:v1
        skopeo copy --dest-compress-format zstd oci:made:v1 oci:zstd
        skopeo copy oci:made:v1 docker-archive:docker.tar:x/y:v1
        skopeo copy oci:made:v1 dir:dir
        gzip -k oci.tar docker.tar; zstd -q oci.tar docker.tar",
    );
    for (reference, kind, theirs) in [
        ("made:v1", Kind::OciLayout, "oci:made:v1"),
        ("copy", Kind::OciLayout, "oci:copy"),
        ("copy:x/y:v1", Kind::OciLayout, "oci:copy"),
        ("zstd", Kind::OciLayout, "oci:zstd"),
        ("oci.tar", Kind::OciArchive, "oci-archive:oci.tar"),
        ("oci.tar:x/y:v1", Kind::OciArchive, "oci-archive:oci.tar"),
        ("oci.tar.gz", Kind::OciArchive, "oci-archive:oci.tar"),
        ("oci.tar.zst:x/y:v1", Kind::OciArchive, "oci-archive:oci.tar"),
        ("docker.tar", Kind::DockerArchive, "docker-archive:docker.tar"),
        ("docker.tar:x/y:v1", Kind::DockerArchive, "docker-archive:docker.tar"),
        ("docker.tar.gz", Kind::DockerArchive, "docker-archive:docker.tar"),
        ("docker.tar.zst", Kind::DockerArchive, "docker-archive:docker.tar"),
    ] {
        let full = lab.path(reference).display().to_string();
        let (path, tag) = images::split(&full).unwrap();
        let image = lab.open(&path, tag.as_deref()).unwrap();
        assert_eq!((image.kind, image.layers.len()), (kind, 2), "{reference}");
        compare_with_skopeo(&lab, &image, theirs);
    }
    says(&error(lab.open(&lab.path("made"), None)), &["several images", "v0, v1"]);
    says(&error(lab.open(&lab.path("dir"), None)), &["skopeo copy dir:"]);
    // The tar of a root file system as tar(1) writes it.
    let image = lab.open(&lab.path("base.tar"), None).unwrap();
    assert_eq!(image.kind, Kind::RootfsArchive);
}

#[test]
fn images_by_buildah() {
    if !have("images_by_buildah", &["buildah", "skopeo", "umoci"]) {
        return;
    }
    let lab = Lab::new();
    umoci_layout(&lab);
    let buildah = "buildah --root $PWD/store --runroot $PWD/run --storage-driver vfs";
    run(
        &lab,
        &format!(
            "c=$({buildah} from oci:made:v1)
            {buildah} config --env C=d $c
            {buildah} add $c more/etc/motd /etc/third
            {buildah} commit $c built
            {buildah} push built docker-archive:$PWD/docker.tar:built:1
            {buildah} push built oci-archive:$PWD/oci.tar:built:1
            {buildah} push built oci:$PWD/oci"
        ),
    );
    for (name, theirs) in [
        ("docker.tar", "docker-archive:docker.tar"),
        ("oci.tar", "oci-archive:oci.tar"),
        ("oci", "oci:oci"),
    ] {
        let image = lab.open(&lab.path(name), None).unwrap();
        assert!(image.config.env.contains(&"C=d".into()));
        compare_with_skopeo(&lab, &image, theirs);
    }
    run(&lab, &format!("{buildah} rm --all; {buildah} rmi --all --force"));
}

/// Long names and extended attributes (PAX) in front of members, as other tars write them.
#[test]
fn archives_by_tar_in_all_formats() {
    if !have("archives_by_tar_in_all_formats", &["tar"]) {
        return;
    }
    let lab = Lab::new();
    let long = format!("{}/layer.tar", "d".repeat(180));
    let plain = layer_tar("etc/one");
    let mut files = Files::default();
    files.put(&long, &plain);
    files.put("config", config_json(this_arch(), &[&plain, &plain]).to_string());
    files.json("manifest.json", &json!([{ "Config": "config", "Layers": [long, long] }]));
    lab.dir("save", &files);
    for format in ["gnu", "pax", "oldgnu"] {
        run(&lab, &format!("tar --format={format} -C save -cf save.tar ."));
        let image = lab.open(&lab.path("save.tar"), None).unwrap();
        assert_is_the_image(&lab, &image);
    }
}
