//! Watches the client on a thread: the editor's process, the pipe to it, and signals.
//!
//! It also enforces the time limit of the exit: whatever hangs then is not waited for.
//!
//! On Unix only. Elsewhere the end of the input shows that the editor has gone, as it usually does here.

use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{io, thread};

use tracing::warn;

use crate::lsp::shutdown::{EXIT_LIMIT, Shutdown};
use crate::session::ThreadSupervisor;

/// Interval of checks for what cannot be waited for.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// The editor's process, once it is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClientMonitor {
    process: Arc<OnceLock<ClientProcess>>,
}

/// The editor's process, and whether it was alive when it was named.
#[derive(Debug, Clone, Copy)]
struct ClientProcess {
    process: u32,
    was_alive: bool,
}

impl ClientMonitor {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system cannot start another thread, or has no pipe for signals.
    pub(crate) fn start_monitor(supervisor: &ThreadSupervisor, shutdown: Arc<Shutdown>) -> io::Result<Self> {
        let this = Self::default();
        let mut watch = system::Watch::new(Arc::clone(&this.process))?;
        supervisor.spawn("client-monitor", move || {
            loop {
                match shutdown.overdue_for() {
                    Some(due) if due > EXIT_LIMIT => terminate(&shutdown),
                    Some(_) => thread::sleep(POLL_INTERVAL),
                    None => {
                        if let Some(reason) = watch.wait_for_end() {
                            shutdown.begin_exit(reason);
                        }
                    }
                }
            }
        })?;
        Ok(this)
    }

    /// From now on the server exits with this process, named by `initialize`.
    ///
    /// A process that is dead from the start ends the server as well, as the protocol demands; unless the server's
    /// own parent is invisible, as in a container that an editor outside of it has started: process ids mean
    /// nothing there.
    pub(crate) fn watch_process(&self, process: i64) {
        let Some(process) =
            i32::try_from(process).ok().and_then(|it| u32::try_from(it).ok()).filter(|it| *it > 0)
        else {
            return;
        };
        let was_alive = system::is_alive(process);
        if !was_alive && system::parent_is_out_of_sight() {
            warn!(
                process,
                "the editor's process is not visible; the server exits when its standard input ends"
            );
            return;
        }
        // A client has one process.
        let _ = self.process.set(ClientProcess { process, was_alive });
    }
}

#[expect(clippy::exit, reason = "the ordinary exit has been waited for")]
fn terminate(shutdown: &Shutdown) -> ! {
    warn!("a thread hangs; the server exits without it");
    std::process::exit(shutdown.exit_outcome().exit_code().into())
}

#[cfg(unix)]
mod system {
    //! What Unix offers to watch the client.

    #[cfg(target_os = "linux")]
    use std::fs;
    use std::io::{self, ErrorKind, PipeReader, Read};
    use std::os::fd::AsRawFd;
    use std::os::unix::process::parent_id;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Arc, OnceLock};
    use std::thread;

    use mio::unix::SourceFd;
    use mio::{Events, Interest, Poll, Token};
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    use super::{ClientProcess, POLL_INTERVAL};
    use crate::lsp::shutdown::EndReason;
    use crate::lsp::writer::OUTPUT_CLOSED;

    const DIED: &str = "its process has ended";
    const NEVER: &str = "there is no process with its `processId`";

    const SIGNAL: Token = Token(0);
    const OUTPUT: Token = Token(1);

    /// Everything that is watched.
    pub(super) struct Watch {
        process: Arc<OnceLock<ClientProcess>>,
        /// This process's parent at the start.
        parent: u32,
        poll: Poll,
        events: Events,
        signalled: PipeReader,
        signal: Arc<AtomicUsize>,
    }

    impl Watch {
        pub(super) fn new(process: Arc<OnceLock<ClientProcess>>) -> io::Result<Self> {
            // A pipe, because a running server must not have an open socket.
            let (signalled, write) = io::pipe()?;
            let (signal, again) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
            for number in [SIGTERM, SIGINT, SIGHUP] {
                // In this order: the first signal sets the flag that the second one finds.
                signal_hook::flag::register_conditional_shutdown(number, 128 + number, Arc::clone(&again))?;
                signal_hook::flag::register(number, Arc::clone(&again))?;
                signal_hook::flag::register_usize(
                    number,
                    Arc::clone(&signal),
                    number.unsigned_abs() as usize,
                )?;
                signal_hook::low_level::pipe::register(number, write.try_clone()?)?;
            }
            let poll = Poll::new()?;
            poll.registry().register(&mut SourceFd(&signalled.as_raw_fd()), SIGNAL, Interest::READABLE)?;
            // A file cannot be polled, and has no other end that could close.
            let _ = poll.registry().register(
                &mut SourceFd(&io::stdout().as_raw_fd()),
                OUTPUT,
                Interest::WRITABLE,
            );
            let events = Events::with_capacity(8);
            Ok(Self { process, parent: parent_id(), poll, events, signalled, signal })
        }

        /// Waits for a reason to exit, for a while.
        pub(super) fn wait_for_end(&mut self) -> Option<EndReason> {
            if let Some(reason) = self.check_process() {
                return Some(reason);
            }
            if let Err(problem) = self.poll.poll(&mut self.events, Some(POLL_INTERVAL)) {
                if problem.kind() != ErrorKind::Interrupted {
                    thread::sleep(POLL_INTERVAL);
                }
                return None;
            }
            if self.events.iter().any(|event| event.token() == SIGNAL) {
                // The pipe only shows that there was a signal.
                let _ = self.signalled.read(&mut [0; 64]);
                let signal = self.signal.load(Ordering::Acquire);
                return Some(EndReason::Signal(u8::try_from(signal).unwrap_or_default()));
            }
            let broken = |event: &mio::event::Event| event.is_error() || event.is_write_closed();
            let is_broken = self.events.iter().any(|event| event.token() == OUTPUT && broken(event));
            is_broken.then_some(EndReason::EditorGone(OUTPUT_CLOSED))
        }

        /// Checks the process, once it is known.
        fn check_process(&mut self) -> Option<EndReason> {
            let ClientProcess { process, was_alive } = *self.process.get()?;
            // A process that loses its parent is given another one.
            let lost_parent = process == self.parent && parent_id() != self.parent;
            let reason = EndReason::EditorGone(if was_alive { DIED } else { NEVER });
            (lost_parent || !is_alive(process)).then_some(reason)
        }
    }

    /// Whether there is a process with this id that has not ended.
    #[cfg(target_os = "linux")]
    pub(super) fn is_alive(process: u32) -> bool {
        match fs::read_to_string(format!("/proc/{process}/stat")) {
            // `12 (its name) Z …`: ended, but not yet reaped. The name may contain anything.
            Ok(line) => {
                !line.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']))
            }
            // A system without a visible own process shows no other either.
            Err(problem) => problem.kind() != ErrorKind::NotFound || fs::metadata("/proc/self/stat").is_err(),
        }
    }

    /// Elsewhere only the parent can be checked easily; an editor's server is usually its child.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn is_alive(_: u32) -> bool {
        true
    }

    /// Whether this process was started from outside of its process namespace.
    pub(super) fn parent_is_out_of_sight() -> bool {
        parent_id() == 0
    }
}

#[cfg(not(unix))]
mod system {
    //! Systems without a safe way to watch the client.

    use std::io;
    use std::sync::{Arc, OnceLock};

    use super::{ClientProcess, POLL_INTERVAL};
    use crate::lsp::shutdown::EndReason;

    pub(super) struct Watch;

    impl Watch {
        pub(super) fn new(_: Arc<OnceLock<ClientProcess>>) -> io::Result<Self> {
            Ok(Self)
        }

        pub(super) fn wait_for_end(&mut self) -> Option<EndReason> {
            std::thread::sleep(POLL_INTERVAL);
            None
        }
    }

    pub(super) fn is_alive(_: u32) -> bool {
        true
    }

    pub(super) fn parent_is_out_of_sight() -> bool {
        false
    }
}
