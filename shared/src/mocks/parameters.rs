//! SSM's Parameter Store, as far as the functions use it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use aws_sdk_ssm::{
    Client,
    operation::{
        delete_parameter::{DeleteParameterError, DeleteParameterOutput},
        get_parameters::{GetParametersError, GetParametersOutput},
        get_parameters_by_path::{GetParametersByPathError, GetParametersByPathOutput},
        put_parameter::{PutParameterError, PutParameterOutput},
    },
    types::{Parameter, ParameterTier, ParameterType, error::ParameterNotFound},
};
use aws_smithy_mocks::{MockResponse, Rule, mock};

use super::Calls;
use crate::fault;

/// Limits how many parameters a page has at most, and how many are asked for by their names (SSM service model,
/// GetParametersByPath and GetParameters).
const PAGE: usize = 10;

/// The parameters, by name.
#[derive(Debug, Default)]
pub struct Parameters {
    /// Each with how often it was written.
    pub held: BTreeMap<String, (String, i64)>,
    /// Says what another writes before the next PutParameter.
    pub meanwhile: Option<(String, String)>,
}

impl Parameters {
    /// Writes a parameter and returns its version.
    pub fn put(&mut self, name: &str, value: &str) -> i64 {
        let held = self.held.entry(name.to_owned()).or_default();
        *held = (value.to_owned(), held.1 + 1);
        held.1
    }

    fn parameter(&self, name: &str) -> Option<Parameter> {
        let (value, version) = self.held.get(name)?;
        Some(Parameter::builder().name(name).value(value).version(*version).build())
    }
}

/// Mocks the parameters that are part of a test's state, as are the calls.
pub fn parameters<S: Send + 'static>(
    state: &Arc<Mutex<S>>,
    parts: fn(&mut S) -> (&mut Calls, &mut Parameters),
) -> [Rule; 4] {
    let shared = Arc::clone(state);
    let get = mock!(Client::get_parameters).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let (calls, parameters) = parts(&mut state);
        if let Some(code) = calls.note("GetParameters") {
            return fault!(aws_sdk_ssm, GetParametersError, code);
        }
        assert!((1..=PAGE).contains(&input.names().len()));
        let (found, missing): (Vec<_>, Vec<_>) = input
            .names()
            .iter()
            .partition(|name| parameters.held.contains_key(*name));
        let found = found
            .into_iter()
            .filter_map(|name| parameters.parameter(name))
            .collect();
        let missing = missing.into_iter().cloned().collect();
        let output = GetParametersOutput::builder().set_parameters(Some(found));
        MockResponse::Output(output.set_invalid_parameters(Some(missing)).build())
    });
    let shared = Arc::clone(state);
    let list = mock!(Client::get_parameters_by_path).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let (calls, parameters) = parts(&mut state);
        if let Some(code) = calls.note("GetParametersByPath") {
            return fault!(aws_sdk_ssm, GetParametersByPathError, code);
        }
        assert!(input.recursive() != Some(true));
        let below = format!("{}/", input.path().unwrap());
        let is_below = |name: &&String| name.strip_prefix(&below).is_some_and(|rest| !rest.contains('/'));
        let from = input.next_token().map_or(0, |token| token.parse().unwrap());
        let mut names = parameters.held.keys().filter(is_below).skip(from);
        let page = names
            .by_ref()
            .take(PAGE)
            .filter_map(|name| parameters.parameter(name))
            .collect();
        let token = names.next().map(|_| (from + PAGE).to_string());
        let output = GetParametersByPathOutput::builder()
            .set_parameters(Some(page))
            .set_next_token(token);
        MockResponse::Output(output.build())
    });
    let shared = Arc::clone(state);
    let put = mock!(Client::put_parameter).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let (calls, parameters) = parts(&mut state);
        if let Some(code) = calls.note("PutParameter") {
            return fault!(aws_sdk_ssm, PutParameterError, code);
        }
        let value = input.value().unwrap();
        assert!((1..=4096).contains(&value.len()), "a standard parameter's value");
        assert_eq!(
            (input.r#type(), input.tier()),
            (Some(&ParameterType::String), Some(&ParameterTier::Standard))
        );
        assert_eq!(input.overwrite(), Some(true));
        if let Some((name, value)) = parameters.meanwhile.take() {
            parameters.put(&name, &value);
        }
        let version = parameters.put(input.name().unwrap(), value);
        MockResponse::Output(PutParameterOutput::builder().version(version).build())
    });
    let shared = Arc::clone(state);
    let delete = mock!(Client::delete_parameter).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let (calls, parameters) = parts(&mut state);
        if let Some(code) = calls.note("DeleteParameter") {
            return fault!(aws_sdk_ssm, DeleteParameterError, code);
        }
        match parameters.held.remove(input.name().unwrap()) {
            Some(_) => MockResponse::Output(DeleteParameterOutput::builder().build()),
            None => MockResponse::Error(DeleteParameterError::ParameterNotFound(missing())),
        }
    });
    [get, list, put, delete]
}

fn missing() -> ParameterNotFound {
    ParameterNotFound::builder().build()
}
