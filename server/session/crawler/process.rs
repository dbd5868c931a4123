//! The crawl process from outside: started when there is work, watched, ended, and started again a limited number
//! of times.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use taper_grammars::Language;
use tracing::{debug, warn};

use super::FileCrawler;
use super::message::{self, CrawlRequest, CrawlResponse, VERSION};
use crate::retrieval::chunks::ChunkedFile;
use crate::retrieval::crawl::{self, CrawlLimits, CrawledFile};
use crate::session::document::deadline_after;

/// Time limit of one request, beyond what a walk takes by its own clock: the process has low priority.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// The process is started again at most this often in this window; then files are read here, without parsers.
const MAX_FAILURES: usize = 8;
const FAILURE_WINDOW: Duration = Duration::from_secs(600);

/// Why a response is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CrawlFailure {
    /// The process is not running.
    Unavailable,
    /// The process ended during this request.
    Ended,
}

/// The crawl in a process of its own.
pub(super) struct ChildProcess {
    program: PathBuf,
    running: Option<RunningChild>,
    /// When it ended by itself, or could not be started.
    failures: VecDeque<Instant>,
    /// Time limits for its start, and for a request.
    start: Duration,
    request: Duration,
}

impl ChildProcess {
    pub(super) fn new(program: PathBuf) -> Self {
        Self {
            program,
            running: None,
            failures: VecDeque::new(),
            start: REQUEST_LIMIT,
            request: REQUEST_LIMIT,
        }
    }

    fn send_request(
        &mut self,
        request: CrawlRequest,
        limit: Duration,
    ) -> Result<CrawlResponse, CrawlFailure> {
        // Not this request's failure.
        if self.running.take_if(RunningChild::has_ended).is_some() {
            self.count_failure();
        }
        if self.running.is_none() {
            self.failures.retain(|at| at.elapsed() < FAILURE_WINDOW);
            if self.failures.len() >= MAX_FAILURES {
                return Err(CrawlFailure::Unavailable);
            }
            match RunningChild::start(&self.program, self.start) {
                Ok(running) => self.running = Some(running),
                Err(problem) => {
                    debug!(%problem, "the crawl process could not be started");
                    self.count_failure();
                    return Err(CrawlFailure::Unavailable);
                }
            }
        }
        let Some(running) = &self.running else { return Err(CrawlFailure::Unavailable) };
        running.send_request(request, limit).ok_or_else(|| {
            self.running = None;
            self.count_failure();
            CrawlFailure::Ended
        })
    }

    fn count_failure(&mut self) {
        self.failures.push_back(Instant::now());
        if self.failures.len() == MAX_FAILURES {
            let minutes = FAILURE_WINDOW.as_secs() / 60;
            warn!(
                "the crawl process has failed {MAX_FAILURES} times; for {minutes} minutes project files are \
                 read without parsing them"
            );
        }
    }
}

impl FileCrawler for ChildProcess {
    fn walk(&mut self, root: &Path, near: &[String], time: Duration) -> Option<Vec<CrawledFile>> {
        let request = CrawlRequest::Walk { root: root.to_owned(), near: near.to_vec(), time };
        match self.send_request(request, time + self.request) {
            Ok(CrawlResponse::Walked(found)) => Some(found),
            Err(CrawlFailure::Unavailable) => {
                Some(crawl::find_files(root, near, CrawlLimits::DEFAULT, &mut deadline_after(time)))
            }
            Ok(_) | Err(CrawlFailure::Ended) => {
                warn!("a walk through the project failed; the previous index is kept");
                None
            }
        }
    }

    fn cut(&mut self, root: &Path, found: &CrawledFile) -> Option<ChunkedFile> {
        let request = CrawlRequest::Cut { root: root.to_owned(), found: found.clone() };
        match self.send_request(request, self.request) {
            Ok(CrawlResponse::Cut(file)) => {
                file?.validate_received(&found.path, crawl::indexable_language(Path::new(&found.path))?)
            }
            Err(CrawlFailure::Unavailable) => crawl::chunk_without_outlines(root, found),
            Ok(_) | Err(CrawlFailure::Ended) => {
                warn!(path = found.path, "a file cannot be cut into chunks, and is left out");
                None
            }
        }
    }

    fn cut_text(&mut self, path: &str, language: &'static Language, text: &str) -> Option<ChunkedFile> {
        let (name, request) = (language.name.to_owned(), self.request);
        let cut = CrawlRequest::CutText { path: path.to_owned(), language: name, text: text.to_owned() };
        match self.send_request(cut, request) {
            Ok(CrawlResponse::Cut(file)) => file?.validate_received(path, language),
            Err(CrawlFailure::Unavailable) => ChunkedFile::without_outlines(path, language, text),
            Ok(_) | Err(CrawlFailure::Ended) => {
                warn!(path, "a document cannot be cut into chunks, and is left out");
                None
            }
        }
    }

    fn release_process(&mut self) {
        self.running = None;
    }
}

/// The process. Dropping it ends it.
struct RunningChild {
    requests: Sender<CrawlRequest>,
    responses: Receiver<CrawlResponse>,
    /// The process, to be killed; and the thread that waits for its end, which may take a while if it waits for a disk.
    child: Option<Child>,
    remains: Sender<Child>,
}

impl RunningChild {
    fn start(program: &Path, limit: Duration) -> io::Result<Self> {
        let mut command = Command::new(program);
        // The error output of a crashing process may contain code.
        command.arg("crawl").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::arg0(&mut command, "taper");
        // Without a console window.
        #[cfg(windows)]
        std::os::windows::process::CommandExt::creation_flags(&mut command, 0x0800_0000);
        let mut child = command.spawn()?;
        let (requests, to_write) = bounded::<CrawlRequest>(1);
        let (sender, responses) = bounded(1);
        let (remains, ended) = bounded::<Child>(1);
        let pipes = child.stdin.take().zip(child.stdout.take());
        let it = Self { requests, responses, child: Some(child), remains };
        let (mut input, mut output) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
        // Read on a thread of its own, because reading a pipe has no timeout.
        thread::Builder::new().name("crawl".to_owned()).spawn(move || {
            let mut answer = || Some(sender.send(message::read_message(&mut output).ok()?));
            if answer().is_some_and(|sent| sent.is_ok()) {
                for request in to_write {
                    if message::write_message(&mut input, &request).is_err()
                        || answer().is_none_or(|sent| sent.is_err())
                    {
                        break;
                    }
                }
            }
            drop((sender, input, output));
            if let Ok(mut child) = ended.recv() {
                let status = child.wait().ok();
                debug!(?status, "the crawl process has ended");
            }
        })?;
        match it.responses.recv_timeout(limit) {
            Ok(CrawlResponse::Ready(version)) if version == VERSION => Ok(it),
            Ok(_) => Err(io::Error::other("the crawl process is not this version of taper")),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))))
    }

    fn send_request(&self, request: CrawlRequest, limit: Duration) -> Option<CrawlResponse> {
        self.requests.send(request).ok()?;
        self.responses.recv_timeout(limit).ok()
    }
}

impl Drop for RunningChild {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that it has already ended.
            let _ = child.kill();
            if let Err(unsent) = self.remains.send(child) {
                let _ = unsent.into_inner().try_wait();
            }
        }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A crawl with a program that does not work.
    fn apart(folder: &tempfile::TempDir, program: &str) -> ChildProcess {
        let path = folder.path().join("program");
        fs::write(&path, format!("#!/bin/sh\n{program}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        ChildProcess { start: Duration::from_millis(300), ..ChildProcess::new(path) }
    }

    #[test]
    fn files_are_indexed_without_outlines_if_crawler_fails() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.py"), "class A:\n    def f(self): pass\n    def g(self): pass\n")
            .unwrap();
        let hello = r"printf '\000\000\000\000'";
        let other = r"printf '\005\000\000\000\000\0031.0'";
        for program in ["exit 1", "echo something that is no message at all", hello, other, "exec sleep 60"] {
            let mut apart = apart(&folder, program);
            for _ in 0..2 {
                let found = apart.walk(folder.path(), &[], Duration::from_secs(60)).unwrap();
                assert_eq!(found.len(), 1, "{program}");
                let whole = crawl::chunk_file(folder.path(), &found[0], &mut || false).unwrap();
                let file = apart.cut(folder.path(), &found[0]).unwrap();
                assert!(file.text() == whole.text() && file != whole, "{program}");
            }
            assert_eq!(apart.failures.len(), 4, "{program}");
        }
        let mut apart = ChildProcess::new(PathBuf::new());
        assert!(apart.walk(folder.path(), &[], Duration::from_secs(60)).is_some());
    }

    #[test]
    fn hanging_crawler_skips_file_and_restarts_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.py"), "x = one\n").unwrap();
        let mut ready = Vec::new();
        message::write_message(&mut ready, &CrawlResponse::Ready(VERSION.to_owned())).unwrap();
        fs::write(folder.path().join("ready"), ready).unwrap();
        let says = format!("cat {}/ready; exec sleep 60", folder.path().display());
        let brief = Duration::from_millis(50);
        let mut apart =
            ChildProcess { start: Duration::from_secs(60), request: brief, ..apart(&folder, &says) };
        let found = CrawledFile { path: "a.py".to_owned(), bytes: 8, modified: None };
        for _ in 0..MAX_FAILURES {
            assert_eq!(apart.cut(folder.path(), &found), None);
        }
        assert!(apart.cut(folder.path(), &found).is_some(), "after too many failures the file is read here");
        assert!(apart.running.is_none());
    }
}
