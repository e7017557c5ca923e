//! The exercises of step 5: a network stack with one cable to the host.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use tests::{
    answers,
    chance::Chance,
    held::Held,
    network,
    programs::{self, program, workspace},
    run::{finish, finish_within},
    scenario::{IN_LAB, PRIVILEGED, Scenario, skip},
};

const STEP: &str = "step05-net-veth";
const PARTS: &str = "step05-parts";
const ERRNO: &str = "step05-net-veth/exercises/errno.toml";
const REACH: &str = "step05-net-veth/exercises/reach.sh";

pub fn scenarios() -> Vec<Scenario> {
    let mut all = vec![
        Scenario::new("exercises::5.1::ends_are_in_place", IN_LAB, ends_are_in_place),
        Scenario::new("exercises::5.1::host_end_is_ready", IN_LAB, host_end_is_ready),
        Scenario::new("exercises::5.1::cables_dont_mix", IN_LAB, cables_dont_mix),
        Scenario::new("exercises::5.1::who_may_not_is_told", IN_LAB, who_may_not_is_told),
        Scenario::new("exercises::5.2::loopback_alone", IN_LAB, loopback_alone),
        Scenario::new("exercises::5.2::end_inside_is_ready", IN_LAB, end_inside_is_ready),
        Scenario::new("exercises::5.2::a_word_to_the_host", IN_LAB, a_word_to_the_host),
        Scenario::new("exercises::5.3::ready_and_locked", PRIVILEGED, ready_and_locked),
        Scenario::new("exercises::5.5::through_the_bridge", IN_LAB, through_the_bridge),
        Scenario::new("exercises::5.5::neighbours_talk", IN_LAB, neighbours_talk),
        Scenario::new("exercises::5.5::bridge_is_removed", IN_LAB, bridge_is_removed),
        Scenario::new("exercises::5.6::reach_the_host", PRIVILEGED, reach_the_host),
    ];
    for question in [
        "route_while_down",
        "name_taken",
        "loopback_still_down",
        "nobody_listens",
        "without_capability",
    ] {
        let proof = move || answers::is_errno(ERRNO, question, PARTS);
        all.push(Scenario::new(format!("exercises::5.4::{question}"), IN_LAB, proof));
    }
    all
}

/// A cable that `net::connect` has plugged into an otherwise empty network.
struct Cable {
    host_end: String,
    child: u32,
    _held: Held,
}

impl Cable {
    fn plug_in() -> Result<Self> {
        let mut held = Held::start(program(PARTS).arg("connect"))?;
        let child = held.says("child")?.parse()?;
        let host_end = held.says("link")?;
        ensure!(host_end != "none", "`connect` says that there is no cable, and root may have one");
        Ok(Cable { host_end, child, _held: held })
    }

    /// The one address of the host's end.
    fn host_address(&self) -> Result<(Ipv4Addr, u32)> {
        let links = network::links()?;
        let name = &self.host_end;
        let link = links.get(name).with_context(|| {
            format!("`connect` gives the name {name}, and no link is called so")
        })?;
        let [address] = link.addresses[..] else {
            anyhow::bail!("the host's end has the addresses {:?} and not just one", link.addresses)
        };
        Ok(address)
    }
}

/// The network that an address with a prefix of this length is in.
fn network_of((address, prefix): (Ipv4Addr, u32)) -> u32 {
    address.to_bits() & u32::MAX.checked_shl(32 - prefix).unwrap_or(0)
}

/// Demands the `place`th address of a /30 of the pool: 1 for the host's end, 2 for the container's.
fn is_in_place((address, prefix): (Ipv4Addr, u32), place: u32, whose: &str) -> Result<()> {
    ensure!(prefix == 30, "{whose} has {address}/{prefix}: a cable's network is a /30");
    ensure!(address.octets()[..2] == [10, 213], "{whose} has {address}, outside of 10.213.0.0/16");
    let is = match address.to_bits() % 4 {
        0 => "its network's own",
        1 => "the host end's",
        2 => "the container end's",
        _ => "the one to broadcast to",
    };
    ensure!(address.to_bits() % 4 == place, "{whose} has {address}/30, which is {is}");
    Ok(())
}

fn ends_are_in_place() -> Result<()> {
    let before = network::links()?;
    let cable = Cable::plug_in()?;
    let outside = network::links()?;
    let inside = network::inside(cable.child, network::links)?;
    let new: Vec<_> = outside.keys().filter(|name| !before.contains_key(*name)).collect();
    ensure!(
        new == [&cable.host_end],
        "the host should have one link more, {}, and has {new:?}: to which network namespace does \
         each end belong?",
        cable.host_end
    );
    let names: Vec<_> = inside.keys().collect();
    ensure!(names == ["eth0", "lo"], "inside there are the links {names:?} instead of eth0 and lo");
    let other = Cable::plug_in()?;
    ensure!(other.host_end != cable.host_end, "two cables have the same name");
    Ok(())
}

fn host_end_is_ready() -> Result<()> {
    let cable = Cable::plug_in()?;
    is_in_place(cable.host_address()?, 1, "the host's end")?;
    let up = network::links()?.get(&cable.host_end).is_some_and(|link| link.up);
    ensure!(up, "the host's end {} is down: it takes no packet", cable.host_end);
    Ok(())
}

/// Neighbours in the kernel's count of links aren't neighbours on one cable.
fn cables_dont_mix() -> Result<()> {
    let cables: Vec<_> = (0..6).map(|_| Cable::plug_in()).collect::<Result<_>>()?;
    let addresses: Vec<_> = cables.iter().map(Cable::host_address).collect::<Result<_>>()?;
    let networks: BTreeSet<_> = addresses.iter().map(|address| network_of(*address)).collect();
    ensure!(
        networks.len() == cables.len(),
        "six cables should be six networks, but their host ends have {addresses:?}"
    );
    Ok(())
}

fn who_may_not_is_told() -> Result<()> {
    let done = thread::scope(|scope| {
        let limited = scope.spawn(|| {
            remove_capability_from_bounding_set(CapabilitySet::NET_ADMIN)?;
            finish(program(PARTS).arg("connect"))
        });
        limited.join().expect("nothing in there panics")
    })?;
    let done = done.success().context(
        "without CAP_NET_ADMIN, `connect` should give None: a container without a cable is better \
         than none",
    )?;
    ensure!(done.stdout.contains("link none"), "there is no cable, and it says: {}", done.stdout);
    ensure!(done.stderr.contains("note: "), "the user isn't told that there is no cable");
    Ok(())
}

/// What `net::configure` says in the network of the process `pid`.
fn configure(pid: u32) -> Result<String> {
    let mut command = programs::clean("nsenter");
    command.arg(format!("--net=/proc/{pid}/ns/net")).arg("--");
    let parts = program(PARTS);
    let done = finish(command.arg(parts.get_program()).arg("configure"))?.success()?;
    Ok(done.stdout.trim().to_owned())
}

fn loopback_alone() -> Result<()> {
    let network = network::empty()?;
    let said = configure(network.pid())?;
    ensure!(said == "link none", "there is no cable, and `configure` gives {said:?}");
    let links = network::inside(network.pid(), network::links)?;
    let lo = &links["lo"];
    ensure!(lo.up, "lo is down: a server and a client in the same container don't meet");
    ensure!(lo.addresses == [(Ipv4Addr::LOCALHOST, 8)], "lo has the addresses {:?}", lo.addresses);
    Ok(())
}

/// A cable with nothing set up, made by hand, into an otherwise empty network; the number of its
/// host end is `index`.
fn bare_cable(name: &str, index: u64) -> Result<Held> {
    let network = network::empty()?;
    let mut command = programs::clean("ip");
    command.args(["link", "add", "name", name, "index", &index.to_string(), "type", "veth"]);
    command.args(["peer", "name", "eth0", "netns", &network.pid().to_string()]);
    finish(&mut command)?.success()?;
    Ok(network)
}

/// What `net::configure` has made of eth0: its address and the gateway.
fn configured(network: &Held) -> Result<((Ipv4Addr, u32), Ipv4Addr)> {
    let said = configure(network.pid())?;
    ensure!(said == "link eth0", "eth0 is there, and `configure` gives {said:?}");
    network::inside(network.pid(), || {
        let links = network::links()?;
        let eth0 = links.get("eth0").context("eth0 is gone")?;
        ensure!(links["lo"].up, "lo is down");
        ensure!(eth0.up, "eth0 is down: it takes no packet");
        let [address] = eth0.addresses[..] else {
            anyhow::bail!("eth0 has the addresses {:?} and not just one", eth0.addresses)
        };
        let (gateway, link) = network::default_route()?.context(
            "there is no default route: only the host's end can be reached, and no world",
        )?;
        ensure!(link == "eth0", "the default route goes through {link}");
        Ok((address, gateway))
    })
}

fn end_inside_is_ready() -> Result<()> {
    let mut chance = Chance::new("numbers of links");
    let start = 1000 + chance.below(10_000) * 4;
    let mut networks = BTreeSet::new();
    for index in start..start + 4 {
        let network = bare_cable(&format!("cable{index}"), index)?;
        let (address, gateway) = configured(&network)?;
        is_in_place(address, 2, "eth0")?;
        is_in_place((gateway, 30), 1, "the gateway")?;
        ensure!(
            network_of(address) == network_of((gateway, 30)),
            "the gateway {gateway} isn't in the network of eth0, {}/30: nobody knows the way to it",
            address.0
        );
        ensure!(
            networks.insert(network_of(address)),
            "two cables are in one network, that of {}: the peers have the numbers {start} to \
             {index}",
            address.0
        );
    }
    Ok(())
}

/// Through a cable whose host end is set up by hand, for whatever gateway the student has chosen.
fn a_word_to_the_host() -> Result<()> {
    let mut chance = Chance::new("a word to the host");
    let index = 100 + chance.below(10_000);
    let network = bare_cable("cable", index)?;
    let (_, gateway) = configured(&network)?;
    for args in [
        vec!["address", "add", &format!("{gateway}/30"), "dev", "cable"],
        vec!["link", "set", "cable", "up"],
    ] {
        finish(programs::clean("ip").args(args))?.success()?;
    }
    let needle = chance.needle();
    let heard = call(&network, Ipv4Addr::UNSPECIFIED, gateway, &needle)?;
    ensure!(heard == needle, "the host heard {heard:?} instead of {needle:?}");
    Ok(())
}

/// Listens on `at`, here, while a process in `caller`'s network says `word` to `to`; gives what was heard.
fn call(caller: &Held, at: Ipv4Addr, to: Ipv4Addr, word: &str) -> Result<String> {
    let listener = TcpListener::bind((at, 0))?;
    let to = SocketAddr::new(IpAddr::V4(to), listener.local_addr()?.port());
    network::inside(caller.pid(), || say(to, word))?;
    hear(&listener)
}

fn say(to: SocketAddr, word: &str) -> Result<()> {
    let mut connection = TcpStream::connect_timeout(&to, Duration::from_secs(10))
        .with_context(|| format!("can't reach {to}"))?;
    Ok(connection.write_all(word.as_bytes())?)
}

/// What the first caller says, who has called already.
fn hear(listener: &TcpListener) -> Result<String> {
    let (mut connection, _) = listener.accept()?;
    let mut word = String::new();
    connection.read_to_string(&mut word)?;
    Ok(word)
}

/// The network is configured with rights that the command hasn't got any more.
fn ready_and_locked() -> Result<()> {
    let script = "ip -o -4 address show eth0; ip link set lo down 2>&1 || echo refused";
    let done = finish(program(STEP).args(["--", "sh", "-c", script]))?.success()?;
    ensure!(done.stdout.contains("10.213."), "eth0 has no address: {}", done.stdout);
    ensure!(
        done.stdout.contains("refused"),
        "the command may change the container's network: it has been left a capability that it \
         shouldn't have, or none were dropped: {}",
        done.stdout
    );
    Ok(())
}

/// The two containers of the example `bridge`, and the bridge.
struct Bridge {
    held: Held,
    name: String,
    /// Process numbers and addresses.
    containers: Vec<(u32, Ipv4Addr)>,
}

impl Bridge {
    fn start() -> Result<Self> {
        let mut held = Held::start(&mut program("bridge"))?;
        let name = held.says("bridge")?;
        let mut containers = vec![];
        for _ in 0..2 {
            let line = held.says("container")?;
            let (pid, address) = line.split_once(' ').context("a process and an address")?;
            containers.push((pid.parse()?, address.parse()?));
        }
        Ok(Bridge { held, name, containers })
    }
}

fn through_the_bridge() -> Result<()> {
    let before = network::links()?;
    let bridge = Bridge::start()?;
    let links = network::links()?;
    let link = links.get(&bridge.name).with_context(|| format!("no link {}", bridge.name))?;
    ensure!(link.up, "the bridge {} is down: nothing goes through it", bridge.name);
    let ports = fs::read_dir(format!("/sys/class/net/{}/brif", bridge.name))
        .with_context(|| format!("{} is a link of another kind, and no bridge", bridge.name))?;
    let ports = ports.count();
    ensure!(ports == 2, "two cables should be plugged into the bridge, and there are {ports}");
    let new = links.keys().filter(|name| !before.contains_key(*name)).count();
    ensure!(new == 3, "the host should have three links more: a bridge and two ends; it has {new}");
    for (pid, address) in &bridge.containers {
        let links = network::inside(*pid, network::links)?;
        let eth0 = links.get("eth0").context("a container has no eth0")?;
        ensure!(eth0.up, "the end inside, eth0, is down");
        let has = eth0.addresses.iter().any(|(has, _)| has == address);
        ensure!(has, "eth0 should have {address}, and has {:?}", eth0.addresses);
    }
    Ok(())
}

fn neighbours_talk() -> Result<()> {
    let bridge = Bridge::start()?;
    let [(first, address), (second, _)] = bridge.containers[..] else { unreachable!() };
    let needle = Chance::new("neighbours").needle();
    let listener = network::inside(first, || Ok(TcpListener::bind((address, 0))?))?;
    let to = SocketAddr::new(IpAddr::V4(address), listener.local_addr()?.port());
    network::inside(second, || say(to, &needle)).context("one container can't reach the other")?;
    let heard = hear(&listener)?;
    ensure!(heard == needle, "it heard {heard:?} instead of {needle:?}");
    Ok(())
}

/// A bridge is the host's: it doesn't go with the containers.
fn bridge_is_removed() -> Result<()> {
    let before = network::links()?;
    let mut bridge = Bridge::start()?;
    bridge.held.end()?;
    let is_there = || Ok::<_, anyhow::Error>(network::links()?.contains_key(&bridge.name));
    ensure!(!is_there()?, "the bridge {} stays behind", bridge.name);
    // The cables go with their namespaces, which takes the kernel a moment.
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    while network::links()? != before {
        ensure!(std::time::Instant::now() < patience, "links stay behind");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// What listens on the host's loopback alone is reached from step 4, and not from step 5.
fn reach_the_host() -> Result<()> {
    let needle = Chance::new("secret").needle();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port().to_string();
    let answer = needle.clone();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let _ = (&connection).write_all(answer.as_bytes());
        }
    });
    let script = fs::read_to_string(workspace().join(REACH))?;
    let run = |step, limit| {
        let args = ["--", "bash", "-c", &script, "reach.sh", &port];
        finish_within(Duration::from_secs(limit), program(step).args(args))
    };
    let attacked = run("step04-user", 60)?;
    if attacked.code == 127 {
        return skip("there is no bash, which can open connections");
    }
    ensure!(
        attacked.stdout.contains(&needle),
        "{REACH} didn't get the secret out of the host. It said: {}{}",
        attacked.stdout,
        attacked.stderr
    );
    // A script that waits there for ever has got nothing either.
    let got_it = run(STEP, 5).is_ok_and(|defended| defended.stdout.contains(&needle));
    ensure!(!got_it, "step 5 has the same hole: its lo is the host's");
    Ok(())
}
