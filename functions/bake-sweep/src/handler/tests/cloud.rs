//! The function with the services around it.

use std::sync::{Arc, Mutex};

use aws_sdk_sfn::types::ExecutionStatus;
use lambda_runtime::Diagnostic;
use prefetch::bake::{ARCHITECTURE_TAG, EXECUTION_TAG, PUBLISHED_TAG};
use serde_json::Value;

use super::{
    ec2::ec2,
    services::{OTHER, Services, owned},
    sfn::sfn,
    ssm::ssm,
};
use crate::{error::SweepError, handler::BakeSweep, settings::Settings};

/// The function and what is around it.
pub struct Cloud {
    pub sweep: BakeSweep,
    pub state: Arc<Mutex<Services>>,
}

impl Cloud {
    pub fn new() -> Self {
        let state = Arc::new(Mutex::new(Services::default()));
        let setting = |name: &str| match name {
            "STACK_NAME" => "eks-image-prefetch",
            "CLUSTER_NAME" => "prod",
            "PARAMETER_PREFIX" => "/eks-image-prefetch/prod",
            other => panic!("{other}"),
        };
        let sweep = BakeSweep {
            ec2: ec2(&state),
            sfn: sfn(&state),
            ssm: ssm(&state),
            settings: Settings::read(|name| Some(setting(name).to_owned())).unwrap(),
        };
        Self { sweep, state }
    }

    pub fn state<T>(&self, with: impl FnOnce(&mut Services) -> T) -> T {
        with(&mut self.state.lock().unwrap())
    }

    pub fn execution(&self, execution: &str, status: Option<ExecutionStatus>) {
        if let Some(status) = status {
            self.state(|state| state.executions.insert(execution.to_owned(), status));
        }
    }

    pub fn builder(&self, id: &str, tags: &[(&str, &str)]) {
        self.state(|state| state.instances.insert(id.to_owned(), owned(tags)));
    }

    pub fn snapshot(&self, id: &str, tags: &[(&str, &str)]) {
        self.state(|state| state.snapshots.insert(id.to_owned(), owned(tags)));
    }

    /// Adds a snapshot that was published in this hour.
    pub fn published(&self, id: &str, architecture: &str, hour: usize) {
        let at = format!("2026-11-16T{hour:02}:00:00.000Z");
        let tags = [
            (EXECUTION_TAG, OTHER),
            (ARCHITECTURE_TAG, architecture),
            (PUBLISHED_TAG, &at),
        ];
        self.snapshot(id, &tags);
    }

    /// Lets the parameter of an architecture name a snapshot.
    pub fn publish(&self, architecture: &str, snapshot: &str) {
        let name = format!("/eks-image-prefetch/prod/{architecture}/snapshot");
        self.state(|state| state.parameters.insert(name, snapshot.to_owned()));
    }

    pub fn template(&self, id: &str, versions: &[&[&str]]) {
        let snapshots = |version: &&[&str]| version.iter().map(|id| (*id).to_owned()).collect();
        let versions = versions.iter().map(snapshots).collect();
        self.state(|state| state.templates.insert(id.to_owned(), versions));
    }

    pub fn restore(&self, snapshot: &str, zones: &[&str]) {
        let zones = zones.iter().map(|zone| (*zone).to_owned()).collect();
        self.state(|state| state.restores.insert(snapshot.to_owned(), zones));
    }

    pub fn refuse(&self, resource: &str, code: &'static str) {
        self.state(|state| state.refused.insert(resource.to_owned(), code));
    }

    pub async fn sweep(&self, event: &str) -> Result<Value, SweepError> {
        let swept = self.sweep.handle(serde_json::from_str(event).unwrap()).await?;
        Ok(serde_json::to_value(swept).unwrap())
    }

    /// Returns the type and the message of the error that an event ends with.
    pub async fn failed(&self, event: &str) -> (String, String) {
        let error = Diagnostic::from(self.sweep(event).await.unwrap_err());
        (error.error_type, error.error_message)
    }

    /// Returns the calls so far, one however many pages it took.
    pub fn calls(&self) -> Vec<&'static str> {
        let mut calls = self.state(|state| std::mem::take(&mut state.calls));
        calls.dedup();
        calls
    }

    pub fn count(&self, call: &str) -> usize {
        self.state(|state| state.calls.iter().filter(|made| **made == call).count())
    }
}
