//! The calls to EventBridge Scheduler.

use aws_sdk_scheduler::{
    Client,
    error::{BuildError, SdkError},
    operation::{
        create_schedule::CreateScheduleError,
        delete_schedule::DeleteScheduleError,
        get_schedule::{GetScheduleError, GetScheduleOutput},
        list_schedules::{ListSchedulesError, ListSchedulesOutput},
    },
    primitives::DateTime as Moment,
    types::{ActionAfterCompletion, DeadLetterConfig, FlexibleTimeWindow, FlexibleTimeWindowMode, RetryPolicy, Target},
};
use thiserror::Error;

use crate::{
    schedule::definition::{Definition, Part},
    settings::Settings,
};

/// Limits how often Scheduler tries again to hand a job to this function, and for how long.
const RETRIES: i32 = 2;
const RETRY_SECONDS: i32 = 3600;

/// Tells why schedules cannot be created, listed or deleted.
#[derive(Debug, Error)]
pub enum ScheduleError {
    /// The request could not be built.
    #[error("the request to EventBridge Scheduler could not be built")]
    Request(#[from] BuildError),
    /// It could not be created.
    #[error("the schedule could not be created")]
    Create(#[source] Box<SdkError<CreateScheduleError>>),
    /// It could not be created as a whole, and what there is of it could not be deleted again.
    #[error("the schedule {0} could not be created as a whole, nor what was made of it deleted again")]
    Half(String, #[source] Box<ScheduleError>),
    /// It could not be read.
    #[error("the schedule could not be read")]
    Get(#[source] Box<SdkError<GetScheduleError>>),
    /// They could not be listed.
    #[error("the schedules could not be listed")]
    List(#[source] Box<SdkError<ListSchedulesError>>),
    /// It could not be deleted.
    #[error("the schedule could not be deleted")]
    Delete(#[source] Box<SdkError<DeleteScheduleError>>),
}

/// Holds the schedule group.
#[derive(Clone, Copy)]
pub struct Scheduler<'a> {
    pub client: &'a Client,
    pub settings: &'a Settings,
}

impl Scheduler<'_> {
    /// Creates one of a schedule's parts, which invokes `function`.
    ///
    /// # Errors
    /// [`ScheduleError`] where it was not created, or it is not known to be.
    pub async fn create(&self, schedule: &Definition, part: &Part, function: &str) -> Result<(), ScheduleError> {
        let target = self.target(schedule, function)?;
        let off = FlexibleTimeWindow::builder()
            .mode(FlexibleTimeWindowMode::Off)
            .build()?;
        let timing = &schedule.timing;
        let start = Moment::from_secs(schedule.start.timestamp());
        // The SDK adds a client token that its own tries share, and no other: one that stays the same would find a schedule
        // that was deleted meanwhile.
        let request = self
            .client
            .create_schedule()
            .group_name(&self.settings.schedule_group)
            .name(&part.name)
            .schedule_expression(&part.expression)
            .schedule_expression_timezone(schedule.zone.name())
            .set_start_date(timing.has_start().then_some(start))
            .set_action_after_completion(timing.is_once().then_some(ActionAfterCompletion::Delete))
            .flexible_time_window(off)
            .target(target);
        let answer = request.send().await;
        answer.map(drop).map_err(|error| ScheduleError::Create(Box::new(error)))
    }

    /// Builds what a schedule invokes, and with what.
    pub fn target(&self, schedule: &Definition, function: &str) -> Result<Target, BuildError> {
        let retry = RetryPolicy::builder()
            .maximum_retry_attempts(RETRIES)
            .maximum_event_age_in_seconds(RETRY_SECONDS)
            .build();
        let dead_letters = DeadLetterConfig::builder().arn(&self.settings.dead_letters);
        Target::builder()
            .arn(function)
            .role_arn(&self.settings.schedule_role)
            .dead_letter_config(dead_letters.build())
            .retry_policy(retry)
            .input(serde_json::to_string(&schedule.input).expect("an input is JSON"))
            .build()
    }

    /// Reads a schedule; none where there is none.
    ///
    /// # Errors
    /// [`ScheduleError::Get`] where Scheduler cannot be asked.
    pub async fn get(&self, name: &str) -> Result<Option<GetScheduleOutput>, ScheduleError> {
        let group = &self.settings.schedule_group;
        match self.client.get_schedule().group_name(group).name(name).send().await {
            Ok(output) => Ok(Some(output)),
            Err(error) => match error.as_service_error() {
                Some(GetScheduleError::ResourceNotFoundException(_)) => Ok(None),
                _ => Err(ScheduleError::Get(Box::new(error))),
            },
        }
    }

    /// Lists a page of the group; a token asks for the page that follows the one it came with.
    ///
    /// # Errors
    /// [`ScheduleError::List`] where the token is none, or Scheduler cannot be asked.
    pub async fn list(&self, limit: usize, page: Option<String>) -> Result<ListSchedulesOutput, ScheduleError> {
        let request = self
            .client
            .list_schedules()
            .group_name(&self.settings.schedule_group)
            .max_results(i32::try_from(limit).unwrap_or(i32::MAX))
            .set_next_token(page);
        let answer = request.send().await;
        answer.map_err(|error| ScheduleError::List(Box::new(error)))
    }

    /// Deletes a schedule, and tells if it was there.
    ///
    /// # Errors
    /// [`ScheduleError::Delete`] where it is not known to be deleted.
    pub async fn delete(&self, name: &str) -> Result<bool, ScheduleError> {
        let group = &self.settings.schedule_group;
        match self.client.delete_schedule().group_name(group).name(name).send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(DeleteScheduleError::ResourceNotFoundException(_)) => Ok(false),
                _ => Err(ScheduleError::Delete(Box::new(error))),
            },
        }
    }
}
