//! The adaptive limiter over the traces that overloads are known by: a step, a ramp, a sawtooth, one hot interface,
//! a neighbour that takes the CPU, a slow leak of memory. `TIDEGATE_BLESS=1` draws them for `docs/limiting.md`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    dead_code,
    missing_docs,
    unreachable_pub
)]

mod simulation;

use std::{fmt::Write, fs};

use simulation::{
    Random,
    machine::{Machine, TICK, good, units},
};
use tidegate_core::limiter::watermark::Phase;

/// Seconds of each trace.
const SECONDS: f64 = 30.0;
const CORES: f64 = 8.0;

/// One trace, tick by tick.
struct Trace {
    name: &'static str,
    title: &'static str,
    /// What is offered, of what the CPU can bear.
    offered: Vec<f64>,
    /// Useful work, of the CPU.
    goodput: Vec<f64>,
    watermark: Vec<f64>,
    /// Critical requests answered in time, of all in the trace.
    critical: f64,
    phase: Phase,
}

/// What happens at a time: times the usual load, by unit; and what the machine lacks.
type Course = fn(&mut Machine, f64) -> [f64; 4];

fn trace(name: &'static str, title: &'static str, course: Course) -> Trace {
    let mut random = Random::new(7);
    let units = units(&mut random, CORES, 4);
    let mut machine = Machine::new(CORES, units.clone(), true, 7);
    machine.run(5.0, |_, _| 1.0);
    machine.watermarks.clear();
    let (mut offered, mut goodput) = (Vec::new(), Vec::new());
    let (mut asked, mut answered) = (0.0, 0.0);
    for tick in 0..(SECONDS / TICK) as usize {
        let load = course(&mut machine, tick as f64 * TICK);
        let outcome = machine.run(TICK, |unit, _| load[unit]);
        let work = outcome.iter().zip(&units).map(|(o, u)| o.offered * u.cpu);
        offered.push(work.sum::<f64>() / TICK / CORES);
        goodput.push(good(&outcome, &units) / TICK / CORES);
        asked += outcome[0].offered;
        answered += outcome[0].good;
    }
    Trace {
        name,
        title,
        offered,
        goodput,
        watermark: machine.watermarks.clone(),
        critical: answered / asked,
        phase: machine.phase,
    }
}

fn traces() -> [Trace; 6] {
    [
        trace("step", "1× to 10× for 15 s", |_, now| {
            [if (5.0..20.0).contains(&now) {
                10.0
            } else {
                1.0
            }; 4]
        }),
        trace("ramp", "1× to 8× in 15 s, then back", |_, now| {
            let up = ((now - 5.0) / 15.0).clamp(0.0, 1.0);
            [if now < 20.0 { 1.0 + 7.0 * up } else { 1.0 }; 4]
        }),
        trace("sawtooth", "up to 6× every 5 s", |_, now| {
            [if now < 22.0 { 1.0 + now % 5.0 } else { 1.0 }; 4]
        }),
        trace(
            "hot",
            "one interface at 12×, the others as usual",
            |_, now| {
                let hot = if (5.0..20.0).contains(&now) {
                    12.0
                } else {
                    1.0
                };
                [1.0, hot, 1.0, 1.0]
            },
        ),
        trace(
            "neighbour",
            "somebody else takes half of the CPU",
            |machine, now| {
                machine.stolen = if (5.0..20.0).contains(&now) { 4.0 } else { 0.0 };
                [1.0; 4]
            },
        ),
        trace(
            "leak",
            "memory fills up, and is given back",
            |machine, now| {
                machine.memory = Some(if now < 20.0 { 0.5 + 0.025 * now } else { 0.5 });
                [1.0; 4]
            },
        ),
    ]
}

/// Goal: whatever the overload's shape, critical requests are answered, useful work goes on, and afterwards nobody
/// is held back (L5, L7). Method: the traces; goodput is that of the ticks in which as much is offered.
#[test]
fn traces_of_overload() {
    for trace in traces() {
        let name = trace.name;
        assert!(
            trace.critical >= 0.98,
            "{name}: critical {:.4}",
            trace.critical
        );
        assert_eq!(trace.phase, Phase::Healthy, "{name}");
        let last = trace.goodput.len() - 20;
        let (after, asked): (f64, f64) = (
            trace.goodput[last..].iter().sum(),
            trace.offered[last..].iter().sum(),
        );
        assert!(
            after >= 0.95 * asked,
            "{name}: {after:.2} of {asked:.2} afterwards"
        );
        if std::env::var_os("TIDEGATE_BLESS").is_some() {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/limiting");
            fs::create_dir_all(folder).unwrap();
            fs::write(format!("{folder}/{name}.svg"), drawn(&trace)).unwrap();
        }
    }
    let worst = |trace: &Trace, from: usize, to: usize| {
        let ticks = &trace.goodput[from..to];
        ticks.iter().copied().fold(f64::INFINITY, f64::min)
    };
    // From 2 s after the step on.
    let [step, ..] = &traces();
    assert!(worst(step, 70, 200) >= 0.9 * 0.8 - 0.5 / CORES);
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 160.0;
/// The highest value that is drawn: what is offered goes far beyond.
const TOP: f64 = 2.0;

/// The trace as a picture: what is offered, useful work, watermark, over time.
fn drawn(trace: &Trace) -> String {
    let (left, top) = (36.0, 24.0);
    let x = |tick: usize| left + tick as f64 * TICK / SECONDS * WIDTH;
    let y = |value: f64| top + HEIGHT * (1.0 - value.min(TOP) / TOP);
    let (width, height) = (WIDTH + left + 12.0, HEIGHT + top + 40.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\" fill=\"#777\">\n<title>{0}</title>\n<text x=\"{left}\" y=\"14\" font-size=\"13\">{0}</text>\n",
        trace.title
    );
    for value in [0.0, 1.0, 2.0] {
        let at = y(value);
        _ = writeln!(
            svg,
            "<path d=\"M{left} {at}H{}\" stroke=\"#999\" stroke-width=\".5\"/><text x=\"8\" y=\"{}\">{value:.0}</text>",
            left + WIDTH,
            at + 4.0
        );
    }
    for second in (0..=30).step_by(5) {
        let at = x(second * 10);
        let below = top + HEIGHT + 14.0;
        _ = writeln!(
            svg,
            "<text x=\"{at:.0}\" y=\"{below}\" text-anchor=\"middle\">{second} s</text>"
        );
    }
    for (values, colour, name, place) in [
        (&trace.offered, "#999", "offered, of the CPU", 0.0),
        (&trace.goodput, "#1a9c5b", "answered in time", 160.0),
        (&trace.watermark, "#d2562b", "watermark", 300.0),
    ] {
        svg += "<path fill=\"none\" stroke-width=\"1.5\" stroke=\"";
        svg += colour;
        svg += "\" d=\"";
        for (tick, value) in values.iter().enumerate() {
            let word = if tick == 0 { 'M' } else { 'L' };
            _ = write!(svg, "{word}{:.1} {:.1}", x(tick), y(*value));
        }
        let (at, below) = (left + place, top + HEIGHT + 32.0);
        _ = writeln!(
            svg,
            "\"/>\n<text x=\"{at}\" y=\"{below}\" fill=\"{colour}\">{name}</text>"
        );
    }
    svg + "</svg>\n"
}
