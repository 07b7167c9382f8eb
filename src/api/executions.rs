//! `/api/executions`: what ran, what runs, what waits.

use super::errors::Problem;
use super::params::{Params, uuid};
use super::views::{ExecutionView, Page, Surroundings};
use super::{ApiState, View, control, store};
use actix_web::HttpRequest;
use actix_web::web::{Data, Json, Path};
use weir_core::journal::{ExecutionFilter, Reader, StoredExecution};
use weir_model::id::{ExecutionSeq, WorkflowId};
use weir_model::status::Status;

const FILTERS: &[&str] = &[
    "source",
    "workflow_id",
    "status",
    "external_id",
    "cursor",
    "limit",
];

/// Newest first.
pub(super) async fn list(request: HttpRequest, state: Data<ApiState>) -> View<Page<ExecutionView>> {
    let params = Params::of(&request, FILTERS)?;
    let source = params.text("source").map(str::to_owned);
    let mut filter = ExecutionFilter {
        workflow: params.integer("workflow_id")?.map(WorkflowId),
        statuses: params
            .text("status")
            .map(statuses)
            .transpose()?
            .unwrap_or_default(),
        external_id: params.text("external_id").map(str::to_owned),
        before: params.cursor()?.map(ExecutionSeq),
        limit: params.limit()?,
        ..ExecutionFilter::default()
    };
    let found = store::read(&state, move |reader| {
        if let Some(name) = source {
            match reader.source_by_name(&name)? {
                Some(source) => filter.source = Some(source.id),
                None => return Ok((Vec::new(), None)),
            }
        }
        page(reader, filter)
    });
    let (executions, next) = found.await?;
    let around = Surroundings::new(&state.monitor, state.base_url());
    let items = executions
        .iter()
        .map(|execution| around.view(execution))
        .collect();
    Ok(Json(Page {
        items,
        next_cursor: next.map(|seq| seq.to_string()),
    }))
}

/// One page, and where the next one begins if there is one.
fn page(
    reader: &Reader,
    mut filter: ExecutionFilter,
) -> Result<(Vec<StoredExecution>, Option<ExecutionSeq>), Problem> {
    let mut executions = reader.executions(&filter)?;
    let full = executions.len() == filter.limit;
    let last = executions
        .last()
        .map(|last| last.record.seq)
        .filter(|_| full);
    (filter.before, filter.limit) = (last, 1);
    let next = match last {
        Some(last) => reader.executions(&filter)?.first().map(|_| last),
        None => None,
    };
    store::with_steps(reader, &mut executions)?;
    Ok((executions, next))
}

/// Statuses with commas between them; `open` stands for all that are not closed.
fn statuses(text: &str) -> Result<Vec<Status>, Problem> {
    let mut statuses = Vec::new();
    for word in text.split(',').map(str::trim) {
        match Status::parse(word) {
            Some(status) => statuses.push(status),
            None if word == "open" => {
                statuses.extend(Status::ALL.into_iter().filter(|status| !status.is_closed()))
            }
            None => {
                let known = Status::ALL.map(Status::as_str).join(", ");
                return Err(Problem::bad_parameter(
                    "status",
                    format_args!(
                        "found `{}`, wanted some of open, {known}",
                        super::errors::echo(word)
                    ),
                ));
            }
        }
    }
    Ok(statuses)
}

pub(super) async fn one(
    request: HttpRequest,
    state: Data<ApiState>,
    id: Path<String>,
) -> View<ExecutionView> {
    Params::of(&request, &[])?;
    let id = uuid(&id, "an execution")?;
    let found = store::read(&state, move |reader| {
        let execution = store::execution(reader, id)?;
        let control = control::view(reader, &execution)?;
        Ok((execution, control))
    });
    let (execution, control) = found.await?;
    let around = Surroundings::new(&state.monitor, state.base_url());
    Ok(Json(ExecutionView {
        control: Some(control),
        ..around.view_whole(&execution)
    }))
}
