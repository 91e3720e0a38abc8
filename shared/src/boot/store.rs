//! The parameters that hold boot lists: a level below the stack's own path, one or two for each rule.

use std::collections::BTreeMap;

use aws_sdk_ssm::{
    Client,
    error::SdkError,
    operation::{
        delete_parameter::DeleteParameterError, get_parameters::GetParametersError,
        get_parameters_by_path::GetParametersByPathError, put_parameter::PutParameterError,
    },
    types::{Parameter, ParameterTier, ParameterType},
};
use thiserror::Error;

use super::list::{BootList, images_of};
use crate::{ecr::ImagesError, image::Image, rule::is_name};

/// Ends the name of a rule's second parameter: no rule's name has a dot.
const MORE: &str = ".more";

/// Tells why a list could not be kept.
#[derive(Debug, Error)]
pub enum BootError {
    /// ECR does not name the images.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// The parameters of a rule could not be read.
    #[error("parameter {0} could not be read")]
    Read(String, #[source] Box<SdkError<GetParametersError>>),
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

/// A list as its parameters hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The value of the first parameter; empty where there is none.
    pub text: String,
    /// The value of the second, where there is one.
    pub more: Option<String>,
    /// Tells how often the first was written; 0 where there is none.
    pub version: i64,
}

impl Stored {
    /// Returns true where there is a parameter.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.version > 0 || self.more.is_some()
    }

    /// Returns true where it is this list.
    #[must_use]
    pub fn is(&self, list: &BootList) -> bool {
        self.text == list.text && self.more == list.more
    }

    /// Lists the images of both parameters; what is no list of ours names none.
    pub(super) fn images(&self) -> Vec<Image> {
        let texts = [Some(&self.text), self.more.as_ref()].into_iter().flatten();
        texts.filter_map(|text| images_of(text)).flatten().collect()
    }

    fn take(&mut self, part: Part, parameter: Parameter) {
        match part {
            Part::First => {
                self.version = parameter.version;
                self.text = parameter.value.unwrap_or_default();
            }
            Part::More => self.more = parameter.value,
        }
    }
}

/// Tells the parameters of a rule apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    First,
    More,
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

    fn name(&self, rule: &str, part: Part) -> String {
        let end = if part == Part::More { MORE } else { "" };
        format!("{}/{rule}{end}", self.path)
    }

    fn rule_and_part(&self, parameter: &Parameter) -> Option<(String, Part)> {
        let name = parameter.name()?.strip_prefix(&self.path)?.strip_prefix('/')?;
        let (name, part) = match name.strip_suffix(MORE) {
            Some(name) => (name, Part::More),
            None => (name, Part::First),
        };
        is_name(name).then(|| (name.to_owned(), part))
    }

    /// Puts parameters together to lists, by the names of their rules.
    fn lists(&self, parameters: impl IntoIterator<Item = Parameter>) -> BTreeMap<String, Stored> {
        let mut lists: BTreeMap<String, Stored> = BTreeMap::new();
        for parameter in parameters {
            if let Some((rule, part)) = self.rule_and_part(&parameter) {
                lists.entry(rule).or_default().take(part, parameter);
            }
        }
        lists
    }

    /// Reads the list of a rule, by one call.
    ///
    /// # Errors
    /// [`BootError::Read`] where SSM cannot be asked.
    pub async fn read(&self, rule: &str) -> Result<Stored, BootError> {
        let name = self.name(rule, Part::First);
        let names = [name.clone(), self.name(rule, Part::More)];
        let answer = self.client.get_parameters().set_names(Some(names.into())).send().await;
        let answer = answer.map_err(|error| BootError::Read(name, Box::new(error)))?;
        let mut lists = self.lists(answer.parameters.into_iter().flatten());
        Ok(lists.remove(rule).unwrap_or_default())
    }

    /// Reads all lists, by the names of their rules; one call for each ten parameters. What is no rule's, or lies deeper, is none
    /// of ours.
    ///
    /// # Errors
    /// [`BootError::ReadAll`] where SSM cannot be asked.
    pub async fn read_all(&self) -> Result<BTreeMap<String, Stored>, BootError> {
        let request = self.client.get_parameters_by_path().path(&self.path);
        let mut pages = request.into_paginator().send();
        let mut parameters = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| BootError::ReadAll(self.path.clone(), Box::new(error)))?;
            parameters.extend(page.parameters.into_iter().flatten());
        }
        Ok(self.lists(parameters))
    }

    /// Writes the list of a rule in the place of the one that was read, and returns the first parameter's version.
    ///
    /// The first is written last, whatever changes: of two who write at a time its version tells the later one, who then writes
    /// both once more.
    ///
    /// # Errors
    /// [`BootError::Write`] and [`BootError::Remove`] where SSM refuses it.
    pub async fn write(&self, rule: &str, before: &Stored, list: &BootList) -> Result<i64, BootError> {
        if let Some(more) = &list.more {
            self.put(rule, Part::More, more).await?;
        }
        let version = self.put(rule, Part::First, &list.text).await?;
        if list.more.is_none() && before.more.is_some() {
            self.delete(rule, Part::More).await?;
        }
        Ok(version)
    }

    /// Writes a parameter and returns its version. The tier is named, so that no default of the account's makes it one that is
    /// paid for.
    async fn put(&self, rule: &str, part: Part, text: &str) -> Result<i64, BootError> {
        let name = self.name(rule, part);
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

    /// Removes the list of a rule that was read; one that is gone is no error.
    ///
    /// # Errors
    /// [`BootError::Remove`] where SSM refuses it.
    pub async fn remove(&self, rule: &str, before: &Stored) -> Result<(), BootError> {
        if before.version > 0 {
            self.delete(rule, Part::First).await?;
        }
        if before.more.is_some() {
            self.delete(rule, Part::More).await?;
        }
        Ok(())
    }

    async fn delete(&self, rule: &str, part: Part) -> Result<(), BootError> {
        let name = self.name(rule, part);
        match self.client.delete_parameter().name(&name).send().await {
            Ok(_) => Ok(()),
            Err(SdkError::ServiceError(refused)) if refused.err().is_parameter_not_found() => Ok(()),
            Err(error) => Err(BootError::Remove(name, Box::new(error))),
        }
    }
}
