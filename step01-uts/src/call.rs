//! One system call: told to `--explain`, and with a failure that a person can act on.
//!
//! [`call!`](crate::call!) is written like the call itself, `call!(sethostname(name))?`, and gives
//! `Result<T, CallError>`. Where a `man` page's "ERRORS" section has advice to give,
//! [`Hint::hint`] adds it beside the call, so that reading the code is reading that table.

use std::{
    ffi::{CStr, OsStr},
    fmt::{self, Display},
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{errno::Errno, mount::MntFlags, mount::MsFlags, sched::CloneFlags, unistd::Pid};

/// Makes a system call: an event for [`explain`](crate::explain) first, then the call itself.
///
/// Write the function's name and its arguments: `call!(chdir("/"))`. Where the function isn't
/// named like the system call, or takes other arguments than those worth showing, both are given:
/// `call!("clone3"(flags) = sys::clone3(flags, None))`.
///
/// The arguments are written out twice by this macro, so they must not have side effects. They
/// are formatted only if somebody listens or the call fails.
#[macro_export]
macro_rules! call {
    ($name:literal ( $($arg:expr),* $(,)? ) = $call:expr) => {{
        let shown = $crate::call::Shown($name, &[$(&$arg as &dyn $crate::call::Arg),*]);
        $crate::call::event!(shown);
        $call.map_err(|errno| $crate::call::CallError::new(&shown, errno))
    }};
    ($name:ident ( $($arg:expr),* $(,)? )) => {
        $crate::call!(@ stringify!($name), ($(&$arg as &dyn $crate::call::Arg),*), $name($($arg),*))
    };
    (@ $name:expr, ($($shown:expr),*), $call:expr) => {{
        let shown = $crate::call::Shown($name, &[$($shown),*]);
        $crate::call::event!(shown);
        $call.map_err(|errno| $crate::call::CallError::new(&shown, errno))
    }};
}

#[doc(hidden)]
pub use tracing;

/// The event that [`explain`](crate::explain) listens for; its target names the step.
#[doc(hidden)]
#[macro_export]
macro_rules! call_event {
    ($shown:expr) => {
        $crate::call::tracing::event!($crate::call::tracing::Level::INFO, call = %$shown)
    };
}
#[doc(hidden)]
pub use crate::call_event as event;

/// A system call as it is shown to people: `mount("proc", "/proc", "proc", MS_NOSUID, NULL)`.
#[doc(hidden)]
pub struct Shown<'a>(pub &'a str, pub &'a [&'a dyn Arg]);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}(", self.0)?;
        for (n, arg) in self.1.iter().enumerate() {
            if n > 0 {
                f.write_str(", ")?;
            }
            arg.show(f)?;
        }
        f.write_str(")")
    }
}

/// A system call that failed: which, with what arguments, why, and what to do about it.
#[derive(Debug)]
pub struct CallError {
    call: String,
    errno: Errno,
    hint: Option<String>,
}

impl CallError {
    #[doc(hidden)]
    #[cold]
    pub fn new(shown: &Shown, errno: impl IntoErrno) -> Self {
        CallError { call: shown.to_string(), errno: errno.into_errno(), hint: None }
    }

    /// The error number that the kernel gave.
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// The name of the system call, as in section 2 of the manual.
    pub fn name(&self) -> &str {
        self.call.split('(').next().unwrap_or_default()
    }
}

impl Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} failed: {:?} ({})", self.call, self.errno, self.errno.desc())?;
        match &self.hint {
            Some(hint) => write!(f, "\n  {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CallError {}

/// Adds what to do next to the error of a system call.
pub trait Hint: Sized {
    /// Says what `errno` means here and what to do about it.
    fn hint(self, errno: Errno, hint: &str) -> Self {
        self.hint_with(|e| (e == errno).then(|| hint.to_owned()))
    }

    /// As [`hint`](Hint::hint), where the machine has to be asked first. `hint` runs only after a
    /// failure.
    fn hint_with(self, hint: impl FnOnce(Errno) -> Option<String>) -> Self;
}

impl<T> Hint for Result<T, CallError> {
    fn hint_with(self, hint: impl FnOnce(Errno) -> Option<String>) -> Self {
        self.map_err(|mut error| {
            if let Some(hint) = hint(error.errno) {
                error.hint = Some(hint);
            }
            error
        })
    }
}

/// What the different crates give as the error of a system call.
#[doc(hidden)]
pub trait IntoErrno {
    fn into_errno(self) -> Errno;
}

impl IntoErrno for Errno {
    fn into_errno(self) -> Errno {
        self
    }
}

impl IntoErrno for rustix::io::Errno {
    fn into_errno(self) -> Errno {
        Errno::from_raw(self.raw_os_error())
    }
}

impl IntoErrno for std::io::Error {
    fn into_errno(self) -> Errno {
        Errno::from_raw(self.raw_os_error().unwrap_or_default())
    }
}

/// An argument of a system call, shown as strace(1) would show it.
#[doc(hidden)]
pub trait Arg {
    fn show(&self, f: &mut fmt::Formatter) -> fmt::Result;
}

impl<T: Arg + ?Sized> Arg for &T {
    fn show(&self, f: &mut fmt::Formatter) -> fmt::Result {
        (**self).show(f)
    }
}

impl<T: Arg> Arg for Option<T> {
    fn show(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Some(arg) => arg.show(f),
            None => f.write_str("NULL"),
        }
    }
}

impl<T: Arg> Arg for [T] {
    fn show(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("[")?;
        for (n, arg) in self.iter().enumerate() {
            if n > 0 {
                f.write_str(", ")?;
            }
            arg.show(f)?;
        }
        f.write_str("]")
    }
}

/// Implements [`Arg`] for types that are shown through one of their views.
macro_rules! show {
    ($($type:ty: |$arg:ident| $view:expr;)*) => {$(
        impl Arg for $type {
            fn show(&self, f: &mut fmt::Formatter) -> fmt::Result {
                let $arg = self;
                write!(f, "{}", $view)
            }
        }
    )*};
}

show! {
    str: |s| format_args!("{s:?}");
    String: |s| format_args!("{s:?}");
    OsStr: |s| format_args!("{s:?}");
    Path: |p| format_args!("{p:?}");
    PathBuf: |p| format_args!("{p:?}");
    CStr: |s| format_args!("{s:?}");
    std::ffi::CString: |s| format_args!("{s:?}");
    std::ffi::OsString: |s| format_args!("{s:?}");
    [u8]: |s| format_args!("{:?}", String::from_utf8_lossy(s));
    i32: |n| n;
    u32: |n| n;
    u64: |n| n;
    usize: |n| n;
    Pid: |p| p;
    fmt::Arguments<'_>: |a| a;
    OwnedFd: |_fd| "fd";
    BorrowedFd<'_>: |_fd| "fd";
    MsFlags: |m| Flags(m);
    MntFlags: |m| Flags(m);
    CloneFlags: |c| Flags(c);
}

/// Flags by their names in C: `MS_REC|MS_PRIVATE`.
struct Flags<'a, T>(&'a T);

impl<T: fmt::Debug> Display for Flags<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let debug = format!("{:?}", self.0); // MsFlags(MS_REC | MS_PRIVATE)
        let names = debug.split_once('(').map_or(&*debug, |(_, rest)| rest.trim_end_matches(')'));
        f.write_str(&if names == "0x0" { "0".into() } else { names.replace(" | ", "|") })
    }
}
