//! Servers out of a distribution, and neighbours that can't hurt them.

use std::{fs, time::Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    chance::Chance,
    run::finish,
    scenario::{AS_ROOT, Scenario},
};

use crate::{
    images,
    running::{Running, ask, command, command_with_store, get, sh},
};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("real::server::can_be_made", AS_ROOT, || images::server().map(drop)),
        Scenario::new("real::server::nginx", AS_ROOT, nginx),
        Scenario::new("real::server::docker_archive", AS_ROOT, docker_archive),
        Scenario::new("real::server::redis", AS_ROOT, redis),
        Scenario::new("real::server::neighbours", AS_ROOT, neighbours),
        Scenario::new("real::server::net_rate", AS_ROOT, net_rate),
        Scenario::new("real::limits::cpus", AS_ROOT, cpus),
    ]
}

/// Starts the image's own entrypoint, which first prints the address.
fn start(options: &[&str], args: &[&str]) -> Result<(Running, String)> {
    let image = images::server()?;
    let mut command = command_with_store(&images::store()?, options, &image, args);
    let mut running = Running::start(&mut command)?;
    let address = running.line()?;
    ensure!(address.starts_with("10.213."), "{address}");
    Ok((running, address))
}

fn nginx() -> Result<()> {
    let (server, address) = start(&[], &[])?;
    let page = get(&address, "/")?;
    ensure!(
        page.starts_with("HTTP/1.1 200 OK") && page.ends_with("from the second layer\n"),
        "{page}"
    );
    server.signal(Signal::SIGTERM)?;
    ensure!(server.end()? == Some(0));

    let needle = Chance::new("page").needle();
    fs::create_dir("/tmp/site")?;
    fs::write("/tmp/site/index.html", &needle)?;
    let (_server, address) = start(&["-v", "/tmp/site:/var/www/html:ro"], &[])?;
    ensure!(get(&address, "/")?.ends_with(&needle));
    ensure!(get(&address, "/no-such-page")?.starts_with("HTTP/1.1 404"));
    Ok(())
}

/// The same layers in another wrapping, unpacked once.
fn docker_archive() -> Result<()> {
    let archive = images::server_archive()?;
    let script = ["cat", "/var/www/html/index.html"];
    for image in [&images::server()?, &archive, &format!("{archive}:server:latest")] {
        let seen = finish(&mut command(&["--entrypoint", script[0]], image, &script[1..]))?;
        let seen = seen.success().with_context(|| image.clone())?;
        ensure!(seen.stdout == "from the second layer\n", "{}", seen.stdout);
    }
    let folders = fs::read_dir("/tmp/store")?.flatten();
    let stores = folders.filter(|dir| dir.file_name().to_string_lossy().starts_with("layers"));
    let layers = stores.flat_map(|dir| fs::read_dir(dir.path()).into_iter().flatten().flatten());
    let layers = layers.filter(|layer| layer.file_name().to_string_lossy().starts_with("sha256-"));
    ensure!(layers.count() == 2);
    Ok(())
}

fn redis() -> Result<()> {
    let arguments = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""];
    let (server, address) = start(&["--user", "redis", "--workdir", "/tmp"], &arguments)?;
    let needle = Chance::new("redis").needle();
    let answer = ask(&address, 6379, &format!("PING\r\nSET key {needle}\r\nGET key\r\nQUIT\r\n"))?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let expected = format!("+PONG\r\n+OK\r\n${}\r\n{needle}\r\n+OK\r\n", needle.len());
    ensure!(answer == expected, "{answer}");
    server.signal(Signal::SIGTERM)?;
    ensure!(server.end()? == Some(0));
    Ok(())
}

/// One that wants all memory and one that forks without end, while the server answers.
fn neighbours() -> Result<()> {
    let (server, address) = start(&["--memory", "200m", "--pids", "50"], &[])?;
    get(&address, "/")?;
    let small = images::small()?;
    sh(&["--memory", "30m"], &small, "tail /dev/zero")?.with_code(137)?;
    ensure!(get(&address, "/")?.contains(" 200 OK"));
    let script = "n=0; while [ $n -lt 40 ]; do sleep 1000 & n=$((n+1)); done";
    let bomb = sh(&["--pids", "20"], &small, script)?;
    ensure!(bomb.code != 0 && bomb.stderr.contains("can't fork"), "{bomb:?}");
    sh(&["--pids", "60"], &small, script)?.success()?;
    ensure!(get(&address, "/")?.contains(" 200 OK"));
    server.signal(Signal::SIGTERM)?;
    ensure!(server.end()? == Some(0));
    Ok(())
}

fn net_rate() -> Result<()> {
    const RATE: f64 = (4 << 20) as f64;
    let script = "head -c 12m /dev/zero >big; exec \"$@\"";
    let fill = ["sh", "-c", script, "-", "nginx", "-g", "daemon off;"];
    let (_server, address) = start(&["--net-rate", "4m"], &fill)?;
    get(&address, "/")?;
    let begin = Instant::now();
    let bytes = ask(&address, 80, "GET /big HTTP/1.0\r\n\r\n")?.len();
    let rate = bytes as f64 / begin.elapsed().as_secs_f64();
    ensure!(bytes > 12 << 20, "{bytes} bytes came");
    // Slower than asked for may be a busy machine; much slower isn't a limit but a fault.
    ensure!((0.5 * RATE..1.3 * RATE).contains(&rate), "{rate} bytes per second");
    Ok(())
}

/// A fifth of a CPU gives a busy loop at most that share of the time that passes.
fn cpus() -> Result<()> {
    let script = "timeout 2 sh -c 'while :; do :; done'; cat /proc/uptime; times";
    let seen = sh(&["--cpus", "0.2"], &images::small()?, script)?.success()?;
    // The last line is the children's time, as 0m0.401s 0m0.000s.
    let times = seen.stdout.lines().last().context("times prints")?;
    let seconds = |time: &str| -> Option<f64> {
        let (minutes, seconds) = time.trim_end_matches('s').split_once('m')?;
        Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
    };
    let used: f64 = times.split_whitespace().filter_map(seconds).sum();
    ensure!((0.05..0.7).contains(&used), "a fifth of 2 s is 0.4 s, and it used {used} s: {times}");
    Ok(())
}
