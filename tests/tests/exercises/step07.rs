//! The exercises of step 7: limits on memory, CPU, processes and I/O, on whichever control groups the
//! machine has.

use std::{
    env, fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    unistd::Pid,
};
use tests::{
    answers,
    chance::Chance,
    groups::{self, CleanUp, Group},
    held::Held,
    network,
    programs::{self, bin_dir, program, workspace},
    run::{Finished, finish},
    scenario::{IN_LAB, Scenario},
};

const STEP: &str = "step07-cgroups";
const PARTS: &str = "step07-parts";
const ERRNO: &str = "step07-cgroups/exercises/errno.toml";
const THROTTLED: &str = "step07-cgroups/exercises/throttled.sh";

pub fn scenarios() -> Vec<Scenario> {
    let new = |name: &str, proof: fn() -> Result<()>| {
        Scenario::new(format!("exercises::{name}"), IN_LAB, proof)
    };
    vec![
        new("7.1::what_v2_is_told", what_v2_is_told),
        new("7.1::what_v1_is_told", what_v1_is_told),
        new("7.1::nothing_is_limited_unasked", nothing_is_limited_unasked),
        new("7.1::memory_has_an_end", memory_has_an_end),
        new("7.2::limits_are_set_first", limits_are_set_first),
        new("7.2::child_is_in_the_group", child_is_in_the_group),
        new("7.2::ordinary_files_limit_nothing", ordinary_files_limit_nothing),
        new("7.3::nobody_starts_outside", nobody_starts_outside),
        new("7.4::process_too_many", process_too_many),
        new("7.4::group_in_use", group_in_use),
        new("7.4::limit_of_words", limit_of_words),
        new("7.4::process_that_ended", process_that_ended),
        new("7.5::busy_and_throttled", busy_and_throttled),
        new("7.5::idle_or_free", idle_or_free),
        new("7.6::its_group_is_the_top", its_group_is_the_top),
        new("7.6::outside_it_is_seen", outside_it_is_seen),
        new("7.7::a_link_is_slowed_down", a_link_is_slowed_down),
        new("7.7::both_directions", both_directions),
        new("7.8::removed_with_all_in_it", removed_with_all_in_it),
        new("7.8::content_to_find_none", content_to_find_none),
    ]
}

/// What would be written for some limits: file and value, in order.
fn settings(version: &str, options: &[&str]) -> Result<Vec<(String, String)>> {
    let done = finish(program(PARTS).arg("settings").args(options))?.success()?;
    let line = |line: &str| {
        let (file, value) = line.strip_prefix(version)?.trim_start().split_once(' ')?;
        Some((file.to_owned(), value.to_owned()))
    };
    Ok(done.stdout.lines().filter_map(line).collect())
}

/// All that is written to `file`, in one text.
fn value_of(settings: &[(String, String)], file: &str) -> Result<String> {
    let values: Vec<&str> =
        settings.iter().filter(|(name, _)| name == file).map(|(_, value)| &**value).collect();
    ensure!(!values.is_empty(), "nothing is written to {file}; written is {settings:?}");
    Ok(values.join(" "))
}

fn is_value(settings: &[(String, String)], file: &str, should: u64) -> Result<()> {
    let is = value_of(settings, file)?;
    ensure!(is == should.to_string(), "{file} should be {should}, and is {is}");
    Ok(())
}

/// Limits that nobody can have guessed.
struct Wish {
    memory: u64,
    swap: u64,
    /// In hundredths.
    cpus: u64,
    weight: u64,
    pids: u64,
    rate: u64,
}

impl Wish {
    fn new(name: &str) -> Self {
        let mut chance = Chance::new(name);
        Wish {
            memory: (16_000 + chance.below(10_000)) * 4096,
            swap: (1 + chance.below(10_000)) * 4096,
            cpus: 5 + chance.below(400),
            weight: 1 + chance.below(10_000),
            pids: 10 + chance.below(1000),
            rate: 1_000_000 + chance.below(1_000_000),
        }
    }

    fn settings(&self, version: &str) -> Result<Vec<(String, String)>> {
        let cpus = self.cpus as f64 / 100.0;
        let options = [
            format!("--memory={}", self.memory),
            format!("--swap={}", self.swap),
            format!("--cpus={cpus}"),
            format!("--cpu-weight={}", self.weight),
            format!("--pids={}", self.pids),
            format!("--io=8:0={}", self.rate),
        ];
        settings(version, &options.each_ref().map(String::as_str))
    }
}

fn what_v2_is_told() -> Result<()> {
    let wish = Wish::new("v2");
    let written = wish.settings("v2")?;
    is_value(&written, "memory.max", wish.memory)?;
    is_value(&written, "memory.swap.max", wish.swap)
        .context("v2 counts swap alone, beside the memory")?;
    is_value(&written, "cpu.weight", wish.weight)?;
    is_value(&written, "pids.max", wish.pids)?;
    let cpu = value_of(&written, "cpu.max")?;
    let (quota, period) = cpu.split_once(' ').context("cpu.max is a quota and a period, in µs")?;
    let cpus = quota.parse::<f64>()? / period.parse::<f64>()?;
    ensure!(
        (cpus - wish.cpus as f64 / 100.0).abs() < 0.005,
        "cpu.max {cpu} is {cpus} CPUs, and {} hundredths were wished for",
        wish.cpus
    );
    let io = value_of(&written, "io.max")?;
    for part in ["8:0 ".to_owned(), format!("rbps={}", wish.rate), format!("wbps={}", wish.rate)] {
        ensure!(io.contains(&part), "io.max is {io}, without {part}");
    }
    Ok(())
}

fn what_v1_is_told() -> Result<()> {
    let wish = Wish::new("v1");
    let written = wish.settings("v1")?;
    let (memory, both) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
    is_value(&written, memory, wish.memory)?;
    is_value(&written, both, wish.memory + wish.swap)
        .context("v1 counts memory and swap together")?;
    let place = |file: &str| written.iter().position(|(name, _)| name == file);
    ensure!(
        place(memory) < place(both),
        "{both} is written before {memory}: it may never be below it, and the kernel refuses"
    );
    is_value(&written, "pids.max", wish.pids)?;
    is_value(&written, "cpu.cfs_quota_us", wish.cpus * 1000)
        .context("with v1's usual period of 100 ms")?;
    let shares: u64 = value_of(&written, "cpu.shares")?.parse()?;
    let should = (wish.weight * 1024 / 100).max(2);
    ensure!(shares.abs_diff(should) <= 10, "a weight of 100 is 1024 shares; here {shares}");
    for file in ["blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device"] {
        let value = value_of(&written, file)?;
        ensure!(value == format!("8:0 {}", wish.rate), "{file} is {value}");
    }
    Ok(())
}

fn nothing_is_limited_unasked() -> Result<()> {
    let written = settings("v2", &[])?;
    ensure!(written.is_empty(), "no limit was asked for, and written is {written:?}");
    let written = settings("v2", &["--memory=64m"])?;
    is_value(&written, "memory.swap.max", 0).context("without --swap there is none")?;
    let others = written.iter().find(|(file, _)| !file.starts_with("memory."));
    ensure!(others.is_none(), "only memory was to be limited, and written is {others:?}");
    let alone = finish(program(PARTS).args(["settings", "--swap=1m"]))?;
    ensure!(alone.code == 125, "--swap without --memory means nothing, and isn't refused");
    Ok(())
}

/// Whoever takes more than the limit is killed, and who takes less isn't. It takes 120 MB at most.
fn memory_has_an_end() -> Result<()> {
    let eat = "echo $$ >\"$0\" && head -c 120000000 /dev/zero | tail -n 1 >/dev/null";
    let run = |limit: &str| -> Result<Finished> {
        let group = Group::make(&format!("memory {limit}"), "memory")?;
        let version = if group.is_v2 { "v2" } else { "v1" };
        for (file, value) in settings(version, &["--memory", limit])? {
            // Not every kernel counts swap.
            if group.path.join(&file).exists() {
                group.write(&file, &value).with_context(|| format!("{value} to {file}"))?;
            }
        }
        let mut sh = programs::clean("sh");
        finish(sh.args(["-c", eat]).arg(group.path.join("cgroup.procs")))
    };
    let killed = run("32m")?;
    ensure!(
        killed.code == 137,
        "120 MB were taken under what you write for 32m, and the end was {}: {}",
        killed.code,
        killed.stderr
    );
    run("1g")?.success().context("1g is enough for 120 MB")?;
    Ok(())
}

/// The directories of a group that `step07-parts` holds, with a process in it.
struct Made {
    held: Held,
    child: u32,
    name: String,
    _clean_up: CleanUp,
}

impl Made {
    fn start(topic: &str, options: &[String]) -> Result<Self> {
        let name = Chance::new(topic).needle();
        let clean_up = CleanUp::Own(name.clone());
        let mut held = Held::start(program(PARTS).args(["group", &name]).args(options))?;
        let child = held.says("child")?.parse()?;
        Ok(Made { held, child, name, _clean_up: clean_up })
    }

    /// What `file` of the group holds.
    fn read(&self, files: &[&str]) -> Result<String> {
        let groups = groups::named(&self.name)?;
        ensure!(!groups.is_empty(), "no group has a name that begins with {}", self.name);
        let candidates = groups.iter().flat_map(|group| files.iter().map(|file| group.join(file)));
        let file = candidates.into_iter().find(|file| file.exists());
        let file = file.with_context(|| format!("none of {groups:?} has a file {files:?}"))?;
        Ok(fs::read_to_string(file)?.trim().to_owned())
    }
}

fn limits_are_set_first() -> Result<()> {
    groups::need(&["pids", "cpu"])?;
    let mut chance = Chance::new("limits");
    let (pids, percent) = (5 + chance.below(500), 5 + chance.below(90));
    let options = [format!("--pids={pids}"), format!("--cpus={}", percent as f64 / 100.0)];
    let made = Made::start("limits are set", &options)?;
    let is = made.read(&["pids.max"])?;
    ensure!(
        is == pids.to_string(),
        "pids.max should be {pids} when the group is made, and is {is}"
    );
    let is = made.read(&["cpu.max", "cpu.cfs_quota_us"])?;
    let quota: f64 =
        is.split(' ').next().unwrap_or_default().parse().with_context(|| is.clone())?;
    let period = is.split(' ').nth(1).map_or(Ok(100_000.0), str::parse)?;
    ensure!((quota / period * 100.0 - percent as f64).abs() < 0.5, "{percent} % of a CPU are {is}");
    Ok(())
}

fn child_is_in_the_group() -> Result<()> {
    groups::need(&["pids"])?;
    let made = Made::start("the child is in it", &["--pids=20".into()])?;
    let of_child = fs::read_to_string(format!("/proc/{}/cgroup", made.child))?;
    ensure!(
        of_child.contains(&made.name),
        "the child isn't in the group {}: it is in\n{of_child}",
        made.name
    );
    Ok(())
}

/// Some machines have an ordinary file system where the groups should be. A limit that is
/// written to a file there is kept by nobody.
fn ordinary_files_limit_nothing() -> Result<()> {
    groups::need(&["pids"])?;
    Made::start("real files", &["--pids=20".into()])?.read(&["pids.max"])?;
    let groups = Path::new("/sys/fs/cgroup");
    mount(Some("none"), groups, Some("tmpfs"), MsFlags::empty(), None::<&str>)
        .context("can't cover the control groups in the lab")?;
    let name = Chance::new("ordinary files").needle();
    let done = finish(program(PARTS).args(["group", &name, "--pids=20"]))?;
    let made: Vec<_> = fs::read_dir(groups)?.flatten().map(|entry| entry.path()).collect();
    ensure!(
        made.is_empty(),
        "{made:?} was made on a tmpfs. Never create a control file: open what is there, and look at \
         the type of the mount and not at its name"
    );
    ensure!(done.code == 125, "no group can be made here, and that isn't said: {}", done.stdout);
    Ok(())
}

/// The command is in the group from its first instruction on, every time.
fn nobody_starts_outside() -> Result<()> {
    groups::need(&["pids"])?;
    let _clean_up = CleanUp::Left("limited-");
    for n in 1..=20 {
        let mut command = program("limited");
        let done = finish(command.args(["--pids=30", "cat", "/proc/self/cgroup"]))?;
        let seen = done.success()?.stdout;
        ensure!(
            seen.contains("/limited-"),
            "in run number {n} the command was outside of its group, and so without limits. Who moves \
             a process that is running already comes too late: {seen}"
        );
    }
    Ok(())
}

/// Compares with the answer to a question about groups.
fn answered(question: &str, result: io::Result<()>) -> Result<()> {
    let error = result.err().context("the kernel had nothing against it")?;
    let errno = Errno::from_raw(error.raw_os_error().context("an error number")?);
    let try_it = "cargo course lab, and there: mkdir, rmdir and echo below /sys/fs/cgroup (v1: \
                  /sys/fs/cgroup/pids)";
    answers::is(ERRNO, question, &format!("{errno:?}"), try_it)
}

fn process_too_many() -> Result<()> {
    let group = Group::make("process_too_many", "pids")?;
    group.write("pids.max", "1")?;
    group.write("cgroup.procs", &std::process::id().to_string())?;
    let started = Command::new("true").spawn().map(drop);
    drop(group);
    answered("process_too_many", started)
}

fn group_in_use() -> Result<()> {
    let group = Group::make("group_in_use", "pids")?;
    group.write("cgroup.procs", &std::process::id().to_string())?;
    answered("group_in_use", fs::remove_dir(&group.path))
}

fn limit_of_words() -> Result<()> {
    let group = Group::make("limit_of_words", "pids")?;
    answered("limit_of_words", group.write("pids.max", "many"))
}

fn process_that_ended() -> Result<()> {
    let group = Group::make("process_that_ended", "pids")?;
    let mut process = Command::new("true").spawn()?;
    process.wait()?;
    let pid = Pid::from_raw(process.id() as i32).to_string();
    answered("process_that_ended", group.write("cgroup.procs", &pid))
}

/// What the student's script says, in percent.
fn throttled(quota: &str, command: &[&str]) -> Result<f64> {
    groups::need(&["cpu"])?;
    let script = workspace().join(THROTTLED);
    let mut sh = programs::clean("sh");
    let path = format!("{}:{}", bin_dir().display(), env::var("PATH").unwrap_or_default());
    sh.env("PATH", path).arg(script).arg(quota).args(command);
    let done = finish(&mut sh)?.success()?;
    let number = done.stdout.trim().trim_end_matches('%');
    number.parse().with_context(|| {
        format!("{THROTTLED} should print one number, and prints {:?} {}", done.stdout, done.stderr)
    })
}

const BUSY: [&str; 5] = ["timeout", "2", "sh", "-c", "while :; do :; done"];

fn busy_and_throttled() -> Result<()> {
    let quota = format!("0.0{}", 6 + Chance::new("quota").below(4));
    let percent = throttled(&quota, &BUSY)?;
    ensure!(
        (20.0..=250.0).contains(&percent),
        "with {quota} of a CPU, a busy loop waits nearly all the time, and {THROTTLED} says {percent} %"
    );
    Ok(())
}

/// A quota that isn't used up makes nobody wait: the answer is measured, and no formula. To start
/// takes a little of the quota as well, and more on a slow machine.
fn idle_or_free() -> Result<()> {
    let idle = throttled("0.5", &["sleep", "3"])?;
    ensure!(
        (-1.0..40.0).contains(&idle),
        "who sleeps isn't throttled, and {THROTTLED} says {idle} %"
    );
    let free = throttled("64", &["timeout", "0.5", "sh", "-c", "while :; do :; done"])?;
    ensure!(
        (-1.0..5.0).contains(&free),
        "one loop can't use up 64 CPUs, and {THROTTLED} says {free} %"
    );
    Ok(())
}

fn its_group_is_the_top() -> Result<()> {
    groups::need(&["pids"])?;
    let _clean_up = CleanUp::Left("view-");
    let done = finish(program("view").args(["cat", "/proc/self/cgroup"]))?.success()?;
    ensure!(!done.stdout.trim().is_empty(), "the command printed nothing: {}", done.stderr);
    let other = done.stdout.lines().find(|line| !line.ends_with(":/"));
    ensure!(
        other.is_none(),
        "the command sees where it is in the host's tree: {}. The namespace shows as / what the \
         process was in when it was made",
        other.unwrap_or_default()
    );
    Ok(())
}

fn outside_it_is_seen() -> Result<()> {
    groups::need(&["pids"])?;
    let _clean_up = CleanUp::Left("view-");
    let script = "echo ready $$; read end";
    let mut held = Held::start(program("view").args(["sh", "-c", script]))?;
    let pid = held.says("ready")?;
    let seen = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    ensure!(seen.contains("/view-"), "seen from outside it is in no group of its own: {seen}");
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/cgroup"));
    ensure!(namespace(&pid)? != namespace("self")?, "it has the host's cgroup namespace");
    Ok(())
}

/// How long it takes to send `bytes` to `address` from the network of `from` to that of `to`, each
/// given by a process; `None` is the host.
fn transfer(
    from: Option<u32>,
    to: Option<u32>,
    address: Ipv4Addr,
    bytes: usize,
) -> Result<Duration> {
    let listen = || Ok(TcpListener::bind((address, 0))?);
    let listener = to.map_or_else(listen, |pid| network::inside(pid, listen))?;
    let at = listener.local_addr()?;
    let call = || Ok(TcpStream::connect_timeout(&at, Duration::from_secs(10))?);
    let mut sender = from.map_or_else(call, |pid| network::inside(pid, call))?;
    let (mut receiver, _) = listener.accept()?;
    let begin = Instant::now();
    let send = thread::spawn(move || sender.write_all(&vec![0; bytes]));
    let received = io::copy(&mut (&mut receiver).take(bytes as u64), &mut io::sink())?;
    ensure!(received == bytes as u64, "only {received} of {bytes} bytes came");
    send.join().expect("nothing in there panics")?;
    Ok(begin.elapsed())
}

/// That a rate was kept: what is above a bucket's fill of tokens takes its time. Slower is no fault.
fn is_slow(took: Duration, rate: u64, bytes: usize, where_to: &str) -> Result<()> {
    const BUCKET: f64 = 80_000.0; // 64 KiB, and a little for the packets' headers.
    let least = (bytes as f64 - BUCKET) / rate as f64;
    ensure!(
        took.as_secs_f64() > least * 0.8,
        "{bytes} bytes {where_to} took {:.2} s, at {rate} bytes per second: no bucket is at that end",
        took.as_secs_f64()
    );
    Ok(())
}

fn a_link_is_slowed_down() -> Result<()> {
    let rate = (150 + Chance::new("a rate").below(100)) * 1024;
    let bytes = 80_000 + rate as usize;
    let network = network::empty()?;
    let (outside, inside) = (Ipv4Addr::new(10, 9, 8, 1), Ipv4Addr::new(10, 9, 8, 2));
    let pid = network.pid().to_string();
    let script = format!(
        "ip link add cable type veth peer name eth0 netns {pid} && ip link set cable up &&
         ip address add {outside}/30 dev cable &&
         nsenter --net=/proc/{pid}/ns/net ip link set eth0 up &&
         nsenter --net=/proc/{pid}/ns/net ip address add {inside}/30 dev eth0"
    );
    finish(programs::clean("sh").args(["-c", &script]))?.success()?;
    finish(program(PARTS).args(["rate", "cable", &rate.to_string()]))?.success()?;
    let took = transfer(None, Some(network.pid()), inside, bytes)?;
    is_slow(took, rate, bytes, "into the container")?;
    // It limits what is sent. What comes back has the whole cable.
    let free = transfer(Some(network.pid()), None, outside, bytes)?;
    ensure!(free < took, "a limit at one end slows down the other: {took:?} and {free:?}");
    Ok(())
}

/// The program limits the cable at each of its ends.
fn both_directions() -> Result<()> {
    let rate = (150 + Chance::new("both directions").below(100)) * 1024;
    let bytes = 80_000 + rate as usize;
    let mut command = program(STEP);
    command.args(["--net-rate", &rate.to_string(), "--", "sh", "-c", "echo ready; read end"]);
    let mut held = Held::start(&mut command)?;
    held.says("ready")?;
    let pid = container_of(held.pid())?;
    let (inside, gateway) = network::inside(pid, || {
        let eth0 = network::links()?.remove("eth0").context("no eth0")?;
        let address = eth0.addresses.first().context("eth0 has no address")?.0;
        Ok((address, network::default_route()?.context("no default route")?.0))
    })?;
    is_slow(transfer(None, Some(pid), inside, bytes)?, rate, bytes, "into the container")?;
    is_slow(transfer(Some(pid), None, gateway, bytes)?, rate, bytes, "out of the container")
}

/// The child of `pid` that has a network of its own.
fn container_of(pid: u32) -> Result<u32> {
    let own = fs::read_link("/proc/self/ns/net")?;
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let mut children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    let is_inside = |pid: &u32| {
        fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|namespace| namespace != own)
    };
    children.find(is_inside).context("no child has a network of its own")
}

fn removed_with_all_in_it() -> Result<()> {
    groups::need(&["pids"])?;
    let mut made = Made::start("removed with all in it", &["--pids=20".into()])?;
    made.read(&["pids.max"])?;
    let (end, said) = made.held.end()?;
    ensure!(end.success() && said.contains("removed"), "it couldn't be removed: {said}");
    let left = groups::named(&made.name)?;
    ensure!(left.is_empty(), "the group is still there: {left:?}");
    let lives = Path::new(&format!("/proc/{}", made.child)).exists();
    ensure!(!lives, "the process that was in the group still runs");
    Ok(())
}

fn content_to_find_none() -> Result<()> {
    groups::need(&["pids"])?;
    let name = Chance::new("none").needle();
    let done = finish(program(PARTS).args(["group", &name, "--remove", "--pids=20"]))?;
    done.success().context("there was nothing to remove, which is no failure")?;
    Ok(())
}
