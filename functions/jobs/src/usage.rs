//! GET /usage: which images the nodes of a rule run, as far as they have told.

mod answer;

use chrono::{DateTime, Utc};
use prefetch::{fields::FieldError, usage::Usage};
use serde_json::Value;

use crate::{
    http::{
        answer::Answer,
        problem::Problem,
        query::{Page, Query},
    },
    settings::Settings,
    usage::answer::UsageList,
};

/// Tells a page of the images that the nodes of a rule run, or lately ran, by name.
///
/// It costs one Query of DynamoDB for each megabyte of the rule's rows; this process asks again after 30 seconds.
///
/// # Errors
/// A 400 where the query is not accepted or names no rule, a 503 where DynamoDB cannot be asked.
pub async fn get(usage: &Usage, settings: &Settings, query: &Query, now: DateTime<Utc>) -> Result<Answer, Problem> {
    let page: Page<String> = query.page_beside(&["rule"], 1..=500, 100)?;
    let rule = rule(query, settings).map_err(|error| Problem::fields(vec![error]))?;
    let rows = usage.of_rule(rule, now.into()).await.map_err(Problem::unavailable)?;
    Ok(Answer::ok(&UsageList::of(rule, settings.usage.within, &rows, &page)))
}

/// Gives the rule that a query names.
fn rule<'a>(query: &Query, settings: &'a Settings) -> Result<&'a str, FieldError> {
    let name = query.0.get("rule");
    let mut rules = settings.shared.rules.iter().map(|rule| rule.name.as_str());
    rules.find(|rule| name.is_some_and(|name| name == rule)).ok_or_else(|| {
        let value = name.cloned().map(Value::String);
        FieldError::new("rule", value, settings.rule_names())
    })
}

#[cfg(test)]
mod tests;
