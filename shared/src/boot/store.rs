//! The parameters that hold boot lists: a level below the stack's own path, one for each rule.

use std::collections::BTreeMap;

use aws_sdk_ssm::{
    Client,
    error::SdkError,
    operation::{
        delete_parameter::DeleteParameterError, get_parameter::GetParameterError,
        get_parameters_by_path::GetParametersByPathError, put_parameter::PutParameterError,
    },
    types::{Parameter, ParameterTier, ParameterType},
};
use thiserror::Error;

use crate::{ecr::ImagesError, rule::is_name};

/// Tells why a list could not be kept.
#[derive(Debug, Error)]
pub enum BootError {
    /// ECR does not name the images.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// A parameter could not be read.
    #[error("parameter {0} could not be read")]
    Read(String, #[source] Box<SdkError<GetParameterError>>),
    /// The parameters of the path could not be read.
    #[error("the parameters below {0} could not be read")]
    ReadAll(String, #[source] Box<SdkError<GetParametersByPathError>>),
    /// A parameter could not be written.
    #[error("parameter {0} could not be written")]
    Write(String, #[source] Box<SdkError<PutParameterError>>),
    /// A parameter could not be removed.
    #[error("parameter {0} could not be removed")]
    Remove(String, #[source] Box<SdkError<DeleteParameterError>>),
}

/// A list as its parameter holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The value; empty where there is no parameter.
    pub text: String,
    /// Tells how often it was written; 0 where there is no parameter.
    pub version: i64,
}

impl Stored {
    /// Returns true where there is a parameter.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.version > 0
    }
}

impl From<Parameter> for Stored {
    fn from(parameter: Parameter) -> Self {
        Self {
            text: parameter.value.unwrap_or_default(),
            version: parameter.version,
        }
    }
}

/// The parameters of a stack.
#[derive(Clone, Debug)]
pub struct Store {
    client: Client,
    /// Below which they are, without a `/` at its end: IAM judges GetParametersByPath by the path as it is named
    /// (aws-dotnet-extensions-configuration#108).
    path: String,
}

impl Store {
    /// Keeps lists below this path.
    #[must_use]
    pub fn new(client: Client, path: String) -> Self {
        Self { client, path }
    }

    fn name(&self, rule: &str) -> String {
        format!("{}/{rule}", self.path)
    }

    fn rule_of(&self, parameter: &Parameter) -> Option<String> {
        let name = parameter.name()?.strip_prefix(&self.path)?.strip_prefix('/')?;
        is_name(name).then(|| name.to_owned())
    }

    /// Reads the list of a rule.
    ///
    /// # Errors
    /// [`BootError::Read`] where SSM cannot be asked.
    pub async fn read(&self, rule: &str) -> Result<Stored, BootError> {
        let name = self.name(rule);
        match self.client.get_parameter().name(&name).send().await {
            Ok(answer) => Ok(answer.parameter.map_or_else(Stored::default, Stored::from)),
            Err(SdkError::ServiceError(refused)) if refused.err().is_parameter_not_found() => Ok(Stored::default()),
            Err(error) => Err(BootError::Read(name, Box::new(error))),
        }
    }

    /// Reads all lists, by the names of their rules; one call for each ten. What is no rule's, or lies deeper, is none of ours.
    ///
    /// # Errors
    /// [`BootError::ReadAll`] where SSM cannot be asked.
    pub async fn read_all(&self) -> Result<BTreeMap<String, Stored>, BootError> {
        let request = self.client.get_parameters_by_path().path(&self.path);
        let mut pages = request.into_paginator().send();
        let mut lists = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| BootError::ReadAll(self.path.clone(), Box::new(error)))?;
            let parameters = page.parameters.into_iter().flatten();
            lists.extend(parameters.filter_map(|parameter| Some((self.rule_of(&parameter)?, parameter.into()))));
        }
        Ok(lists)
    }

    /// Writes the list of a rule and returns its version. The tier is named, so that no default of the account's makes it one
    /// that is paid for.
    ///
    /// # Errors
    /// [`BootError::Write`] where SSM refuses it.
    pub async fn write(&self, rule: &str, text: &str) -> Result<i64, BootError> {
        let name = self.name(rule);
        let request = self
            .client
            .put_parameter()
            .name(&name)
            .value(text)
            .r#type(ParameterType::String)
            .tier(ParameterTier::Standard)
            .overwrite(true);
        let answer = request.send().await;
        let answer = answer.map_err(|error| BootError::Write(name, Box::new(error)))?;
        Ok(answer.version)
    }

    /// Removes the list of a rule; one that is gone is no error.
    ///
    /// # Errors
    /// [`BootError::Remove`] where SSM refuses it.
    pub async fn remove(&self, rule: &str) -> Result<(), BootError> {
        let name = self.name(rule);
        match self.client.delete_parameter().name(&name).send().await {
            Ok(_) => Ok(()),
            Err(SdkError::ServiceError(refused)) if refused.err().is_parameter_not_found() => Ok(()),
            Err(error) => Err(BootError::Remove(name, Box::new(error))),
        }
    }
}
