//! `/api/jobs`: the recorded list, filtered, sorted and paged as ComfyUI does it.

use serde::Deserialize;
use serde_json::value::RawValue;

const STATUSES: [&str; 5] = ["pending", "in_progress", "completed", "failed", "cancelled"];

/// One entry of the list; `raw` is its text, verbatim.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) raw: &'a str,
    pub(super) fields: JobFields,
}

#[derive(Debug, Deserialize)]
pub(super) struct JobFields {
    pub(super) id: String,
    pub(super) status: String,
    #[serde(default)]
    create_time: i64,
    #[serde(default)]
    execution_start_time: i64,
    #[serde(default)]
    execution_end_time: i64,
    workflow_id: Option<String>,
}

impl JobFields {
    pub(super) fn is_finished(&self) -> bool {
        !matches!(self.status.as_str(), "pending" | "in_progress")
    }

    /// ComfyUI collects the running job first, then the queue, then the history.
    fn collected(&self) -> u8 {
        match self.status.as_str() {
            "in_progress" => 0,
            "pending" => 1,
            _ => 2,
        }
    }

    fn duration(&self) -> i64 {
        if self.execution_start_time == 0 || self.execution_end_time == 0 {
            return 0;
        }
        self.execution_end_time - self.execution_start_time
    }
}

#[derive(Deserialize)]
struct Listing<'a> {
    #[serde(borrow)]
    jobs: Vec<&'a RawValue>,
}

pub(super) fn parse(body: &str) -> Vec<Job<'_>> {
    let listing: Listing<'_> = serde_json::from_str(body).unwrap_or(Listing { jobs: Vec::new() });
    listing
        .jobs
        .into_iter()
        .filter_map(|raw| {
            Some(Job {
                raw: raw.get(),
                fields: serde_json::from_str(raw.get()).ok()?,
            })
        })
        .collect()
}

/// What `GET /api/jobs?…` asks for.
#[derive(Debug, Default)]
pub(super) struct JobsQuery {
    statuses: Option<Vec<String>>,
    workflow_id: Option<String>,
    by_duration: bool,
    ascending: bool,
    limit: Option<usize>,
    offset: usize,
}

impl JobsQuery {
    /// The error is the text that ComfyUI answers with a 400.
    pub(super) fn parse(query: &[(String, String)]) -> Result<JobsQuery, String> {
        let mut parsed = JobsQuery::default();
        for (name, value) in query {
            match name.as_str() {
                "status" if !value.is_empty() => parsed.statuses = Some(statuses(value)?),
                "workflow_id" => parsed.workflow_id = Some(value.clone()),
                "sort_by" => {
                    parsed.by_duration = match value.to_lowercase().as_str() {
                        "created_at" => false,
                        "execution_duration" => true,
                        _ => {
                            return Err(
                                "sort_by must be 'created_at' or 'execution_duration'".into()
                            );
                        }
                    }
                }
                "sort_order" => {
                    parsed.ascending = match value.to_lowercase().as_str() {
                        "asc" => true,
                        "desc" => false,
                        _ => return Err("sort_order must be 'asc' or 'desc'".into()),
                    }
                }
                "limit" => {
                    let limit: i64 = value.parse().map_err(|_| "limit must be an integer")?;
                    let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0);
                    parsed.limit = Some(limit.ok_or("limit must be a positive integer")?);
                }
                "offset" => {
                    let offset: i64 = value.parse().map_err(|_| "offset must be an integer")?;
                    parsed.offset = usize::try_from(offset).unwrap_or(0);
                }
                _ => {}
            }
        }
        Ok(parsed)
    }

    /// The body of the answer, spaced as Python's `json.dumps` does it.
    pub(super) fn answer(&self, body: &str) -> String {
        let mut jobs = parse(body);
        jobs.retain(|job| {
            self.statuses
                .as_ref()
                .is_none_or(|wanted| wanted.contains(&job.fields.status))
                && self
                    .workflow_id
                    .as_ref()
                    .is_none_or(|wanted| job.fields.workflow_id.as_ref() == Some(wanted))
        });
        if self.by_duration {
            // Unfinished jobs have no duration; among equals ComfyUI keeps the order in which it collected them.
            jobs.sort_by_key(|job| (job.fields.collected(), job.fields.create_time));
        }
        let key = |job: &Job<'_>| {
            if self.by_duration {
                job.fields.duration()
            } else {
                job.fields.create_time
            }
        };
        if self.ascending {
            jobs.sort_by_key(key);
        } else {
            jobs.sort_by_key(|job| std::cmp::Reverse(key(job)));
        }
        let total = jobs.len();
        let page: Vec<&str> = jobs
            .iter()
            .skip(self.offset)
            .take(self.limit.unwrap_or(usize::MAX))
            .map(|job| job.raw)
            .collect();
        let has_more = self.limit.is_some() && self.offset + page.len() < total;
        let limit = self
            .limit
            .map_or("null".to_owned(), |limit| limit.to_string());
        format!(
            r#"{{"jobs": [{}], "pagination": {{"offset": {}, "limit": {limit}, "total": {total}, "has_more": {has_more}}}}}"#,
            page.join(", "),
            self.offset,
        )
    }
}

fn statuses(value: &str) -> Result<Vec<String>, String> {
    let wanted: Vec<String> = value
        .split(',')
        .map(|status| status.trim().to_lowercase())
        .filter(|status| !status.is_empty())
        .collect();
    let invalid: Vec<&str> = wanted
        .iter()
        .map(String::as_str)
        .filter(|status| !STATUSES.contains(status))
        .collect();
    if invalid.is_empty() {
        return Ok(wanted);
    }
    Err(format!(
        "Invalid status value(s): {}. Valid values: {}",
        invalid.join(", "),
        STATUSES.join(", ")
    ))
}
