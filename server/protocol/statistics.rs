//! The thread that counts for one server, and adds to the file now and then: nothing waits for it, or for the disk.
//! It knows nothing of suggestions.

use std::io;
use std::time::{Duration, Instant};

use chrono::{Local, NaiveDate};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use futures::channel::oneshot;
use serde_json::{Value, json};
use tracing::{debug, warn};

use crate::protocol::counts::{Book, Counts};
use crate::protocol::ledger::{Ledger, LedgerError};
use crate::session::{Counted, Counter, Supervisor};

/// How often the file is added to at most, while serving.
const EVERY: Duration = Duration::from_secs(60);

/// How long the last addition may keep the process from ending.
const GRACE: Duration = Duration::from_millis(1500);

/// What the thread is told.
enum Told {
    Counted(Counted),
    /// Somebody wants to know.
    Asked(oneshot::Sender<Value>),
    /// The editor is about to leave: what is known is written now.
    Write,
}

/// The counting of one server.
#[derive(Debug)]
pub(crate) struct Statistics {
    sender: Sender<Told>,
}

/// Tells when the thread has ended.
#[derive(Debug)]
pub(crate) struct Ended(Receiver<()>);

impl Ended {
    /// Waits until the last counts are written, or for too long. Everyone who counts must have gone.
    pub(crate) fn wait(&self) {
        if self.0.recv_timeout(GRACE) == Err(RecvTimeoutError::Timeout) {
            debug!("the last statistics were not written in time");
        }
    }
}

impl Statistics {
    /// Starts the thread; without a ledger nothing is kept.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub(crate) fn start(
        ledger: Result<Ledger, LedgerError>,
        supervisor: &Supervisor,
    ) -> io::Result<(Self, Ended)> {
        let (sender, receiver) = unbounded();
        let (alive, ended) = bounded(0);
        supervisor.spawn("statistics", move || {
            let _alive: Sender<()> = alive;
            Clerk::new(ledger).run(&receiver);
        })?;
        Ok((Self { sender }, Ended(ended)))
    }

    /// For the session.
    pub(crate) fn counter(&self) -> Counter {
        let sender = self.sender.clone();
        // An error means that nobody counts any more.
        Box::new(move |counted| drop(sender.send(Told::Counted(counted))))
    }

    /// For those who ask.
    pub(crate) fn desk(&self) -> Desk {
        Desk(self.sender.clone())
    }
}

/// Where to ask.
#[derive(Debug, Clone)]
pub(crate) struct Desk(Sender<Told>);

impl Desk {
    /// What was counted today and all time; null if nobody counts.
    pub(crate) async fn ask(&self) -> Value {
        let (sender, receiver) = oneshot::channel();
        let _ = self.0.send(Told::Asked(sender));
        receiver.await.unwrap_or_default()
    }

    /// Has what is known written now.
    pub(crate) fn write(&self) {
        let _ = self.0.send(Told::Write);
    }
}

/// What the thread owns.
struct Clerk {
    ledger: Option<Ledger>,
    /// What is not in the file yet.
    new: Book,
    /// When it was added to last.
    written: Instant,
    /// Whether the log was told that it cannot be.
    warned: bool,
}

impl Clerk {
    fn new(ledger: Result<Ledger, LedgerError>) -> Self {
        let mut clerk = Self { ledger: None, new: Book::default(), written: Instant::now(), warned: false };
        match ledger {
            Ok(ledger) => clerk.ledger = Some(ledger),
            Err(problem) => clerk.warn(&problem),
        }
        clerk
    }

    fn run(mut self, told: &Receiver<Told>) {
        loop {
            let next = if self.new.is_empty() {
                told.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                told.recv_deadline(self.written + EVERY)
            };
            match next {
                Ok(Told::Counted(counted)) => self.new.note(today(), &counted),
                // An error means that whoever asked has gone.
                Ok(Told::Asked(reply)) => drop(reply.send(self.all())),
                Ok(Told::Write) | Err(RecvTimeoutError::Timeout) => self.write(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.write();
    }

    fn write(&mut self) {
        self.written = Instant::now();
        if self.new.is_empty() {
            return;
        }
        let Some(ledger) = &self.ledger else { return };
        match ledger.add(&self.new, today()) {
            Ok(aside) => {
                if let Some(aside) = aside {
                    warn!(aside = %aside.display(), "the file of statistics was damaged; it has another name now");
                }
                self.new = Book::default();
            }
            // It is kept for the next time.
            Err(problem) => self.warn(&problem),
        }
    }

    fn warn(&mut self, problem: &LedgerError) {
        if std::mem::replace(&mut self.warned, true) {
            debug!(%problem, "statistics are not kept");
        } else {
            warn!(%problem, "statistics are not kept; suggestions go on");
        }
    }

    fn all(&self) -> Value {
        let mut book = self.ledger.as_ref().and_then(|ledger| ledger.read().ok()).unwrap_or_default();
        book.merge(&self.new);
        report(&book, today())
    }
}

/// The day it is where the user is.
pub fn today() -> NaiveDate {
    Local::now().date_naive()
}

/// Counts as JSON: `today` and `allTime`, each with its `languages` and `models`.
fn report(book: &Book, today: NaiveDate) -> Value {
    let part = |day| {
        let mut written = counts(&book.total(day));
        for (name, sums) in [("languages", book.by_language(day)), ("models", book.by_model(day))] {
            written[name] = sums.iter().map(|(name, it)| (name.clone(), counts(it))).collect();
        }
        written
    };
    let mut written = json!({ "today": part(Some(today)), "allTime": part(None) });
    written["allTime"]["since"] = json!(book.since());
    written["today"]["date"] = json!(today.to_string());
    written
}

/// The same as a text, for programs.
pub fn report_text(book: &Book, today: NaiveDate) -> String {
    format!("{:#}\n", report(book, today))
}

fn counts(counts: &Counts) -> Value {
    let Counts { asked, shown, empty, accepted, partly, typed, dismissed, characters, latency } = counts;
    let percentile = |percent| latency.percentile(percent).map(|it| (it * 10.0).round() / 10.0);
    json!({
        "asked": asked,
        "shown": shown,
        "empty": empty,
        "accepted": accepted,
        "partlyAccepted": partly,
        "typedAlong": typed,
        "dismissed": dismissed,
        "acceptedCharacters": characters,
        "p50Ms": percentile(50),
        "p95Ms": percentile(95),
        "p99Ms": percentile(99),
    })
}
