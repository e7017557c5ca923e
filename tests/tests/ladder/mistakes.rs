//! What the kernel says to the mistakes that learners make, and what we add to it.

use std::fs;

use anyhow::Result;
use tests::{
    programs::program,
    run::finish,
    scenario::{AS_ROOT, IN_LAB, Place, Scenario, skip},
    view,
};

use crate::snapshot;

/// Each by its name for the program `mistakes`, and the error number that it must meet.
const IN_THE_LAB: [(&str, &str); 13] = [
    ("name-without-rights", "EPERM"),
    ("init-has-ended", "ENOMEM"),
    ("root-is-shared", "EINVAL"),
    ("pivot-without-rights", "EPERM"),
    ("proc-of-others", "EPERM"),
    ("root-without-map", "EPERM"),
    ("map-twice", "EPERM"),
    ("links-without-rights", "EPERM"),
    ("two-cables", "EEXIST"),
    ("cable-to-nobody", "ESRCH"),
    ("queues-of-others", "EPERM"),
    ("layer-in-layer", "ELOOP"),
    ("overlay-on-overlay", "EINVAL"),
];

pub fn scenarios() -> Vec<Scenario> {
    let lab = IN_THE_LAB.map(|(mistake, errno)| {
        Scenario::new(format!("mistakes::{mistake}"), IN_LAB, move || meets(mistake, errno))
    });
    // Root is free of this limit.
    let user = Scenario::new("mistakes::too-many-processes", &[Place::User], || {
        meets("too-many-processes", "EAGAIN")
    });
    // In a user namespace, as the lab is one, the root is locked to its mount, which is EINVAL.
    let root =
        Scenario::new("mistakes::root-is-no-mount", AS_ROOT, || meets("root-is-no-mount", "EBUSY"));
    lab.into_iter().chain([user, root]).collect()
}

fn meets(mistake: &str, errno: &str) -> Result<()> {
    // There the mistake is met one call later, by setresgid.
    if mistake == "root-without-map" && fs::read_to_string("/proc/self/setgroups")? == "deny\n" {
        return skip("this lab has one id, and so no groups to give up");
    }
    let done = finish(program("mistakes").arg(mistake))?.with_code(125)?;
    anyhow::ensure!(done.stderr.contains(errno), "not {errno}: {}", done.stderr);
    snapshot::check(&format!("mistake-{mistake}"), &view::without_chance(&done.stderr));
    Ok(())
}
