//! The options that one editor's server has, from all places, and what is told of mistakes in them.
//! It knows nothing of what an option does.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::Value;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tower_lsp::Client;
use tower_lsp::ls_types::ConfigurationItem;
use tracing::{debug, warn};

use crate::config::{ConfigLayer, ConfigLayers, Settings};
use crate::lsp::status::StatusEvent;
use crate::session::{Event, Notice, Session};

/// Problems that are told at most: an editor that sends other mistakes all the time has made its point.
const MAX_REPORTED_PROBLEMS: usize = 1000;

/// The options, shared by those who hear of changes.
#[derive(Debug)]
pub(crate) struct ClientOptions {
    inner: Mutex<OptionsState>,
    session: Arc<OnceLock<Session>>,
    news: UnboundedSender<StatusEvent>,
    /// Signalled when the editor is to be asked what is set.
    pub(crate) ask: Notify,
}

#[derive(Debug)]
struct OptionsState {
    layers: ConfigLayers,
    /// Problems that were told: an editor sends the same options again and again.
    told: HashSet<String>,
}

impl ClientOptions {
    pub(crate) fn new(
        layers: ConfigLayers,
        session: Arc<OnceLock<Session>>,
        news: UnboundedSender<StatusEvent>,
    ) -> Self {
        let inner = Mutex::new(OptionsState { layers, told: HashSet::new() });
        Self { inner, session, news, ask: Notify::new() }
    }

    /// What the editor says in `initialize`: the settings to begin with. `problems` are told as well.
    pub(crate) fn initial_settings(&self, options: Value, mut problems: Vec<String>) -> Settings {
        let inner = &mut *self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match ConfigLayer::from_editor("initializationOptions", options) {
            Ok(layer) => inner.layers.initialization = layer,
            Err(problem) => problems.push(problem),
        }
        self.merged_settings(inner, problems)
    }

    /// What the editor says later: the session hears of it.
    pub(crate) fn change_settings(&self, options: Value) {
        let inner = &mut *self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut problems = Vec::new();
        match ConfigLayer::from_editor("settings", options) {
            Ok(layer) => inner.layers.editor = layer,
            Err(problem) => problems.push(problem),
        }
        let settings = self.merged_settings(inner, problems);
        if let Some(session) = self.session.get() {
            session.send(Event::Configured(Box::new(settings)));
        }
    }

    /// The settings from all places. Tells of problems, each once.
    fn merged_settings(&self, inner: &mut OptionsState, problems: Vec<String>) -> Settings {
        let (settings, more) = inner.layers.resolve_settings();
        for problem in problems.into_iter().chain(more) {
            if inner.told.len() < MAX_REPORTED_PROBLEMS && inner.told.insert(problem.clone()) {
                warn!(problem, "options");
                let _ = self.news.send(Notice::Problem(problem).into());
            }
        }
        // An error means that nobody is told any more.
        let _ = self.news.send(StatusEvent::Enabled(settings.enable));
        settings
    }
}

/// Asks the editor for its section `taper` whenever that is signalled. An editor without one keeps what it sent.
pub(crate) async fn pull(client: Client, options: Arc<ClientOptions>) {
    loop {
        options.ask.notified().await;
        let item = ConfigurationItem { scope_uri: None, section: Some("taper".to_owned()) };
        match client.configuration(vec![item]).await {
            Ok(answers) => {
                if let Some(answer @ Value::Object(_)) = answers.into_iter().next() {
                    options.change_settings(answer);
                }
            }
            Err(problem) => debug!(%problem, "the editor does not say what is set"),
        }
    }
}
