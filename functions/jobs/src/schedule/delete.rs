//! DELETE /jobs/schedule/{name}: jobs that were submitted go on.

use serde_json::{Value, json};

use crate::{
    http::{answer::Answer, problem::Problem},
    schedule::{
        name::{accepted_names, is_name, twin},
        scheduler::Scheduler,
    },
};

/// Deletes a schedule; jobs it has submitted go on.
///
/// # Errors
/// A 400 where this is no name, a 404 where there is no such schedule, a 503 where Scheduler cannot be asked.
pub async fn delete(scheduler: &Scheduler<'_>, name: &str) -> Result<Answer, Problem> {
    if !is_name(name) {
        let name = Value::String(name.to_owned());
        return Err(Problem::field("name", Some(name), accepted_names()));
    }
    // The twin goes first: where only it is deleted, the other is still listed, and can be deleted again.
    let mut was_there = false;
    for part in [twin(name), name.to_owned()] {
        was_there |= scheduler.delete(&part).await.map_err(|error| {
            let advice =
                format!("the schedule {name} may fire still, or on some of its days: the same request removes it");
            Problem::unavailable(error).with_unknown(vec![json!({"schedule": name})], &advice)
        })?;
    }
    if was_there {
        Ok(Answer::no_content())
    } else {
        Err(Problem::not_found("there is no such schedule"))
    }
}
