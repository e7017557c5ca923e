//! The child waits here until the host side has done its part.

use anyhow::Result;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// A gate between the host side and the container side, closed at first.
///
/// ```text
///   host                            container
///   Gate::new
///   spawn ──────────────────────▶   wait ┐
///   write_id_maps                        │ (nothing yet is as it will be)
///   open  ──────────────────────────────▶┘ goes on
/// ```
/// If the host side ends before it opens the gate, the kernel kills the waiting child, since
/// `spawn` asked for that.
///
/// Source: [eventfd(2)](https://man7.org/linux/man-pages/man2/eventfd.2.html).
pub struct Gate(EventFd);

impl Gate {
    /// Makes a gate. Both sides have it, since a child inherits its parent's open files.
    ///
    /// # Errors
    /// `EMFILE` and `ENFILE` if there are too many open files.
    pub fn new() -> Result<Self> {
        Ok(Gate(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?))
    }

    /// Lets the other side through.
    ///
    /// # Errors
    /// None that the kernel gives for a gate that is opened once.
    pub fn open(&self) -> Result<()> {
        self.0.write(1)?;
        Ok(())
    }

    /// Waits until the other side has opened the gate.
    ///
    /// # Errors
    /// None that the kernel gives for an eventfd.
    pub fn wait(&self) -> Result<()> {
        self.0.read()?;
        Ok(())
    }
}
