//! The exercises of step 6: message queues, semaphores and shared memory of its own.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    mqueue::{MQ_OFlag, MqAttr, mq_open, mq_unlink},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        stat::Mode,
    },
};
use tests::{
    answers,
    chance::Chance,
    held::Held,
    programs::{program, workspace},
    run::finish,
    scenario::{IN_LAB, Scenario},
};

const STEP: &str = "step06-ipc";
const PARTS: &str = "step06-parts";
const ERRNO: &str = "step06-ipc/exercises/errno.toml";
const FLOOD: &str = "step06-ipc/exercises/flood.sh";

pub fn scenarios() -> Vec<Scenario> {
    let mut all = vec![
        Scenario::new("exercises::6.1::queues_are_files", IN_LAB, queues_are_files),
        Scenario::new("exercises::6.1::others_queues_are_not", IN_LAB, others_queues_are_not),
        Scenario::new("exercises::6.1::nothing_else_in_there", IN_LAB, nothing_else_in_there),
        Scenario::new("exercises::6.2::inside_it_looks", IN_LAB, inside_it_looks),
        Scenario::new("exercises::6.2::outside_it_looks", IN_LAB, outside_it_looks),
        Scenario::new("exercises::6.3::removed_however_it_ends", IN_LAB, removed_however_it_ends),
        Scenario::new("exercises::6.5::the_pod_shares_queues", IN_LAB, the_pod_shares_queues),
        Scenario::new("exercises::6.5::the_host_is_apart", IN_LAB, the_host_is_apart),
        Scenario::new("exercises::6.6::a_flood", IN_LAB, a_flood),
    ];
    for question in [
        "queue_of_the_host",
        "name_taken",
        "queue_is_full",
        "message_too_long",
        "namespace_of_the_host",
    ] {
        let proof = move || answers::is_errno(ERRNO, question, PARTS);
        all.push(Scenario::new(format!("exercises::6.4::{question}"), IN_LAB, proof));
    }
    all
}

/// A POSIX message queue in the IPC namespace of this process, as long as this value lives.
struct Queue(String);

impl Queue {
    fn make(name: &str) -> Result<Self> {
        let name = format!("/{name}");
        let (flags, one_byte) = (MQ_OFlag::O_CREAT | MQ_OFlag::O_RDWR, MqAttr::new(0, 1, 1, 0));
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        mq_open(name.as_str(), flags, mode, Some(&one_byte)).context("mq_open")?;
        Ok(Queue(name))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let _ = mq_unlink(self.0.as_str());
    }
}

/// Whether there is a queue of this name (with its slash) in the IPC namespace of this process.
fn is_there(name: &str) -> Result<bool> {
    match mq_open(name, MQ_OFlag::O_RDONLY, Mode::empty(), None) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno).context("mq_open"),
    }
}

fn inside(script: &str) -> Result<String> {
    Ok(finish(program(STEP).args(["--", "sh", "-c", script]))?.success()?.stdout)
}

/// To make a file there is to make a queue: the file tells of its state.
fn queues_are_files() -> Result<()> {
    let needle = Chance::new("a queue as a file").needle();
    let file = format!("/dev/mqueue/{needle}");
    let seen = inside(&format!(": >{file} && cat {file}; ls /dev/mqueue"))?;
    ensure!(
        seen.contains("QSIZE:0"),
        "a file made in /dev/mqueue is no queue, so there is another file system: is mqueue \
         mounted, below the new root, and after what covers /dev? {seen:?}"
    );
    ensure!(seen.lines().any(|line| line == needle), "the queue isn't listed: {seen:?}");
    ensure!(!is_there(&format!("/{needle}"))?, "the queue was made on the host");
    Ok(())
}

fn others_queues_are_not() -> Result<()> {
    let needle = Chance::new("a queue of the host").needle();
    let _queue = Queue::make(&needle)?;
    let seen = inside("ls /dev/mqueue")?;
    ensure!(
        !seen.contains(&needle),
        "the host's queue is listed inside: a mount shows the queues of the IPC namespace that \
         whoever mounts it is in"
    );
    Ok(())
}

fn nothing_else_in_there() -> Result<()> {
    let mounts = inside("cat /proc/self/mountinfo")?;
    let mount = mounts.lines().find(|line| line.contains(" - mqueue "));
    let mount = mount.context("there is no mount of the type mqueue inside")?;
    let fields: Vec<&str> = mount.split(' ').collect();
    ensure!(fields[4] == "/dev/mqueue", "it is mounted at {} instead of /dev/mqueue", fields[4]);
    for flag in ["nosuid", "nodev", "noexec"] {
        ensure!(
            fields[5].split(',').any(|has| has == flag),
            "it is mounted with {}: it needs no programs, no devices and no set-user-id bits, and \
             {flag} says so",
            fields[5]
        );
    }
    Ok(())
}

/// The same look finds the queue where it is, and doesn't where it isn't.
fn inside_it_looks() -> Result<()> {
    let apart = finish(program(PARTS).args(["look", "--apart"]))?.success()?;
    ensure!(apart.stdout.contains("inside:"), "nothing is said: {}", apart.stdout);
    ensure!(apart.stdout.contains("ENOENT"), "why isn't the queue there? {}", apart.stdout);
    let together = finish(program(PARTS).arg("look"))?;
    ensure!(
        together.code != 0,
        "in the host's IPC namespace the queue is there, and `look_from_inside` says: {}",
        together.stdout
    );
    Ok(())
}

fn outside_it_looks() -> Result<()> {
    let together = finish(program(PARTS).arg("look-again"))?.success()?;
    ensure!(together.stdout.contains("still there"), "nothing is said: {}", together.stdout);
    let apart = finish(program(PARTS).args(["look-again", "--apart"]))?;
    ensure!(apart.code != 0, "where the queue isn't, `look_from_outside` says: {}", apart.stdout);
    Ok(())
}

/// The demonstration's queue, which its process holds, and its name.
fn demo_queue() -> Result<(Held, String)> {
    let mut held = Held::start(program(PARTS).arg("queue"))?;
    let said = held.says("outside:")?;
    let name = said.split_whitespace().next().unwrap_or_default().to_owned();
    ensure!(is_there(&name)?, "there is no queue {name}");
    Ok((held, name))
}

fn removed_however_it_ends() -> Result<()> {
    let (mut held, name) = demo_queue()?;
    held.end()?;
    ensure!(!is_there(&name)?, "the program has ended, and the queue {name} is still there");
    let (mut held, name) = demo_queue()?;
    held.kill()?;
    let patience = Instant::now() + Duration::from_secs(10);
    while is_there(&name)? {
        if Instant::now() > patience {
            drop(Queue(name));
            anyhow::bail!(
                "the queue outlives the process that made it, which was killed: a killed process \
                 runs no destructors, so somebody else has to remove it"
            );
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn the_pod_shares_queues() -> Result<()> {
    let needle = Chance::new("a pod").needle();
    let namespaces = "for ns in ipc pid mnt; do readlink /proc/self/ns/$ns; done";
    let first = format!(": >/dev/mqueue/{needle}; {namespaces}");
    let second = format!("ls /dev/mqueue; {namespaces}");
    let seen = finish(program("pod").args([first, second]))?.success()?.stdout;
    let lines: Vec<&str> = seen.lines().collect();
    ensure!(lines.len() >= 6, "two containers should report, and this is all: {seen}");
    let (one, two) = (&lines[..3], &lines[lines.len() - 3..]);
    ensure!(
        one[0] == two[0],
        "each container has an IPC namespace of its own: {} {}",
        one[0],
        two[0]
    );
    ensure!(
        lines.contains(&&*needle),
        "the second container doesn't list the queue that the first one has made. Joined first and \
         mounted then? {seen}"
    );
    for (at, kind) in [(1, "pid"), (2, "mnt")] {
        let of_host = fs::read_link(format!("/proc/self/ns/{kind}"))?.display().to_string();
        let own = one[at] != of_host && two[at] != of_host;
        ensure!(own, "a container shares the host's {kind} namespace: {seen}");
    }
    let of_host = fs::read_link("/proc/self/ns/ipc")?.display().to_string();
    ensure!(one[0] != of_host, "the pod's IPC namespace is the host's");
    Ok(())
}

fn the_host_is_apart() -> Result<()> {
    let mut chance = Chance::new("a pod's host");
    let (of_host, of_pod) = (chance.needle(), chance.needle());
    let _queue = Queue::make(&of_host)?;
    let make = format!(": >/dev/mqueue/{of_pod}");
    let seen = finish(program("pod").args([&make, "ls /dev/mqueue"]))?.success()?.stdout;
    ensure!(
        !seen.contains(&of_host),
        "the host's queue is listed in the pod: who mounts must have joined before"
    );
    ensure!(!is_there(&format!("/{of_pod}"))?, "the pod's queue was made on the host");
    Ok(())
}

/// Without limits, a container takes all the processes that it wants. The flood is a small one.
fn a_flood() -> Result<()> {
    const ENOUGH: u64 = 3000;
    let (_, most) = getrlimit(Resource::RLIMIT_NPROC)?;
    setrlimit(Resource::RLIMIT_NPROC, ENOUGH.min(most), ENOUGH.min(most))?;
    let wanted = 150 + Chance::new("a flood").below(150) as usize;
    let script = fs::read_to_string(workspace().join(FLOOD))?;
    let mut step = program(STEP);
    step.args(["--", "sh", "-c", &script, "flood.sh", &wanted.to_string()]);
    let mut flood = Held::start(&mut step)?;
    let patience = Instant::now() + Duration::from_secs(20);
    let mut most = 0;
    while most < wanted {
        ensure!(
            Instant::now() < patience,
            "{FLOOD} should have made {wanted} processes by now, and there were {most} at most"
        );
        thread::sleep(Duration::from_millis(20));
        most = most.max(processes_inside()?);
    }
    flood.kill()?;
    let patience = Instant::now() + Duration::from_secs(20);
    while processes_inside()? > 0 {
        ensure!(Instant::now() < patience, "the flood goes on after the container has ended");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// How many processes there are in other PID namespaces: this lab's containers.
fn processes_inside() -> Result<usize> {
    let own = fs::read_link("/proc/self/ns/pid")?;
    let inside = fs::read_dir("/proc")?.flatten().filter(|entry| {
        // It may end while it is looked at.
        fs::read_link(entry.path().join("ns/pid")).is_ok_and(|namespace| namespace != own)
    });
    Ok(inside.count())
}
