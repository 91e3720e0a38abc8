//! An image that is being pulled: its login, its description, and its attempts.

use std::fs::File;

use prefetch::outcome::{NodeReason, Status};
use tokio::time::Instant;

use super::marker::PullMarker;
use crate::{
    command::{
        Command,
        work::{Attempts, Stage, Work},
    },
    containerd::inventory::Inventory,
    description::{Description, Fit},
    disk::size::Size,
    failure::Failure,
    login::{Answer, Login},
    naming::Before,
};

/// An image that is being brought.
pub(super) struct ImagePull<'a> {
    pub(super) command: &'a Command<'a>,
    pub(super) work: &'a Work,
    /// A login of its own, where the one that it shares with others was refused.
    pub(super) login: Option<Answer>,
    pub(super) is_login_renewed: bool,
    pub(super) description: Option<Description>,
    /// True where it was there, but for a name, when the last attempt began.
    pub(super) was_there: bool,
    pub(super) status: Status,
    pub(super) ballast: Option<File>,
    pub(super) marker: Option<PullMarker>,
}

impl<'a> ImagePull<'a> {
    pub(super) fn of(command: &'a Command<'a>, work: &'a Work) -> Self {
        Self {
            command,
            work,
            login: None,
            is_login_renewed: false,
            description: None,
            was_there: false,
            status: Status::Cached,
            ballast: None,
            marker: None,
        }
    }

    /// Describes the image; where the registry does not say, the pull will.
    pub(super) async fn describe(&mut self, attempt: u32, login: Option<&Login>) -> Result<Description, Failure> {
        let Command {
            context, parameters, ..
        } = self.command;
        if self.description.is_none() {
            let described = if attempt == 1 {
                self.command.description_of(self.work).await
            } else {
                context.describe(&self.work.image, login).await
            };
            match described {
                Ok(description) => self.description = Some(description),
                Err(failure) if parameters.report_only => return Err(failure),
                Err(_) => {}
            }
        }
        Ok(self.description.clone().unwrap_or(Description {
            fit: Fit::Unknown,
            content: None,
        }))
    }

    pub(super) async fn answer(&self) -> Answer {
        match &self.login {
            Some(own) => own.clone(),
            None => self.command.login(self.work).await,
        }
    }

    pub(super) async fn login(&self) -> Option<Login> {
        match self.answer().await {
            Answer::Given(login) => Some(login),
            Answer::None | Answer::Failed(_) => None,
        }
    }

    pub(super) fn begin(&self, attempt: u32) {
        let attempts = self.attempts().unwrap_or(Attempts {
            began: Instant::now(),
            count: 0,
        });
        self.work.set(Stage::Trying(Attempts {
            count: attempt,
            ..attempts
        }));
    }

    pub(super) fn remember_names(&self, inventory: &Inventory) {
        let mut before = self.work.before.borrow_mut();
        before.get_or_insert_with(|| Before::of(inventory, &self.work.image));
    }

    pub(super) fn attempts(&self) -> Option<Attempts> {
        match self.work.stage() {
            Stage::Trying(attempts) => Some(attempts),
            _ => None,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.description.as_ref().map_or(0, Description::bytes)
    }
}

pub(super) fn refuse_foreign(description: &Description) -> Result<(), Failure> {
    match &description.fit {
        Fit::Foreign(why) => Err(Failure::new(NodeReason::Platform, why.clone())),
        Fit::Own | Fit::Unknown => Ok(()),
    }
}

pub(super) fn size_of(description: &Description) -> Size {
    description.content.as_ref().map_or_else(Size::default, Size::of)
}
