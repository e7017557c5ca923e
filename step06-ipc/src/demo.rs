//! A demonstration that needs no other program: a queue that is there outside, and isn't inside.

use std::{convert::Infallible, ffi::CString};

use anyhow::{Result, bail};
use nix::{
    errno::Errno,
    mqueue::{MQ_OFlag, MqAttr, MqdT, mq_open, mq_send, mq_unlink},
    sys::stat::Mode,
};
use uts::{
    Janitor, call,
    call::{CallError, Hint},
    process, unique_name,
};

/// A message queue of the host, with one message in it. It is removed when this value is dropped,
/// or when the process that made it is killed.
pub struct Queue {
    name: CString,
    _janitor: Janitor<'static>,
}

impl Queue {
    /// Makes a queue in the caller's IPC namespace, with a name that no other process uses.
    ///
    /// # Errors
    /// `ENOSYS` if the kernel has no queues, `EMFILE` or `ENOSPC` if there are too many of them.
    ///
    /// Source: [mq_open(3)](https://man7.org/linux/man-pages/man3/mq_open.3.html).
    pub fn create() -> Result<Self> {
        let name = CString::new(unique_name("/step06-"))?;
        let janitor = {
            let name = name.clone();
            Janitor::hire(move || match call!("mq_unlink"(&name) = mq_unlink(&*name)) {
                Err(error) if error.errno() != Errno::ENOENT => Err(error.into()),
                _ => Ok(()),
            })?
        };
        let create = MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_WRONLY;
        let queue = open(&name, create)
            .hint(Errno::EMFILE, "your queues may take no more memory: see `prlimit --msgqueue`")
            .hint(Errno::ENOSPC, "the limit is in /proc/sys/fs/mqueue/queues_max")
            .hint(Errno::ENOSYS, "this kernel was built without POSIX message queues")?;
        call!("mq_send"(&name, "from outside") = mq_send(&queue, b"from outside", 0))?;
        println!("outside: {} is made, with a message in it", name.to_string_lossy());
        Ok(Queue { name, _janitor: janitor })
    }

    /// Looks for the queue from where the caller is, says what it sees, and ends the process.
    ///
    /// # Errors
    /// If the queue is there.
    pub fn look_from_inside(&self) -> Result<Infallible> {
        match open(&self.name, MQ_OFlag::O_RDONLY) {
            Err(error) if error.errno() == Errno::ENOENT => println!("inside:  {error}"),
            Err(error) => return Err(error.into()),
            Ok(_) => bail!("the queue of the host can be opened: this is the host's IPC namespace"),
        }
        process::end(0)
    }

    /// Looks for the queue again, from outside, after the container has ended.
    ///
    /// # Errors
    /// `ENOENT` if it is gone.
    pub fn look_from_outside(&self) -> Result<()> {
        open(&self.name, MQ_OFlag::O_RDONLY)?;
        println!("outside: {} is still there", self.name.to_string_lossy());
        Ok(())
    }
}

fn open(name: &CString, how: MQ_OFlag) -> Result<MqdT, CallError> {
    let owner_only = Mode::S_IRUSR | Mode::S_IWUSR;
    let small = MqAttr::new(0, 1, 64, 0); // One message of up to 64 bytes: far below all limits.
    call!("mq_open"(name) = mq_open(&**name, how, owner_only, Some(&small)))
}
