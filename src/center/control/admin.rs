//! What the control plane shows, as JSON and as text, and what a person may ask of it.

use std::fmt::Write;

use serde_json::{Map, Value, json};
use tidegate_xds::{
    server::{session::Status, world::World},
    subscription::{ResourceType, Variant},
};

use super::{
    Control, State, Stream,
    rollout::{Canary, NotDone, Push},
};
use crate::{center::admin::time, center::metrics::Metric};

/// What a person may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::center) enum Order {
    /// The canary is for all.
    Promote,
    /// Back by one push.
    RollBack,
}

impl Control {
    /// Does what a person asks for, and keeps it.
    pub(in crate::center) async fn order(&self, order: Order) -> Result<(), String> {
        self.carry_out(order)?;
        let saved = self.save().await;
        saved.map_err(|why| format!("it is done, and ends with the process: {why}"))
    }

    fn carry_out(&self, order: Order) -> Result<(), String> {
        let state = &mut *self.state();
        let (done, said) = match order {
            Order::Promote => (state.rollout.promote(), "promoted by hand"),
            Order::RollBack => (state.rollout.roll_back(), "rolled back by hand"),
        };
        done.map_err(|why: NotDone| why.to_string())?;
        state.counts.pushes += 1;
        state.publish(said);
        Ok(())
    }

    /// All of it.
    pub(in crate::center) fn view(&self) -> Value {
        let state = &*self.state();
        let rollout = &state.rollout;
        let nodes = state.streams.values().map(|stream| node(state, stream));
        json!({
            "source": {
                "path": state.source.path.display().to_string(),
                "files": state.source.files,
                "read": time(state.source.read),
                "problems": state.source.problems,
                "remarks": state.source.remarks,
            },
            "canary_for": rollout.selector().map(ToString::to_string),
            "stable": push(rollout.stable()),
            "canary": rollout.canary().map(canary),
            "withdrawn": rollout.withdrawn().map(|version| &**version),
            "history": rollout.history().rev().map(push).collect::<Vec<_>>(),
            "nodes": nodes.collect::<Vec<_>>(),
        })
    }

    /// The same for people.
    pub(in crate::center) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = write_text(&mut text, &self.state());
        text
    }

    /// The value of a metric.
    pub(in crate::center) fn metric(&self, metric: &Metric<State>) -> u64 {
        (metric.value)(&self.state())
    }
}

/// Metrics of the control plane, in the order of exposition.
pub(in crate::center) const METRICS: &[Metric<State>] = &[
    Metric {
        name: "tidegate_center_xds_streams",
        kind: "gauge",
        help: "Streams on which resources are served.",
        value: |of| of.streams.len() as u64,
    },
    Metric {
        name: "tidegate_center_xds_streams_behind",
        kind: "gauge",
        help: "Streams whose node does not have all that it is served, or refused a part of it.",
        value: |of| {
            let streams = of.streams.values();
            streams.filter(|stream| !stream.is_in_step()).count() as u64
        },
    },
    Metric {
        name: "tidegate_center_xds_resources",
        kind: "gauge",
        help: "Resources that are served to all.",
        value: |of| of.rollout.stable().world.all().count() as u64,
    },
    Metric {
        name: "tidegate_center_xds_canary",
        kind: "gauge",
        help: "1 while a push is tried by some nodes.",
        value: |of| {
            let canary = of.rollout.canary();
            canary.is_some_and(|canary| canary.halted.is_none()).into()
        },
    },
    Metric {
        name: "tidegate_center_xds_streams_total",
        kind: "counter",
        help: "Streams that were opened.",
        value: |of| of.counts.streams,
    },
    Metric {
        name: "tidegate_center_xds_acknowledged_total",
        kind: "counter",
        help: "Responses that were acknowledged.",
        value: |of| of.counts.acknowledged,
    },
    Metric {
        name: "tidegate_center_xds_refused_total",
        kind: "counter",
        help: "Responses that were refused (NACK).",
        value: |of| of.counts.refused,
    },
    Metric {
        name: "tidegate_center_xds_pushes_total",
        kind: "counter",
        help: "Changes of what is served: by the directory, a promotion or a way back.",
        value: |of| of.counts.pushes,
    },
    Metric {
        name: "tidegate_center_xds_loads_refused_total",
        kind: "counter",
        help: "Times that the directory was read and something was wrong with it.",
        value: |of| of.counts.loads_refused,
    },
    Metric {
        name: "tidegate_center_xds_canaries_halted_total",
        kind: "counter",
        help: "Canaries that ended since a node refused them.",
        value: |of| of.counts.halted,
    },
];

fn push(push: &Push) -> Value {
    json!({
        "push": push.number,
        "at": time(push.at),
        "version": &**push.world.version(),
        "resources": counts(&push.world),
    })
}

/// How many there are of each type.
fn counts(world: &World) -> Value {
    let counts = ResourceType::ALL.map(|kind| {
        let count = world.resources(kind).count();
        (kind.word().to_owned(), json!(count))
    });
    Value::Object(Map::from_iter(counts))
}

fn canary(canary: &Canary) -> Value {
    let mut view = push(&canary.push);
    if let Some(view) = view.as_object_mut() {
        let halted = canary
            .halted
            .as_ref()
            .map(|halt| json!({ "at": time(halt.at), "node": halt.node, "error": halt.error }));
        view.insert("halted".into(), halted.into());
    }
    view
}

fn node(state: &State, stream: &Stream) -> Value {
    let node = &stream.node;
    let protocol = match stream.variant {
        Variant::Delta => "delta",
        Variant::StateOfTheWorld => "state_of_the_world",
    };
    json!({
        "id": node.id,
        "cluster": node.cluster,
        "zone": node.zone,
        "agent": node.agent,
        "protocol": protocol,
        "since": time(stream.opened),
        "is_canary": state.rollout.is_canary(node),
        "served": &**stream.worlds.borrow().version(),
        "in_step": stream.is_in_step(),
        "types": stream.kinds.iter().map(of_type).collect::<Vec<_>>(),
    })
}

fn of_type(status: &Status) -> Value {
    let refused = status.refused.iter().map(
        |(name, version, error)| json!({ "name": &**name, "version": &**version, "error": error }),
    );
    json!({
        "type": status.kind.word(),
        "everything": status.everything,
        "names": status.names,
        "sent": status.sent,
        "unanswered": status.unanswered,
        "acknowledged": &*status.acknowledged,
        "settled": status.settled,
        "error": status.error,
        "refused": refused.collect::<Vec<_>>(),
    })
}

fn write_text(out: &mut String, state: &State) -> std::fmt::Result {
    let (source, rollout) = (&state.source, &state.rollout);
    let (path, files, read) = (source.path.display(), source.files, time(source.read));
    writeln!(out, "directory  {path}, {files} files, read {read}")?;
    for problem in &source.problems {
        writeln!(out, "  refused  {problem}")?;
    }
    for remark in &source.remarks {
        writeln!(out, "  remark   {remark}")?;
    }
    writeln!(out, "for all    {}", in_words(rollout.stable()))?;
    if let (Some(canary), Some(selector)) = (rollout.canary(), rollout.selector()) {
        writeln!(out, "canary     {}, for {selector}", in_words(&canary.push))?;
        if let Some(halt) = &canary.halted {
            writeln!(out, "  halted   {}: {}", halt.node, halt.error)?;
        }
    }
    if let Some(version) = rollout.withdrawn() {
        writeln!(
            out,
            "withdrawn  version {version}, which the directory still has"
        )?;
    }
    for before in rollout.history().rev() {
        writeln!(out, "before     {}", in_words(before))?;
    }
    state
        .streams
        .values()
        .try_for_each(|stream| write_node(out, stream))
}

fn in_words(push: &Push) -> String {
    let (number, version, at) = (push.number, push.world.version(), time(push.at));
    format!("push {number}, version {version}, of {at}")
}

fn write_node(out: &mut String, stream: &Stream) -> std::fmt::Result {
    let step = match stream.is_in_step() {
        true => "in step",
        false => "behind",
    };
    let (id, agent) = (&stream.node.id, &stream.node.agent);
    let version = stream.worlds.borrow().version().clone();
    writeln!(out, "node       {id} ({agent}): {step}, version {version}")?;
    for status in &stream.kinds {
        let word = status.kind.word();
        for (name, _, error) in &status.refused {
            writeln!(out, "  refused  {word} `{name}`: {error}")?;
        }
        if let (Some(error), []) = (&status.error, &*status.refused) {
            writeln!(out, "  refused  {word}: {error}")?;
        }
    }
    Ok(())
}
