//! Starts threads whose panics must not go unnoticed, and reports each panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::{fmt, io, thread};

/// Receives the name of the thread.
type PanicAlarm = dyn Fn(&'static str) + Send + Sync;

/// Starts threads, and reports when one panics.
#[derive(Clone)]
pub struct ThreadSupervisor {
    alarm: Arc<PanicAlarm>,
}

impl fmt::Debug for ThreadSupervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").finish_non_exhaustive()
    }
}

impl ThreadSupervisor {
    /// Calls `alarm` with the name of a thread that panics, on that thread.
    pub fn new(alarm: impl Fn(&'static str) + Send + Sync + 'static) -> Self {
        Self { alarm: Arc::new(alarm) }
    }

    /// Starts a thread.
    ///
    /// # Errors
    /// The system cannot start another thread; the message has the remedy.
    pub fn spawn(&self, name: &'static str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let alarm = Arc::clone(&self.alarm);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            if catch_unwind(AssertUnwindSafe(body)).is_err() {
                alarm(name);
            }
        });
        thread.map(drop).map_err(|problem| thread_error(name, &problem))
    }
}

/// Why a thread could not be started, and the remedy.
pub fn thread_error(name: &str, problem: &io::Error) -> io::Error {
    io::Error::other(format!(
        "cannot start the {name} thread ({problem}); allow more processes and threads (`ulimit -u`, a container's \
         `pids.max`)"
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::config::Settings;
    use crate::session::{Session, SessionStart};
    use crate::text::Encoding;

    /// Panics when it is dropped.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(thread::panicking(), "on purpose");
        }
    }

    #[test]
    fn panicking_thread_is_reported_by_name() {
        let (sender, alarms) = mpsc::channel();
        let supervisor = ThreadSupervisor::new(move |name| sender.send(name).unwrap());
        supervisor.spawn("quiet", || ()).unwrap();
        supervisor.spawn("loud", || panic!("on purpose")).unwrap();
        drop(supervisor);
        // Once both have ended, every report was sent.
        assert_eq!(alarms.iter().collect::<Vec<_>>(), ["loud"]);
    }

    #[test]
    fn a_panic_of_the_session_outside_of_its_guards_is_reported() {
        let (sender, alarms) = mpsc::channel();
        let bomb = Bomb;
        let session = Session::start(SessionStart {
            encoding: Encoding::Utf8,
            refreshes: false,
            settings: Settings::default(),
            source: Box::new(|_| Err(anyhow::anyhow!("there is none"))),
            // Dropped with the session's thread.
            notices: Box::new(move |_| {
                let _held = &bomb;
            }),
            usage_recorder: Box::new(|_| ()),
            crawling: crate::session::crawler::CrawlMode::Here,
            supervisor: ThreadSupervisor::new(move |name| sender.send(name).unwrap()),
        })
        .unwrap();
        session.stop();
        assert_eq!(alarms.recv_timeout(Duration::from_secs(60)), Ok("session"));
    }

    #[test]
    fn no_thread_is_a_sentence_with_a_remedy() {
        let text = thread_error("session", &io::Error::from(io::ErrorKind::WouldBlock)).to_string();
        assert!(text.contains("the session thread (") && text.contains("pids.max"), "{text}");
    }
}
