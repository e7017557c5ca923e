//! What the image says, what the options say, and who wins.

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use tests::{
    chance::Chance,
    run::finish,
    scenario::{AS_ROOT, Place, Scenario},
};

use crate::{
    images,
    running::{command, says, sh},
};

/// On the machine itself, whoever runs the tests.
const MACHINE: &[Place] = &[Place::Root, Place::User];

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("real::image_config", MACHINE, image_config),
        Scenario::new("real::environment", MACHINE, environment),
        Scenario::new("real::users", AS_ROOT, users),
        Scenario::new("real::exit_codes", MACHINE, exit_codes),
        Scenario::new("real::pipes_are_binary_clean", MACHINE, pipes),
        Scenario::new("real::volumes", AS_ROOT, volumes),
        Scenario::new("real::volumes_of_root", AS_ROOT, volumes_of_root),
        Scenario::new("real::read_only", AS_ROOT, read_only),
        Scenario::new("real::directory_as_image", AS_ROOT, directory),
    ]
}

fn image_config() -> Result<()> {
    let image = images::small()?;
    let run = |options: &[&str], args: &[&str]| -> Result<String> {
        Ok(finish(&mut command(options, &image, args))?.success()?.stdout)
    };
    // The image's own command, in its directory, on its second layer.
    ensure!(run(&[], &[])? == "second\n");
    ensure!(says(&[], &image, "pwd; ls")? == "/srv\nreplaced");
    ensure!(run(&["--entrypoint", "echo"], &["a", "b"])? == "a b\n");
    // The image's arguments were meant for another program.
    ensure!(run(&["--entrypoint", "echo"], &[])? == "\n");
    let needle = Chance::new("workdir").needle();
    let dir = format!("/new/{needle}");
    ensure!(says(&["--workdir", &dir], &image, "pwd")? == dir);
    ensure!(says(&["--workdir", &dir, "--read-only"], &image, "pwd")? == dir);
    ensure!(says(&["--hostname", &needle], &image, "hostname")? == needle);
    ensure!(says(&["--name", &needle], &image, "hostname")? == needle);
    Ok(())
}

fn environment() -> Result<()> {
    let (image, needle) = (images::small()?, Chance::new("env").needle());
    ensure!(says(&[], &image, "echo \"$FROM_IMAGE [$SPACED] $HOME\"")? == "yes [a b  c] /root");
    let given = format!("FROM_IMAGE={needle}=x");
    ensure!(says(&["--env", &given], &image, "echo $FROM_IMAGE")? == format!("{needle}=x"));
    let mut passed_on =
        command(&["--env", "OUTSIDE", "--env", "UNSET"], &image, &["sh", "-c", "env"]);
    let env = finish(passed_on.env("OUTSIDE", &needle))?.success()?.stdout;
    ensure!(env.lines().any(|line| line == format!("OUTSIDE={needle}")), "{env}");
    ensure!(!env.contains("UNSET"), "{env}");
    // Nothing else comes in.
    let mut other = command(&[], &image, &["sh", "-c", "env"]);
    let env = finish(other.env("SECRET", &needle))?.success()?.stdout;
    ensure!(!env.contains(&needle), "{env}");
    Ok(())
}

fn users() -> Result<()> {
    let image = images::small()?;
    let script = "echo $(id -u) $(id -g) $(id -G) $HOME";
    for (user, expected) in [
        ("root", "0 0 0 /root"),
        ("ada", "1001 1002 1002 50 /home/ada"),
        ("1001", "1001 1002 1002 50 /home/ada"),
        ("ada:staff", "1001 50 50 /home/ada"),
        ("77", "77 0 0 /"),
        ("77:88", "77 88 88 /"),
    ] {
        let seen = says(&["--user", user], &image, script)?;
        ensure!(seen == expected, "--user {user} is {seen} and not {expected}");
    }
    let rights = says(&["--user", "ada"], &image, "grep CapEff /proc/self/status; touch ~/mine")?;
    ensure!(rights.ends_with("\t0000000000000000"), "{rights}");
    // The last number would mean "no change" to the kernel: root would stay root.
    for user in ["nobody-there", "ada:no-such-group", "4294967295", "0:4294967295", "70000"] {
        sh(&["--user", user], &image, "id")?.with_code(125).with_context(|| user.to_owned())?;
    }
    Ok(())
}

fn exit_codes() -> Result<()> {
    let image = images::small()?;
    let code = 1 + Chance::new("code").below(100) as i32;
    sh(&[], &image, &format!("exit {code}"))?.with_code(code)?;
    sh(&[], &image, "kill -9 $$")?.with_code(137)?;
    sh(&[], &image, "kill -TERM $$")?.with_code(143)?;
    finish(&mut command(&[], &image, &["no-such-program"]))?.with_code(127)?;
    finish(&mut command(&[], &image, &["/etc/passwd"]))?.with_code(126)?;
    finish(&mut command(&["--no-such-option"], &image, &[]))?.with_code(125)?;
    // What can't be had is said, and not left out.
    let no_cable = ["--net", "none", "--net-rate", "1m"];
    finish(&mut command(&no_cable, &image, &["true"]))?.with_code(125)?;
    finish(&mut command(&[], "no-such-image", &["true"]))?.with_code(125)?;
    finish(&mut command(&[], &format!("{image}-not"), &["true"]))?.with_code(125)?;
    Ok(())
}

/// Ten megabytes of random bytes go in through a pipe, and come out through another.
fn pipes() -> Result<()> {
    let image = images::small()?;
    let mut chance = Chance::new("bytes");
    let bytes: Vec<u8> = (0..10 << 17).flat_map(|_| chance.number().to_ne_bytes()).collect();
    let mut cat = command(&[], &image, &["cat"]);
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = cat.stdin.take().context("its input is a pipe")?;
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || input.write_all(&sent));
    let output = cat.wait_with_output()?;
    writer.join().expect("writing doesn't panic")?;
    ensure!(output.status.success(), "{:?}", output.status);
    ensure!(output.stdout == bytes, "{} bytes of {} came back", output.stdout.len(), bytes.len());
    Ok(())
}

fn volumes() -> Result<()> {
    let (image, needle) = (images::small()?, Chance::new("volume").needle());
    open_directory("/tmp/volume")?;
    fs::write("/tmp/volume/file", &needle)?;
    let at = |source: &str, rest: &str| format!("{source}:{rest}");
    ensure!(says(&["-v", &at("/tmp/volume", "/v")], &image, "cat /v/file")? == needle);
    sh(&["-v", &at("/tmp/volume", "/v")], &image, "echo new >/v/new")?.success()?;
    ensure!(fs::read_to_string("/tmp/volume/new")? == "new\n");

    let read_only = at("/tmp/volume", "/v:ro");
    sh(&["-v", &read_only], &image, "cat /v/file && echo x >/v/x")?.with_code(1)?;
    ensure!(!fs::exists("/tmp/volume/x")?);
    // A file, over one that the image has; and in a directory that it hasn't.
    for place in ["/etc/passwd", "/a/new/place"] {
        let file = at("/tmp/volume/file", place);
        ensure!(says(&["-v", &file], &image, &format!("cat {place}"))? == needle);
    }
    for (wrong, says) in [
        ("/tmp/no-such-thing:/v", "No such file"),
        ("/tmp/volume:relative", "begins with a slash"),
        ("/tmp/volume:/", "hide the whole image"),
        ("/tmp/volume", "write SRC:DST"),
        ("/tmp/volume:/proc", "made by the runtime"),
        ("/tmp/volume:/proc/sys", "made by the runtime"),
        ("/tmp/volume:/etc/passwd", "a directory and the other a file"),
        ("/tmp/volume/file:/etc", "a directory and the other a file"),
    ] {
        let done = sh(&["-v", wrong], &image, "true")?.with_code(125);
        let said = done.with_context(|| wrong.to_owned())?.stderr;
        ensure!(said.contains(says), "-v {wrong}: {said}");
    }
    Ok(())
}

/// What belongs to root outside belongs to root inside, and the reverse: the numbers are shifted by the mount.
fn volumes_of_root() -> Result<()> {
    let (image, needle) = (images::small()?, Chance::new("root's volume").needle());
    fs::create_dir("/tmp/volume")?;
    fs::write("/tmp/volume/closed", &needle)?;
    fs::set_permissions("/tmp/volume/closed", fs::Permissions::from_mode(0o600))?;
    let script = "cat /v/closed; touch /v/root /v/ada; chown ada:staff /v/ada";
    let seen = sh(&["-v", "/tmp/volume:/v"], &image, script)?;
    if seen.stderr.contains("belong to nobody inside") {
        return tests::scenario::skip("this file system can't shift owners");
    }
    ensure!(seen.success()?.stdout == needle);
    let owner = |name: &str| -> Result<(u32, u32)> {
        let data = fs::metadata(format!("/tmp/volume/{name}"))?;
        Ok((data.uid(), data.gid()))
    };
    ensure!(owner("root")? == (0, 0));
    ensure!(owner("ada")? == (1001, 50));
    let closed = sh(&["-v", "/tmp/volume:/v", "--user", "ada"], &image, "cat /v/closed")?;
    ensure!(!closed.with_code(1)?.stdout.contains(&needle));
    Ok(())
}

fn read_only() -> Result<()> {
    let image = images::small()?;
    open_directory("/tmp/volume")?;
    let options = ["--read-only", "-v", "/tmp/volume:/v"];
    for place in ["/x", "/etc/passwd", "/tmp/x", "/proc/sys/kernel/hostname", "/sys/x"] {
        let script = format!("echo x >>{place}");
        sh(&options, &image, &script)?.with_code(1).with_context(|| place.to_owned())?;
    }
    // These are the container's own, or the user's wish.
    sh(&options, &image, "echo x >/dev/shm/x && echo x >/dev/null && echo x >/v/x")?.success()?;
    Ok(())
}

/// A root file system that belongs to the host's root belongs to root inside, and isn't changed.
fn directory() -> Result<()> {
    let needle = Chance::new("directory").needle();
    images::directory("/tmp/root".as_ref(), &format!("echo {needle} >closed; chmod 600 closed"))?;
    let script = "cat /closed; chown 5:6 /closed; stat -c %u:%g /closed; rm /bin/sh";
    let seen = sh(&[], "/tmp/root", script)?;
    if seen.stderr.contains("belong to nobody inside") {
        return tests::scenario::skip("this file system can't shift owners");
    }
    ensure!(seen.success()?.stdout == format!("{needle}\n5:6\n"));
    ensure!(fs::metadata("/tmp/root/closed")?.uid() == 0 && fs::exists("/tmp/root/bin/sh")?);
    Ok(())
}

/// Makes a directory that everybody may write to: where owners can't be shifted, root inside is nobody.
fn open_directory(path: &str) -> Result<()> {
    fs::create_dir(path)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o777))?)
}
