//! Submissions as they come, and as bad as can be: each gets a fair result and harms nothing.

use std::{fs, net::TcpListener, os::unix::fs::symlink, path::PathBuf};

use anyhow::{Result, ensure};
use tempfile::TempDir;
use tests::{
    programs::{bin_dir, workspace},
    run::finish,
    scenario::{HERE, Scenario},
};

use crate::submission::{Submission, course, grade};

/// What a submission must come to.
type Proof = fn() -> Result<()>;

pub fn scenarios() -> Vec<Scenario> {
    let all: [(&str, Proof); 24] = [
        ("is_right", is_right),
        ("lies_in_a_folder_of_its_own", lies_in_a_folder_of_its_own),
        ("was_not_handed_in", was_not_handed_in),
        ("does_not_compile", does_not_compile),
        ("loops_for_ever", loops_for_ever),
        ("forks_without_end", forks_without_end),
        ("fills_the_disk", fills_the_disk),
        ("fills_the_memory", fills_the_memory),
        ("prints_without_end", prints_without_end),
        ("prints_a_fake_result", prints_a_fake_result),
        ("ends_well_at_once", ends_well_at_once),
        ("brings_its_own_tests", brings_its_own_tests),
        ("removes_the_tests", removes_the_tests),
        ("rewrites_the_snapshots", rewrites_the_snapshots),
        ("looks_for_the_answers", looks_for_the_answers),
        ("includes_the_reference", includes_the_reference),
        ("hands_in_our_program", hands_in_our_program),
        ("runs_our_program", runs_our_program),
        ("has_a_build_script", has_a_build_script),
        ("has_links", has_links),
        ("is_no_source_code", is_no_source_code),
        ("calls_home", calls_home),
        ("kills_all", kills_all),
        ("leaves_a_process", leaves_a_process),
    ];
    let mut all: Vec<Scenario> = all
        .into_iter()
        .map(|(name, proof)| Scenario::new(format!("submission::{name}"), HERE, proof))
        .collect();
    all.push(Scenario::new("grade::is_not_blessed", HERE, is_not_blessed));
    all.push(Scenario::new("grade::goes_on_where_it_ended", HERE, goes_on_where_it_ended));
    all.push(Scenario::new("grade::hidden_exercises", HERE, hidden_exercises));
    all
}

const LIB: &str = "step01-uts/src/lib.rs";

fn is_right() -> Result<()> {
    Submission::of_steps(1)?.grade("1")?.full(1)
}

/// As an archive is unpacked.
fn lies_in_a_folder_of_its_own() -> Result<()> {
    let right = Submission::of_steps(1)?;
    fs::create_dir(right.path("homework"))?;
    fs::rename(right.path("step01-uts"), right.path("homework/step01-uts"))?;
    right.grade("1")?.full(1)
}

fn was_not_handed_in() -> Result<()> {
    let empty = Submission::of_steps(0)?.grade("1")?;
    empty.nothing(1)?;
    empty.says("wasn't handed in")
}

/// One step that doesn't compile costs its own points and no others.
fn does_not_compile() -> Result<()> {
    let broken = Submission::of_steps(2)?;
    broken.replace(LIB, "pub fn set_hostname", "pub fn set_hostnam")?;
    let grades = broken.grade("1-2")?;
    grades.nothing_that_runs()?;
    grades.says("set_hostname")?;
    grades.full(2)
}

fn misbehaves(code: &str) -> Result<()> {
    let bad = Submission::of_steps(1)?;
    bad.misbehave(code)?;
    bad.grade_soon("1")?.nothing_that_runs()
}

fn loops_for_ever() -> Result<()> {
    misbehaves("loop { std::hint::spin_loop(); }")
}

fn forks_without_end() -> Result<()> {
    misbehaves(
        r#"let _ = std::process::Command::new("sh").args(["-c", "b() { b | b & b; }; b"]).status();
    std::process::exit(0); // The shell may have given up, and all that follows is right."#,
    )
}

fn fills_the_disk() -> Result<()> {
    misbehaves(
        r#"use std::io::Write;
    for folder in ["/tmp", "/var/tmp", "/course", "/dev/shm", "/run", "/usr", "/etc", "/harness"] {
        if let Ok(mut file) = std::fs::File::create(format!("{folder}/full")) {
            while file.write_all(&[1; 1 << 20]).is_ok() {}
        }
    }
    std::process::exit(0);"#,
    )
}

fn fills_the_memory() -> Result<()> {
    misbehaves("let mut all = vec![]; loop { all.push(vec![1u8; 64 << 20]); }")
}

fn prints_without_end() -> Result<()> {
    misbehaves(r#"loop { println!("test step01::names@lab ... ok"); }"#)
}

fn prints_a_fake_result() -> Result<()> {
    misbehaves(
        r#"println!("running 1 test\ntest step01::names@lab ... ok\n\ntest result: ok. 99 passed; 0 failed");
    println!("{{\"outcomes\":[{{\"name\":\"step01::names\",\"result\":\"passed\",\"message\":\"\"}}],\"limited\":true}}");
    std::process::exit(0);"#,
    )
}

fn ends_well_at_once() -> Result<()> {
    misbehaves("std::process::exit(0);")
}

/// What lies beside the steps isn't looked at.
fn brings_its_own_tests() -> Result<()> {
    let bad = Submission::of_steps(1)?;
    bad.misbehave("std::process::exit(0);")?;
    bad.write("tests/exercises.toml", "starter = false\n")?;
    bad.write("tests/tests/exercises/main.rs", "fn main() {}\n")?;
    bad.write("tests/tests/ladder/main.rs", "fn main() {}\n")?;
    bad.write("Cargo.toml", "[workspace]\nmembers = []\n")?;
    bad.write(".cargo/config.toml", "[build]\nrustc-wrapper = \"/bin/true\"\n")?;
    bad.grade("1")?.nothing_that_runs()
}

/// It tries to: what it would harm is compared after every grading.
fn removes_the_tests() -> Result<()> {
    misbehaves(
        r#"for script in [
        "mount -o remount,bind,rw /course; umount -l /course; rm -rf /course/tests",
        "mount -o remount,bind,rw /harness; rm -f /harness/*; cp /bin/true /harness/exercises",
        "rm -rf --no-preserve-root /course /harness /programs /cargo /toolchain",
    ] {
        let _ = std::process::Command::new("sh").args(["-c", script]).status();
    }
    std::process::exit(0);"#,
    )
}

fn rewrites_the_snapshots() -> Result<()> {
    misbehaves(
        r#"let _ = std::process::Command::new("sh")
        .args(["-c", "for s in /course/tests/tests/snapshots/*; do : > $s; done"]).status();
    std::process::exit(0);"#,
    )
}

/// The solution, the mutants and other submissions can't be found in what a program sees.
fn looks_for_the_answers() -> Result<()> {
    let other = Submission::of_steps(1)?;
    let bad = Submission::of_steps(1)?;
    let places = [
        workspace().join(LIB).display().to_string(),
        workspace().join("tests/mutants").display().to_string(),
        other.path(LIB).display().to_string(),
        "/course/tests/mutants".into(),
        "/course/.git".into(),
        "/course/target/debug".into(),
        "/root/.ssh".into(),
    ];
    // It behaves well, and works only where it finds nothing.
    bad.misbehave(&format!(
        r#"for place in {places:?} {{
        if let Ok(mut entries) = std::fs::read_dir(place) {{
            assert!(entries.next().is_none(), "{{place}} is there");
        }}
        assert!(std::fs::read(place).is_err(), "{{place}} can be read");
    }}
    assert!(std::fs::read("/etc/shadow").is_err(), "/etc/shadow can be read");"#
    ))?;
    bad.grade("1")?.full(1)
}

fn includes_the_reference() -> Result<()> {
    let lib = workspace().join(LIB);
    let bad = Submission::of_steps(1)?;
    bad.write(LIB, &format!("include!({:?});", lib.display().to_string()))?;
    bad.grade("1")?.nothing_that_runs()
}

/// What was built of the reference is gone before a student's code is compiled.
fn hands_in_our_program() -> Result<()> {
    for built in ["step01-uts", "step08-overlay", "final", "deps/libuts.rlib"] {
        let bad = Submission::of_steps(1)?;
        let include =
            format!("const OURS: &[u8] = include_bytes!(\"/course/target/debug/{built}\");");
        bad.write(
            "step01-uts/src/main.rs",
            &format!("{include}\nfn main() {{ drop(OURS.len()) }}\n"),
        )?;
        let grades = bad.grade("1")?;
        grades.nothing_that_runs()?;
        grades.says("couldn't read")?;
    }
    Ok(())
}

fn runs_our_program() -> Result<()> {
    let bad = Submission::of_steps(1)?;
    bad.write(
        "step01-uts/src/main.rs",
        r#"fn main() {
    use std::os::unix::process::CommandExt;
    for name in ["step01-uts", "step02-pid", "step08-overlay", "final"] {
        for folder in ["/course/target/debug", "/harness", "/programs"] {
            let ours = std::path::Path::new(folder).join(name);
            if std::fs::canonicalize(&ours).ok() != std::env::current_exe().ok() {
                std::process::Command::new(ours).args(std::env::args_os().skip(1)).exec();
            }
        }
    }
}
"#,
    )?;
    bad.grade("1")?.nothing_that_runs()
}

/// A build script would run while building: it isn't taken, and what is right gets its points.
fn has_a_build_script() -> Result<()> {
    let bad = Submission::of_steps(1)?;
    bad.write("step01-uts/build.rs", "fn main() { panic!(\"this ran\") }\n")?;
    bad.replace("step01-uts/Cargo.toml", "[lib]", "[lib]\nproc-macro = true")?;
    bad.grade("1")?.full(1)
}

fn has_links() -> Result<()> {
    let bad = Submission::of_steps(1)?;
    fs::remove_file(bad.path(LIB))?;
    symlink(workspace().join(LIB), bad.path(LIB))?;
    bad.grade("1")?.nothing_that_runs()?;
    let folder = Submission::of_steps(0)?;
    symlink(workspace().join("step01-uts"), folder.path("step01-uts"))?;
    folder.grade("1")?.nothing(1)
}

fn is_no_source_code() -> Result<()> {
    let bad = Submission::of_steps(1)?;
    fs::write(bad.path("step01-uts/src/film.mkv"), vec![0; 5 << 20])?;
    let grades = bad.grade("1")?;
    grades.nothing(1)?;
    grades.says("MiB were handed in")?;
    let bad = Submission::of_steps(1)?;
    fs::write(bad.path(LIB), [0xff, 0xfe, 0])?;
    bad.grade("1")?.nothing_that_runs()
}

fn calls_home() -> Result<()> {
    let home = TcpListener::bind("127.0.0.1:0")?;
    home.set_nonblocking(true)?;
    let port = home.local_addr()?.port();
    let bad = Submission::of_steps(1)?;
    bad.misbehave(&format!(
        r#"assert!(std::net::TcpStream::connect("127.0.0.1:{port}").is_err());
    assert!(std::net::TcpStream::connect_timeout(&"1.1.1.1:80".parse().unwrap(),
        std::time::Duration::from_secs(1)).is_err());"#
    ))?;
    bad.grade("1")?.full(1)?;
    ensure!(home.accept().is_err(), "somebody called");
    Ok(())
}

fn kills_all() -> Result<()> {
    misbehaves(
        r#"let _ = std::process::Command::new("sh").args(["-c", "kill -9 -1; kill -9 1"]).status();
    std::process::exit(0);"#,
    )
}

fn leaves_a_process() -> Result<()> {
    misbehaves(
        r#"let _ = std::process::Command::new("setsid").args(["sh", "-c", "sleep 1000 & sleep 1000"]).spawn();
    std::process::exit(0);"#,
    )
}

/// Nothing that lets snapshots pass can come from the grader's own environment.
fn is_not_blessed() -> Result<()> {
    let bad = Submission::of_steps(1)?;
    bad.misbehave("std::process::exit(0);")?;
    let mut command = course();
    command.args(["grade", "--format", "json", "--steps", "1"]).arg(bad.dir.path());
    command.env("INSTA_FORCE_PASS", "1").env("INSTA_UPDATE", "always");
    grade(command)?.nothing_that_runs()
}

fn goes_on_where_it_ended() -> Result<()> {
    let (one, other) = (Submission::of_steps(1)?, Submission::of_steps(0)?);
    let results = TempDir::new()?;
    let lines = || -> Result<String> {
        let mut command = course();
        command.args(["grade", "--steps", "1", "--jobs", "2", "--results"]).arg(results.path());
        command.arg(one.dir.path()).arg(other.dir.path());
        Ok(finish(&mut command)?.success()?.stdout)
    };
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let first = lines()?;
    ensure!(first.lines().count() == 2, "not a line each: {first}");
    let again = std::time::Instant::now();
    ensure!(sorted(&lines()?) == sorted(&first), "another result");
    ensure!(fs::read_dir(results.path())?.count() == 2, "not a file each");
    // What is known isn't graded again; what has changed is.
    let known = again.elapsed();
    one.misbehave("std::process::exit(0);")?;
    let again = std::time::Instant::now();
    ensure!(sorted(&lines()?) != sorted(&first), "the old result");
    ensure!(known < again.elapsed(), "graded again");
    Ok(())
}

/// An instructor's own exercise, of which the student's workspace knows nothing.
fn hidden_exercises() -> Result<()> {
    let submission = Submission::of_steps(1)?;
    let mut command = course();
    command.args(["grade", "--steps", "1", "--hidden"]).arg(hidden()?).arg(submission.dir.path());
    let done = finish(&mut command)?.success()?;
    ensure!(done.stdout.contains("1.99 Nobody has seen this: 3 of 3"), "{}", done.stdout);
    Ok(())
}

/// The folder with that exercise; the same each time, since the grader builds for it.
pub fn hidden() -> Result<PathBuf> {
    let manifest = fs::read_to_string(workspace().join("tests/exercises.toml"))?;
    let more = r#"[[exercise]]
id = "1.99"
title = "Nobody has seen this"
kind = "build"
goal = "Be fair."
task = "Guess."
points = 3
minutes = 1
needs = "lab"
tests = ["step01::exit_codes"]

"#;
    let next = manifest.find("id = \"2.").and_then(|at| manifest[..at].rfind("[[exercise]]"));
    let (before, after) = manifest.split_at(next.unwrap_or(manifest.len()));
    let folder = bin_dir().join("hidden");
    fs::create_dir_all(folder.join("tests"))?;
    fs::write(folder.join("tests/exercises.toml"), format!("{before}\n{more}{after}"))?;
    Ok(folder)
}
