//! The functions of step 6, one at a time, for the tests of the exercises: so that each can be tried
//! before the others are there. Needs root, or the lab.
//!
//!   step06-parts queue              make the demonstration's queue, and hold it until standard input ends
//!   step06-parts look [--apart]     look for it as if from inside, in the same IPC namespace or in another
//!   step06-parts look-again […]     look for it as if from outside
//!   step06-parts provoke QUESTION   do what exercise 6.4 asks about, and show what the kernel says

use std::{convert::Infallible, env, fs, io, path::Path, process::ExitCode};

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use ipc::demo;
use nix::{
    mqueue::{MQ_OFlag, MqAttr, MqdT, mq_open, mq_send, mq_unlink},
    sys::stat::Mode,
};
use user::Gate;
use uts::{CloneFlags, call, process, unique_name};

/// A part of step 6.
#[derive(Parser)]
enum Part {
    Queue,
    Look {
        /// In an IPC namespace of its own
        #[arg(long)]
        apart: bool,
    },
    LookAgain {
        /// In an IPC namespace of its own
        #[arg(long)]
        apart: bool,
    },
    Provoke {
        question: Question,
    },
}

/// What exercise 6.4 asks about.
#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Question {
    QueueOfTheHost,
    NameTaken,
    QueueIsFull,
    MessageTooLong,
    NamespaceOfTheHost,
}

fn main() -> ExitCode {
    process::main(|part: Part| match part {
        Part::Queue => {
            let _queue = demo::Queue::create()?;
            io::copy(&mut io::stdin(), &mut io::sink())?;
            Ok(ExitCode::SUCCESS)
        }
        Part::Look { apart } => look(apart, demo::Queue::look_from_inside),
        Part::LookAgain { apart } => look(apart, |queue| {
            queue.look_from_outside()?;
            process::end(0)
        }),
        Part::Provoke { question } => provoke(question),
    })
}

fn look(apart: bool, look: fn(&demo::Queue) -> Result<Infallible>) -> Result<ExitCode> {
    let queue = demo::Queue::create()?;
    let namespaces = if apart { ipc::NAMESPACE } else { CloneFlags::empty() };
    process::wait(process::spawn(namespaces, || look(&queue))?)
}

/// Asks the kernel in a child, in an IPC namespace of its own.
fn provoke(question: Question) -> Result<ExitCode> {
    if matches!(question, Question::NamespaceOfTheHost) {
        return mount_for_others();
    }
    process::wait(process::spawn(ipc::NAMESPACE, || {
        ask(question)?;
        bail!("the kernel had nothing against it")
    })?)
}

fn ask(question: Question) -> Result<()> {
    let name = unique_name("/question-");
    let new = MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_WRONLY;
    let queue = open(&name, new | MQ_OFlag::O_NONBLOCK)?;
    match question {
        Question::QueueOfTheHost => {
            let other = process::spawn(ipc::NAMESPACE, || {
                open(&name, MQ_OFlag::O_RDONLY)?;
                process::end(0)
            })?;
            std::process::exit(if process::wait(other)? == 0.into() { 0 } else { 125 })
        }
        Question::NameTaken => open(&name, new).map(drop),
        Question::QueueIsFull => {
            mq_send(&queue, b"1", 0)?;
            Ok(call!("mq_send"(name, "2") = mq_send(&queue, b"2", 0))?)
        }
        Question::MessageTooLong => {
            Ok(call!("mq_send"(name, "123456789") = mq_send(&queue, b"123456789", 0))?)
        }
        Question::NamespaceOfTheHost => Ok(mq_unlink(&*name)?),
    }
}

/// A queue of one message of up to eight bytes.
fn open(name: &str, how: MQ_OFlag) -> Result<MqdT> {
    let owner_only = Mode::S_IRUSR | Mode::S_IWUSR;
    let small = MqAttr::new(0, 1, 8, 0);
    Ok(call!("mq_open"(name) = mq_open(name, how, owner_only, Some(&small)))?)
}

/// Mounts queues in user and mount namespaces of its own, with the IPC namespace of the host.
fn mount_for_others() -> Result<ExitCode> {
    let root = env::temp_dir().join(unique_name("step06-parts-"));
    fs::create_dir(&root)?;
    let gate = Gate::new()?;
    let child = process::spawn(user::NAMESPACE | mnt::NAMESPACE, || {
        gate.wait()?;
        user::become_root()?;
        mnt::make_private()?;
        let at = Path::new("/dev/mqueue");
        mnt::mount::mount_new("mqueue", &root, at, mnt::mount::INERT, None)?;
        bail!("the kernel had nothing against it")
    })?;
    let root_alone = vec![user::map::Range { inside: 0, outside: 0, count: 1 }];
    let ids = user::IdMap { users: root_alone.clone(), groups: root_alone };
    user::write_id_maps(child, &ids)?;
    gate.open()?;
    let end = process::wait(child);
    fs::remove_dir_all(&root)?;
    end
}
