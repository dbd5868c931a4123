//! The merged options of one client, and reports of mistakes in them.

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

/// Maximum number of reported problems, in case an editor keeps sending new mistakes.
const MAX_REPORTED_PROBLEMS: usize = 1000;

/// The options, shared by the service and the task that pulls the editor's settings.
#[derive(Debug)]
pub(crate) struct ClientOptions {
    inner: Mutex<OptionsState>,
    session: Arc<OnceLock<Session>>,
    status: UnboundedSender<StatusEvent>,
    /// Signalled when the editor must be asked for its settings.
    pub(crate) pull_requested: Notify,
}

#[derive(Debug)]
struct OptionsState {
    layers: ConfigLayers,
    /// Problems that were reported: an editor sends the same options again and again.
    reported_problems: HashSet<String>,
}

impl ClientOptions {
    pub(crate) fn new(
        layers: ConfigLayers,
        session: Arc<OnceLock<Session>>,
        status: UnboundedSender<StatusEvent>,
    ) -> Self {
        let inner = Mutex::new(OptionsState { layers, reported_problems: HashSet::new() });
        Self { inner, session, status, pull_requested: Notify::new() }
    }

    /// The initial settings, with the editor's options from `initialize`. `problems` are reported as well.
    pub(crate) fn initial_settings(&self, options: Value, mut problems: Vec<String>) -> Settings {
        let inner = &mut *self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match ConfigLayer::from_editor("initializationOptions", options) {
            Ok(layer) => inner.layers.initialization = layer,
            Err(problem) => problems.push(problem),
        }
        self.merged_settings(inner, problems)
    }

    /// Applies options that the editor sends later, and sends the settings to the session.
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

    /// The settings from all layers. Reports each problem once.
    fn merged_settings(&self, inner: &mut OptionsState, problems: Vec<String>) -> Settings {
        let (settings, more) = inner.layers.resolve_settings();
        for problem in problems.into_iter().chain(more) {
            if inner.reported_problems.len() < MAX_REPORTED_PROBLEMS
                && inner.reported_problems.insert(problem.clone())
            {
                warn!(problem, "options");
                let _ = self.status.send(Notice::Problem(problem).into());
            }
        }
        // An error means that the receiver has gone.
        let _ = self.status.send(StatusEvent::Enabled(settings.enable));
        settings
    }
}

/// Requests the editor's section `taper` after each signal. An editor without one keeps the options that it sent.
pub(crate) async fn pull_settings(client: Client, options: Arc<ClientOptions>) {
    loop {
        options.pull_requested.notified().await;
        let item = ConfigurationItem { scope_uri: None, section: Some("taper".to_owned()) };
        match client.configuration(vec![item]).await {
            Ok(sections) => {
                if let Some(settings @ Value::Object(_)) = sections.into_iter().next() {
                    options.change_settings(settings);
                }
            }
            Err(problem) => debug!(%problem, "the editor did not return its settings"),
        }
    }
}
